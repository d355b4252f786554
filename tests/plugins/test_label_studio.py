"""The backend for Label Studio: its protocol over HTTP, predictions for each control tag, and fits from annotations."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tipsseg
from tipsseg.errors import InputError, OutputError, UsageError
from tipsseg.formats.label_studio import encode_brush, read_task
from tipsseg.formats.records import ClassNames, Objects
from tipsseg.masks.labels import paint_objects
from tipsseg.options.records import ComputeOptions
from tipsseg.plugins.serve.interface import parse_interface
from tipsseg.plugins.serve.label_studio import Backend, serve
from tipsseg.types import LabelClass

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
PHRASES = ("panda", "tree", "sky")
JSON = {"Content-Type": "application/json"}
TURNED, DESERT, CAR = (
    {"id": number, "data": {"image": f"/data/local-files/?d={name}"}}
    for number, name in enumerate(("street/turned.jpg", "desert.png", "street/car.jpg"), start=1)
)


def config(kind: str = "BrushLabels", labels: tuple[str, ...] = PHRASES) -> str:
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    return f'<View><Image name="photo" value="$image"/><{kind} name="own" toName="photo">{tags}</{kind}></View>'


class Server:
    """A backend that is served, and what it noted."""

    def __init__(self, url: str, notes: list[str], backend: Backend) -> None:
        self.url, self.notes, self.backend = url, notes, backend

    def __call__(self, path: str, body: object = None, **headers: str) -> Any:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {**JSON, **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def predict(self, kind: str, *tasks: object, labels: tuple[str, ...] = PHRASES) -> list[Any]:
        body = {"tasks": tasks, "label_config": config(kind, labels), "project": "7.1700000000"}
        found: list[Any] = self("/predict", body)["results"]
        return found


@contextmanager
def serving(folder: Path, **more: Any) -> Iterator[Server]:
    notes: list[str] = []
    compute = ComputeOptions(model="tiny", device="cpu", features=more.pop("features", None))
    backend = Backend(compute, fits=folder / "fits", images=SCENES, note=notes.append, **more)
    with serve(backend, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}", notes, backend)
        finally:
            server.shutdown()
            thread.join()
            backend.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        yield found


def painted(prediction: dict[str, Any], size: tuple[int, int]) -> NDArray[Any]:
    """The ids of a prediction, as annotations are read."""
    classes = [LabelClass(number, name, (0, 0, 0)) for number, name in enumerate(PHRASES, start=1)]
    task = {"data": {"image": "x"}, "annotations": [{"result": prediction["result"]}]}
    source = read_task(task, Path("x"), 1, ClassNames(classes, add=False))
    assert source is not None
    found = source.read(size)
    assert isinstance(found, Objects)
    return paint_objects(found, size, classes)[0]


@pytest.mark.parametrize(("kind", "least"), [("BrushLabels", 1), ("BitmaskLabels", 1), ("PolygonLabels", 0.99)])
def test_predictions_are_the_labels(server: Server, kind: str, least: float) -> None:
    expected = tipsseg.label(SCENES / "street/turned.jpg", PHRASES, model="tiny", device="cpu")
    (prediction,) = server.predict(kind, TURNED)
    assert (painted(prediction, expected.shape) == expected.labels).mean() >= least
    assert prediction["model_version"].startswith(f"tiny tipsseg {tipsseg.__version__} ")
    assert 0 < prediction["score"] <= 1
    for result in prediction["result"]:
        assert (result["from_name"], result["to_name"]) == ("own", "photo")
        assert (result["original_height"], result["original_width"]) == expected.shape


def test_boxes(server: Server) -> None:
    expected = tipsseg.label(SCENES / "desert.png", PHRASES, model="tiny", device="cpu")
    (prediction,) = server.predict("RectangleLabels", DESERT)
    found = sorted(
        (each["value"]["rectanglelabels"][0], round(each["value"]["width"] * 5.6)) for each in prediction["result"]
    )
    assert found == sorted((each.name, each.xyxy[2] - each.xyxy[0]) for each in expected.find_objects())


def test_each_label_has_the_form_of_its_tag(server: Server) -> None:
    interface = (
        '<View><Image name="a" value="$image"/><PolygonLabels name="p" toName="a"><Label value="sky"/></PolygonLabels>'
        '<BrushLabels name="b" toName="a"><Label value="panda/leg"/><Label value="tree"/></BrushLabels></View>'
    )
    (prediction,) = server("/predict", {"tasks": [CAR], "label_config": interface, "project": 7})["results"]
    found = {(each["from_name"], *each["value"][each["type"]]) for each in prediction["result"]}
    assert {("p", "sky"), ("b", "tree")} <= found <= {("p", "sky"), ("b", "tree"), ("b", "panda/leg")}
    assert len({each["id"] for each in prediction["result"]}) == len(prediction["result"])


@pytest.mark.parametrize("kind", ["BrushLabels", "BitmaskLabels", "PolygonLabels", "RectangleLabels"])
def test_relations_lead_from_parts_to_wholes(server: Server, kind: str) -> None:
    (prediction,) = server.predict(kind, DESERT, labels=("panda", "panda/leg"))
    names = {each["id"]: each["value"][kind.lower()][0] for each in prediction["result"] if "id" in each}
    relations = [each for each in prediction["result"] if each["type"] == "relation"]
    assert {(names[each["from_id"]], names[each["to_id"]]) for each in relations} == {("panda/leg", "panda")}
    assert len(relations) == [*names.values()].count("panda/leg")
    assert all(each["type"] != "relation" for each in server.predict(kind, DESERT, labels=("panda/leg",))[0]["result"])


def test_an_alias_is_the_phrase_and_the_class_of_exports(server: Server, tmp_path: Path) -> None:
    tipsseg.label_folder(SCENES / "desert.png", ["panda", "tree"], output=tmp_path / "out", model="tiny", device="cpu")
    shown = config(labels=("panda", "tree")).replace('value="panda"', 'value="Pandabär" alias="panda"')
    (prediction,) = server("/predict", {"tasks": [DESERT], "label_config": shown, "project": 7})["results"]
    assert {each["value"]["brushlabels"][0] for each in prediction["result"]} == {"panda", "tree"}
    export = tmp_path / "export.json"
    export.write_text(json.dumps([{**DESERT, "annotations": [{"result": prediction["result"]}]}]))
    assert tipsseg.review.correct_folder(tmp_path / "out", export).unchanged == ("desert.png",)


def test_a_label_keeps_its_spelling(server: Server) -> None:
    labels = ("Green_Tree", "panda / leg", " sky ")
    predictions = server.predict("BrushLabels", CAR, TURNED, DESERT, labels=labels)
    found = {name for each in predictions for result in each["result"] for name in result["value"]["brushlabels"]}
    assert found == {*labels}


def test_the_protocol(server: Server) -> None:
    assert server("/health")["status"] == "UP"
    asked = {"project": "7.1", "schema": config()}
    assert server("/setup", asked) == {"model_version": server.predict("BrushLabels", DESERT)[0]["model_version"]}
    assert server("/setup", asked) != server("/setup", {**asked, "schema": config(labels=("tree",))})
    assert server("/webhook", {"action": "ANNOTATION_CREATED"}) == {}
    assert server("/nothing", {})[0] == 404
    assert server("/predict", b"{")[0] == 400
    assert server("/train", [])[0] == 400
    assert server("/setup", asked, Origin="http://example.com")[0] == 400
    assert server("/setup", asked, **{"Content-Type": "text/plain"})[0] == 400
    assert server("/setup", {**asked, "schema": config(labels=("Tree", "tree"))})[0] == 400
    assert server("/predict", {"tasks": [], "label_config": config(), "project": "../7"})[0] == 400
    code, answer = server("/setup", {"project": 7, "schema": "<View><Text name='t' value='$text'/></View>"})
    assert (code, "no labels for an image" in answer["error"]) == (400, True)
    for port in (int(server.url.rpartition(":")[2]), 70000):
        with pytest.raises(UsageError, match="cannot listen"):
            serve(server.backend, port=port)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("/data/local-files/?d=none.png", "no such file"),
        ("/data/local-files/?d=../secret.png", "outside the folder"),
        ("/etc/passwd", "neither a URL nor an uploaded file"),
        ("http://[::1/x.png", "not an address"),
        ("secret.png", "neither a URL nor an uploaded file"),
        (f"data:image/png;base64,{'A' * 100_000}", "neither a URL nor an uploaded file"),
        (None, "no image"),
    ],
)
def test_an_image_that_cannot_be_read_has_no_prediction(server: Server, image: str | None, expected: str) -> None:
    broken, whole = server.predict("BrushLabels", {"id": 3, "data": {"image": image}}, DESERT)
    assert broken == []
    assert whole["result"]
    assert "Task 3" in server.notes[0]
    assert expected in server.notes[0]
    assert len(server.notes[0]) < 300
    assert server.notes[1] == "Project 7.1700000000: predicted 1 of 2 tasks."


def test_stored_features_need_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tipsseg.encode_folder(SCENES / "street", tmp_path / "feats", model="tiny", device="cpu")
    with serving(tmp_path, features=tmp_path / "feats") as server:
        monkeypatch.setattr(type(server.backend._model.backbone), "encode_windows", None)
        assert server.predict("BrushLabels", CAR)[0]["result"]


# ---- learning ----


def annotation(name: str, phrase: str, ids: NDArray[Any], number: int) -> dict[str, Any]:
    """A task whose person painted the pixels of an id."""
    result = {
        "type": "brushlabels", "from_name": "own", "to_name": "photo", "image_rotation": 0,
        "original_height": ids.shape[0], "original_width": ids.shape[1],
        "value": {"format": "rle", "rle": encode_brush(ids == number), "brushlabels": [phrase]},
    }  # fmt: skip
    return {
        "id": 9,
        "data": {"image": f"/data/local-files/?d={name}"},
        "annotations": [
            {"was_cancelled": False, "updated_at": "2", "result": [result]},
            {"was_cancelled": False, "updated_at": "1", "result": []},
            {"was_cancelled": True, "updated_at": "3", "result": []},
        ],
    }


@pytest.fixture(scope="module")
def submitted() -> list[dict[str, Any]]:
    """Two tasks in which a person marked the panda as a mascot, and one that nobody annotated."""
    found = []
    for name in ("meadow/panda-and-tree.jpg", "meadow/two-pandas.png"):
        labels = tipsseg.label(SCENES / name, ["panda", "tree"], model="tiny", device="cpu").labels
        found.append(annotation(name, "mascot", labels, 1))
    return [*found, {"id": 10, "data": {"image": "/data/local-files/?d=desert.png"}, "annotations": []}]


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    assert what()


MASCOT = {"id": 1, "data": {"image": "/data/local-files/?d=beach/holiday.jpg"}}


def share(prediction: dict[str, Any]) -> float:
    """The IoU of the mascot with the pandas of a scene."""
    scene = tipsseg.label(SCENES / "beach/holiday.jpg", ["panda", "tree"], model="tiny", device="cpu")
    found = np.zeros(scene.shape, bool)
    for result in prediction["result"]:
        one = {**result, "value": {**result["value"], "brushlabels": ["panda"]}}
        found |= painted({"result": [one]}, scene.shape) == 1
    pandas = scene.mask("panda")
    return float((found & pandas).sum() / (found | pandas).sum())


def test_training_teaches_a_word(tmp_path: Path, submitted: list[dict[str, Any]]) -> None:
    with serving(tmp_path) as server:
        (before,) = server.predict("BrushLabels", MASCOT, labels=("mascot",))
        body = {"annotations": submitted, "label_config": config(labels=("mascot",)), "project": "7.1700000000"}
        assert server("/train", body) == {}
        wait_for((tmp_path / "fits/7.1700000000.fit").is_file)
        (after,) = server.predict("BrushLabels", MASCOT, labels=("mascot",))
    assert before["model_version"] != after["model_version"]
    assert share(before) < 0.2
    assert share(after) > 0.5
    with serving(tmp_path) as server:
        assert server.predict("BrushLabels", MASCOT, labels=("mascot",)) == [after]
        assert server.predict("BrushLabels", MASCOT)[0]["result"]
        assert any("its labels have changed" in note for note in server.notes)


def test_training_needs_two_tasks(server: Server, submitted: list[dict[str, Any]]) -> None:
    interface = parse_interface(config(labels=("mascot",)))
    with pytest.raises(InputError, match="a fit requires two"):
        server.backend.train("7", interface, submitted[1:])
    unknown = json.loads(json.dumps(submitted).replace("mascot", "mouse"))
    with pytest.raises(InputError, match="0 tasks"):
        server.backend.train("7", interface, unknown)
    assert "mouse" in server.notes[-1]


def test_a_part_without_its_whole_is_noted_and_not_learnt(server: Server, submitted: list[dict[str, Any]]) -> None:
    server("/setup", {"project": "7.1", "schema": config(labels=("panda/leg", "tree"))})
    assert "parts of panda, but not panda" in server.notes[0]
    with pytest.raises(InputError, match="parts of panda, but not panda"):
        server.backend.train("7", parse_interface(config(labels=("panda/leg", "tree"))), submitted)


@pytest.mark.parametrize("annotations", [5, [None], [{"result": 5}], [{"result": [{"type": []}]}]])
def test_annotations_that_are_no_objects_end_no_thread(
    server: Server, submitted: list[dict[str, Any]], annotations: object
) -> None:
    server.backend.start_training(
        "7", parse_interface(config(labels=("mascot",))), [{**submitted[0], "annotations": annotations}]
    )
    wait_for(lambda: any("no fit" in note for note in server.notes))


def test_a_fit_of_somebody_else_is_not_replaced(
    server: Server, tmp_path: Path, submitted: list[dict[str, Any]]
) -> None:
    interface = parse_interface(config(labels=("mascot",)))
    for _ in range(2):  # the second training replaces the first
        server.backend.train("7", interface, submitted)
    (tmp_path / "fits/7.fit").rename(tmp_path / "fits/8.fit")
    before = (tmp_path / "fits/8.fit").read_bytes()
    with pytest.raises(OutputError, match="not replaced"):
        server.backend.train("8", interface, submitted)
    assert (tmp_path / "fits/8.fit").read_bytes() == before


def test_results_of_other_tags_are_not_learnt(server: Server, submitted: list[dict[str, Any]]) -> None:
    interface = parse_interface(config(labels=("mascot",)))
    other = json.loads(json.dumps(submitted[:2]).replace('"to_name": "photo"', '"to_name": "other"'))
    point = {"type": "keypointlabels", "from_name": "own", "to_name": "photo", "value": {"keypointlabels": ["mascot"]}}
    for task in other[1:]:
        task["annotations"][0]["result"] = [point]
    with pytest.raises(InputError, match="0 tasks"):
        server.backend.train("7", interface, other)
    assert ["no pixels of a label" in note for note in server.notes] == [True, True]


def test_a_fit_of_another_view_is_not_used(tmp_path: Path) -> None:
    interface, model = parse_interface(config(labels=("mascot",))), tipsseg.load("tiny", device="cpu")
    features = [model.encode(SCENES / name, short_side=112) for name in ("desert.png", "sea.gif")]
    masks = [np.ones(each.size, np.uint8) for each in features]
    fitted = tipsseg.learn.fit(model, features, masks, ["mascot"], tipsseg.LabelOptions(short_side=112))
    (tmp_path / "fits").mkdir()
    fitted.save(tmp_path / "fits/7.1.fit")
    with serving(tmp_path) as server:
        assert "fit" not in server.backend.version("7.1", interface)
        assert "short side" in server.notes[0]
    (tmp_path / "fits/7.1.fit").write_bytes(b"damaged")
    with serving(tmp_path) as server:
        assert server.backend.predict("7.1", interface, [DESERT]) != [[]]
        assert "The fit of project 7.1" in server.notes[0]


@pytest.fixture
def studio(submitted: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers like Label Studio, and the requests that it got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.headers['Authorization']} {self.path}")
            if self.path.startswith("/elsewhere"):
                self.answer((SCENES / "desert.png").read_bytes())
            elif self.headers["Authorization"] not in ("Token old", "Bearer short"):
                self.send_error(401)
            elif "moved" in self.path:
                self.send_response(302)
                self.send_header("Location", f"http://{self.headers['Host']}/elsewhere?d=desert.png")
                self.end_headers()
            elif self.path.startswith("/api/current-user"):
                self.answer(b"{}")
            elif self.path.startswith("/api/projects/7/export"):
                self.answer(json.dumps(submitted).encode())
            else:
                self.answer((SCENES / self.path.partition("?d=")[2]).read_bytes())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(json.dumps({"access": "short" if body == {"refresh": "a.b.c"} else ""}).encode())

        def answer(self, data: bytes) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("token", "sent"), [("old", "Token old"), ("a.b.c", "Bearer short")])
def test_annotations_and_images_come_from_label_studio(
    tmp_path: Path, studio: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, token: str, sent: str
) -> None:
    url, asked = studio
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    with serving(tmp_path) as server:
        server.backend._images = None
        project = {"id": 7, "created_at": "1970-01-01T00:00:09.5Z", "label_config": config(labels=("mascot",))}
        assert server("/webhook", {"action": "START_TRAINING", "project": project}) == {}
        wait_for((tmp_path / "fits/7.9.fit").is_file)
        paths = ("/data/x/my photo.png?d=desert.png", f"{url}/data/local-files/?d=desert.png", "/data/moved")
        found = server.predict("BrushLabels", *({"id": 1, "data": {"image": path}} for path in paths))
        assert [note for note in server.notes if "Task" in note] == []
        assert found[0] == found[1] == found[2] != []
    assert [line for line in asked if "elsewhere" in line] == ["None /elsewhere?d=desert.png"]
    assert asked[1].startswith(f"{sent} /api/projects/7/export")
    assert asked[2] == f"{sent} /data/local-files/?d=meadow/panda-and-tree.jpg"


def test_each_project_has_its_server(tmp_path: Path, studio: tuple[str, list[str]]) -> None:
    upload = {"id": 1, "data": {"image": "/data/upload/?d=desert.png"}}
    with serving(tmp_path) as server:
        asked = {"schema": config(), "hostname": studio[0], "access_token": "old"}
        server("/setup", {**asked, "project": "7.1700000000"})
        code, answer = server("/setup", {**asked, "project": "7.9", "hostname": "http://127.0.0.1:9"})
        assert (code, "127.0.0.1:9" in answer["error"]) == (400, True)
        assert server.predict("BrushLabels", upload)[0]["result"]
        assert server("/predict", {"tasks": [upload], "label_config": config(), "project": "7.9"}) == {"results": [[]]}
        assert "127.0.0.1:9 does not return /data/upload/?d=desert.png" in server.notes[-2]


def test_a_slow_image_holds_nobody_up(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        slow = {"id": 1, "data": {"image": f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"}}
        waiting = threading.Thread(target=server.predict, args=("BrushLabels", slow), daemon=True)
        waiting.start()
        assert server.predict("BrushLabels", DESERT)[0]["result"]
        assert waiting.is_alive()
    waiting.join(timeout=60)


def test_label_studio_shows_a_wrong_token_as_a_failure(server: Server, studio: tuple[str, list[str]]) -> None:
    body = json.dumps({"project": 7, "schema": config(), "hostname": studio[0], "access_token": "wrong"}).encode()
    request = urllib.request.Request(f"{server.url}/setup", body, JSON)
    with pytest.raises(urllib.error.HTTPError, match=r"401.*LABEL_STUDIO_API_KEY"):  # it shows people the first line
        urllib.request.urlopen(request, timeout=60)


def test_a_name_that_no_file_can_have_costs_one_prediction(server: Server, studio: tuple[str, list[str]]) -> None:
    server.backend.connect("7.1700000000", parse_interface(config()), studio[0], "old")
    images = (f"/data/a.{'x' * 300}?d=desert.png", f"/data/local-files/?d={'x' * 300}.png")
    *broken, whole = server.predict("BrushLabels", *({"id": 3, "data": {"image": each}} for each in images), DESERT)
    assert broken == [[], []]
    assert whole["result"]


def test_a_url_is_an_image(tmp_path: Path, server: Server) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), files_of(SCENES)) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        task = {"id": 1, "data": {"image": f"http://127.0.0.1:{site.server_port}/desert.png"}}
        (prediction,), (expected,) = server.predict("BrushLabels", task), server.predict("BrushLabels", DESERT)
        site.shutdown()
    assert prediction == expected


def files_of(folder: Path) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = (folder / self.path[1:]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


def post_quietly(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, JSON)
    with suppress(OSError, HTTPException), urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    words = ["-m", "tipsseg", "serve", "-m", "tiny", "--device", "cpu", "--port", "0", "--images"]
    command = [sys.executable, *words, str(SCENES)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stderr is not None
    with process.stderr as lines:
        line = next(line for line in lines if "http://" in line)
        with urllib.request.urlopen(line.split()[-1] + "/health", timeout=30) as answer:
            assert json.load(answer)["status"] == "UP"
        ids = {"tasks": [{"id": 1, "data": {"image": f"/data/local-files/?d={name}"}} for name in ["desert.png"] * 300]}
        body = json.dumps({**ids, "label_config": config(), "project": 1}).encode()
        busy = threading.Thread(target=post_quietly, args=(line.split()[-1] + "/predict", body), daemon=True)
        busy.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        busy.join(timeout=30)
        assert "Traceback" not in lines.read()


def test_brushes_of_any_size_are_read_back() -> None:
    rng = np.random.default_rng(0)
    for mask in (rng.random((37, 53)) < 0.4, np.ones((300, 400), bool), np.zeros((1, 1), bool)):
        task = {"result": [{"type": "brushlabels", "original_height": mask.shape[0], "original_width": mask.shape[1],
                            "value": {"rle": encode_brush(mask), "brushlabels": ["panda"]}}]}  # fmt: skip
        assert np.array_equal(painted(task, mask.shape) == 1, mask)
