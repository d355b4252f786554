"""Go around the loop on a real Label Studio server: predictions, corrections, a fit, better predictions.

    python3 -m venv /tmp/studio && /tmp/studio/bin/pip install label-studio
    python tests/readers/label_studio_server.py /tmp/studio/bin/label-studio

Starts the server and `tipsseg serve` on 127.0.0.1, and ends both. Imports the example scenes, with labels for brushes; "mascot" is
a word that the model does not know. Retrieves predictions, submits the truth of two tasks, starts training, and retrieves
predictions again. Prints the mean IoU of the predictions with the truth of the other tasks. With --through-server, tipsseg reads
the images over the API; by default from the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg.formats.label_studio import decode_brush, encode_brush, result_head

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLASSES = ("mascot", "tree", "house", "sky", "grass")
SUBMITTED = ("meadow/house.webp", "beach/tree.tif")
TOKEN = "0123456789abcdef0123456789abcdef01234567"
CONFIG = (
    '<View><Image name="photo" value="$image"/><BrushLabels name="brush" toName="photo">'
    + "".join(f'<Label value="{name}"/>' for name in CLASSES)
    + "</BrushLabels></View>"
)

#: It refuses back ends on addresses of the own machine by default.
ENVIRONMENT = {
    "USE_DEFAULT_BANNED_SUBNETS": "false",
    "LOCAL_FILES_SERVING_ENABLED": "true",
    "LOCAL_FILES_DOCUMENT_ROOT": str(EXAMPLES),
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
}


class Api:
    """The API of the server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return json.loads(text) if text else None


@contextmanager
def running(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(what: Any, seconds: float, message: str) -> Any:
    """Return the first true result of a function."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.3)
    raise SystemExit(message)


def truth_of(name: str) -> NDArray[np.uint8]:
    """The truth of a scene in the ids of CLASSES; 255 ignored."""
    words = ("panda", *CLASSES[1:])
    leaves = [line for line in (EXAMPLES / "leaves.txt").read_text().splitlines() if line and not line.startswith("#")]
    ids = np.zeros(256, np.uint8)
    ids[255] = 255
    for number, word in enumerate(words, start=1):
        for leaf, each in enumerate(leaves, start=1):
            if each.startswith(word):
                ids[leaf] = number
    return ids[np.asarray(Image.open((EXAMPLES / "truth" / name).with_suffix(".png")))]


def predicted(results: list[dict[str, Any]], size: tuple[int, int]) -> NDArray[np.uint8]:
    ids = np.zeros(size, np.uint8)
    for result in results:
        value = result["value"]
        ids[decode_brush(value["rle"], size)] = CLASSES.index(value["brushlabels"][0]) + 1
    return ids


def mean_iou(api: Api, tasks: list[dict[str, Any]], version: str) -> float:
    """The mean IoU over the classes, of the predictions of a version of the model."""
    counts = np.zeros((2, len(CLASSES) + 1))
    for task in tasks:
        name = task["data"]["image"].partition("scenes/")[2]
        if name in SUBMITTED:
            continue
        truth = truth_of(name)
        found = api("GET", f"/api/predictions?task={task['id']}")
        (result,) = [each["result"] for each in found if each["model_version"] == version]
        ids = predicted(result, truth.shape)
        for number in range(len(CLASSES) + 1):
            one, two = ids[truth != 255] == number, truth[truth != 255] == number
            counts[:, number] += (one & two).sum(), (one | two).sum()
    return float((counts[0] / np.maximum(counts[1], 1))[counts[1] > 0].mean() * 100)


def retrieve(api: Api, project: int, tasks: list[dict[str, Any]]) -> tuple[str, float]:
    """Retrieve predictions for all tasks; return the version of the model, and the seconds."""
    began = time.monotonic()
    words = f"id=retrieve_tasks_predictions&project={project}"
    api("POST", f"/api/dm/actions?{words}", {"selectedItems": {"all": True, "excluded": []}})
    seconds = time.monotonic() - began
    found = [api("GET", f"/api/predictions?task={task['id']}") for task in tasks]
    versions = [max(each, key=lambda entry: entry["id"])["model_version"] for each in found if each]
    print(f"{len(versions)} of {len(tasks)} tasks have predictions of {versions[0]!r}, in {seconds:.1f} s")
    return str(versions[0]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Go around the loop on a real Label Studio server.")
    parser.add_argument("server", type=Path, help="the program label-studio")
    parser.add_argument("--port", type=int, default=8089, help="a free port for the server")
    parser.add_argument("--through-server", action="store_true", help="read images over the API")
    options = parser.parse_args()
    url = f"http://127.0.0.1:{options.port}"
    api = Api(url)
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        words = [
            "start",
            "--no-browser",
            "--username",
            "a@example.com",
            "--password",
            "secret",
            "--enable-legacy-api-token",
        ]
        studio = [str(options.server), *words, "--user-token", TOKEN, "--port", str(options.port)]
        studio += ["--data-dir", str(top / "data")]
        backend = [
            sys.executable,
            *["-m", "tipsseg", "serve", "-m", "tiny", "--port", "0", "--fits"],
            str(top / "fits"),
        ]
        backend += [] if options.through_server else ["--images", str(EXAMPLES)]
        log = top / "serve.txt"
        with (
            running(studio, {**ENVIRONMENT, "LABEL_STUDIO_HOST": url}, top / "studio.txt"),
            running(backend, {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": TOKEN}, log),
        ):
            served = wait_for(
                lambda: re.search(r"Serving \S+ on (http://\S+)", log.read_text()),
                120,
                f"no back end:\n{log.read_text()}",
            )
            wait_for(lambda: answers(url), 300, f"no server:\n{(top / 'studio.txt').read_text()[-3000:]}")
            try:
                go_around(api, served[1], log)
            finally:
                print(log.read_text().strip())


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def go_around(api: Api, backend: str, log: Path) -> None:
    project = api("POST", "/api/projects", {"title": "scenes", "label_config": CONFIG})["id"]
    storage = {"project": project, "path": str(EXAMPLES / "scenes"), "use_blob_urls": True}
    api("POST", "/api/storages/localfiles", storage)
    names = [path.relative_to(EXAMPLES).as_posix() for path in sorted((EXAMPLES / "scenes").rglob("*.*"))]
    api("POST", f"/api/projects/{project}/import", [{"image": f"/data/local-files/?d={name}"} for name in names])
    tasks = api("GET", f"/api/tasks?project={project}&page_size=100")["tasks"]
    connected = api("POST", "/api/ml", {"project": project, "url": backend, "title": "tipsseg"})
    print(f"Label Studio connected: {connected['readable_state']}")
    version, _ = retrieve(api, project, tasks)
    print(f"mean IoU {mean_iou(api, tasks, version):.1f}")
    for task in tasks:
        name = task["data"]["image"].partition("scenes/")[2]
        if name in SUBMITTED:
            truth = truth_of(name)
            results = [
                {
                    **result_head(str(number), "brushlabels", ("brush", "photo"), truth.shape, 1.0),
                    "value": {"format": "rle", "rle": encode_brush(truth == number), "brushlabels": [label]},
                }
                for number, label in enumerate(CLASSES, start=1)
                if (truth == number).any()
            ]
            api("POST", f"/api/tasks/{task['id']}/annotations/", {"result": results})
    began = time.monotonic()
    api("POST", f"/api/ml/{connected['id']}/train", {})

    wait_for(lambda: "fitted to" in log.read_text(), 60, "no fit")
    print(f"Fitted to {len(SUBMITTED)} submitted tasks in {time.monotonic() - began:.1f} s")
    version, _ = retrieve(api, project, tasks)
    print(f"mean IoU {mean_iou(api, tasks, version):.1f}")


if __name__ == "__main__":
    main()
