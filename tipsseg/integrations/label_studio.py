"""A machine-learning backend for Label Studio: it predicts the labels of a project, and learns from what people submit.

It speaks the protocol of label-studio-ml, JSON over HTTP: GET /health, POST /setup, /predict, /train and /webhook. `tipsseg serve`
runs it. The labels of the project are the phrases; its control tags decide whether objects are brush strokes, bitmasks, polygons or
boxes.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipsseg._version import __version__
from tipsseg.address import as_address, is_url
from tipsseg.commands.engine import load_for
from tipsseg.errors import InputError, TipssegError, UsageError
from tipsseg.formats.corrections import ClassNames
from tipsseg.formats.given import paint_objects
from tipsseg.formats.label_studio import encode_brush, polygon_results, prediction_score, read_task, result_head
from tipsseg.formats.png import encode_picture
from tipsseg.images.remote import check_address
from tipsseg.label_map import find_objects
from tipsseg.labelling.features import Features, encode_prepared, find_features
from tipsseg.labelling.labeller import Labeller
from tipsseg.labelling.source import FeatureSource
from tipsseg.learning.fit import fit
from tipsseg.options import DEFAULT_FILE_OPTIONS, FileOptions, LabelOptions
from tipsseg.options.run import ComputeOptions
from tipsseg.run.plan import plan_run
from tipsseg.run.spec import RunSpec
from tipsseg.types import ImageRef, LabelClass
from tipsseg.util.files import is_inside
from tipsseg.util.json import parse, take
from tipsseg.util.text import pluralize
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import make_vocabulary, parse_background

if TYPE_CHECKING:
    from tipsseg.label_map import LabelMap
    from tipsseg.regions.objects import LabelledObject

#: The control tags whose results are pixels, and the results of each.
_KINDS = {
    "BrushLabels": "brushlabels",
    "BitmaskLabels": "bitmasklabels",
    "PolygonLabels": "polygonlabels",
    "RectangleLabels": "rectanglelabels",
}

#: Images without annotations that protect a fit, see `learn.fit`.
_UNLABELLED = 32

#: The most bytes of a request, and the seconds to wait for Label Studio.
_REQUEST_LIMIT, _TIMEOUT = 256 << 20, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """The labelling interface of a project.

    Attributes:
        image: The key of the image in a task's data.
        tag: The name of the image tag.
        controls: The control tag of each label, as (kind of its results, name), by phrase.
        written: The label as results name it, by phrase: its alias, if it has one.
    """

    image: str
    tag: str
    controls: Mapping[str, tuple[str, str]]
    written: Mapping[str, str]


def parse_interface(config: str) -> Interface:
    """Parse a labelling interface. Raise UsageError if it has no image, or no labels for pixels or boxes."""
    try:
        root = ET.fromstring(config)
    except ET.ParseError as error:
        raise UsageError(f"the labelling interface is not XML: {error}") from error
    images = {tag.get("name") or "": tag.get("value") or "" for tag in root.iter("Image")}
    controls, written, target = dict[str, tuple[str, str]](), dict[str, str](), ""
    for kind, results in _KINDS.items():
        for control in root.iter(kind):
            if control.get("toName") not in images or (target and control.get("toName") != target):
                continue
            target = control.get("toName") or ""
            for label in control.iter("Label"):
                phrase = (label.get("value") or "").strip()
                if phrase and phrase not in controls:
                    controls[phrase] = results, control.get("name") or ""
                    written[phrase] = label.get("alias") or label.get("value") or ""
    if not controls or not images[target].startswith("$"):
        raise UsageError(
            "the labelling interface has no labels for an image",
            f'Add <Image name="image" value="$image"/> and one of {", ".join(_KINDS)} with labels.',
        )
    return Interface(image=images[target][1:], tag=target, controls=controls, written=written)


class LabelStudio:
    """The API of a Label Studio server.

    Attributes:
        url: Its address.
        token: An access token: a personal one, or the older kind.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url.rstrip("/"), token

    def get(self, path: str) -> bytes:
        """Return the answer to a GET request. Raise InputError if there is none."""
        try:
            request = urllib.request.Request(self.url + path, headers={"Authorization": self._authorization()})
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                data: bytes = answer.read()
                return data
        except (OSError, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()
            raise InputError(
                f"Label Studio at {self.url} does not answer {urlsplit(path).path}: {error}",
                "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY to its address and an access token of Account & Settings.",
            ) from error

    def _authorization(self) -> str:
        if self.token.count(".") != 2:
            return f"Token {self.token}"
        body = json.dumps({"refresh": self.token}).encode()  # a personal token is exchanged for a short one
        request = urllib.request.Request(f"{self.url}/api/token/refresh", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            return f"Bearer {json.load(answer)['access']}"


class Backend:
    """Predict the labels of tasks, and fit the classes of a project to submitted annotations. Thread-safe.

    backend = Backend(ComputeOptions(model="l14"), note=print)
    backend.predict("1", interface, tasks)
    serve(backend, port=9090)
    """

    def __init__(
        self,
        compute: ComputeOptions,
        options: LabelOptions | None = None,
        files: FileOptions = DEFAULT_FILE_OPTIONS,
        *,
        background: str = "auto",
        fits: Path = Path("fits"),
        images: Path | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Load the model.

        Args:
            compute: The model, its device, and the feature store.
            options: Labelling options. None: those of the published protocol.
            files: Its `min_area` omits smaller objects.
            background: "auto", "none", or phrases separated by commas.
            fits: The folder for fits, one file a project.
            images: The document root of Label Studio's local files, to read them from the disk. None: over its API.
            note: Gets a line of text about each request that fails, and about fits.

        Raises:
            TipssegError: The model cannot be loaded.
        """
        self._options, self._files, self._fits, self._images = options or LabelOptions(), files, fits, images
        self.note = note
        self._background = parse_background(background)
        spec = RunSpec(
            **vars(compute), vocabulary=make_vocabulary(["image"]), options=self._options, formats=(), output=Path()
        )
        loaded = load_for(plan_run(spec), note, quiet=False)
        self._model = loaded.model
        self._name = str(loaded.info.model["id"])
        self._source: FeatureSource[Features] = FeatureSource(
            loaded.model.backbone,
            loaded.view,
            loaded.store,
            find_features(loaded.model.backbone.device),
            max_pixels=compute.max_pixels,
            pixels=self._options.refine != "none",
        )
        self._lock = threading.RLock()
        self._labeller = lru_cache(maxsize=8)(self._make_labeller)
        self._training = set[str]()
        self.server: LabelStudio | None = None
        if url := os.environ.get("LABEL_STUDIO_URL"):
            self.server = LabelStudio(url, os.environ.get("LABEL_STUDIO_API_KEY", ""))

    # ---- labels ----

    def version(self, project: str) -> str:
        """Return the version of the model, which changes with a fit."""
        fitted = self._fit_of(project)
        return f"{self._name} tipsseg {__version__}" + (f" fit {fitted.vocabulary.fit[:8]}" if fitted else "")

    def _fit_of(self, project: str) -> FittedVocabulary | None:
        path = self._fits / f"{project}.fit"
        return FittedVocabulary.load(path) if path.is_file() else None

    def _make_labeller(self, project: str, phrases: tuple[str, ...], version: str) -> Labeller:
        fitted, options = self._fit_of(project), self._options
        vocabulary = make_vocabulary(phrases, self._background)
        if fitted is not None:
            if [entry.name for entry in fitted.vocabulary.classes] == [entry.name for entry in vocabulary.classes]:
                options = replace(options, mode=fitted.mode, short_side=fitted.short_side)
                return Labeller(self._model, fitted, options)
            self.note(
                f"Project {project}: its labels have changed since the fit, which is not used. Start training again."
            )
        return Labeller(self._model, vocabulary, options)

    def predict(self, project: str, interface: Interface, tasks: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return a prediction for each task, in the form of Label Studio's predictions; [] for one whose image cannot be read."""
        version = self.version(project)
        labeller = self._labeller(project, tuple(interface.controls), version)
        predictions = list[Any]()
        for task in tasks:
            try:
                label_map = self._label(labeller, self._image_of(task, interface))
            except TipssegError as error:
                self.note(f"Task {task.get('id')}: {error.message}")
                predictions.append([])
                continue
            objects = find_objects(label_map, self._files)
            results = _results(objects, label_map, interface)
            predictions.append({"result": results, **prediction_score(objects), "model_version": version})
        return predictions

    def _label(self, labeller: Labeller, image: str) -> LabelMap:
        with self._lock:
            scales, pixels = self._encode(image)
            return labeller.assign(labeller.score(scales), pixels)

    def _encode(self, image: str) -> tuple[list[Features], NDArray[np.uint8]]:
        """Return the features of an image, from the store if it has them, and the image as the model sees it."""
        with self._open(image) as ref:
            loaded = self._source.load(ref)
        missing = loaded.missing
        encoded = None if missing is None else encode_prepared(self._model.backbone, missing)
        scales, pending = self._source.merge(loaded, encoded)
        self._source.save(pending)
        return scales, loaded.picture.prepared.scales[-1].resized

    # ---- images ----

    def _image_of(self, task: Mapping[str, Any], interface: Interface) -> str:
        data = task.get("data")
        image = data.get(interface.image) if isinstance(data, dict) else None
        if not isinstance(image, str) or not image:
            raise InputError(f"its data have no image `{interface.image}`")
        return image

    @contextmanager
    def _open(self, image: str) -> Iterator[ImageRef]:
        """Yield the file of an image: behind a URL, below the root of local files, or fetched from Label Studio."""
        parts = urlsplit(image)
        local = (parse_qs(parts.query).get("d") or [""])[0] if parts.path.startswith("/data/local-files") else ""
        if not parts.scheme and local and self._images is not None:
            if not is_inside(local):
                raise InputError(f"{local} is outside of the folder of local files")
            yield ImageRef(self._images / local, PurePosixPath(local))
        elif is_url(address := as_address(image)):
            check_address(address)
            yield ImageRef(address, PurePosixPath(PurePosixPath(parts.path).name))
        elif image.startswith("/") and self.server is not None:
            name = PurePosixPath(local or parts.path).name
            with tempfile.TemporaryDirectory(prefix="tipsseg-serve-") as folder:
                path = Path(folder, name)
                path.write_bytes(self.server.get(image))
                yield ImageRef(path, PurePosixPath(name))
        else:
            raise InputError(f"its image {image} is neither a URL nor a file of Label Studio")

    # ---- learning ----

    def train(self, project: str, interface: Interface, tasks: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Fit the labels of a project to its submitted annotations. Later predictions use the fit.

        Args:
            project: The id of the project.
            interface: Its labelling interface.
            tasks: Its tasks with their annotations. None: from Label Studio.

        Raises:
            InputError: Fewer than two tasks have an annotation that can be read.
            TipssegError: The fit fails.
        """
        if tasks is None:
            if self.server is None:
                raise InputError(
                    "the address of Label Studio is unknown", "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY."
                )
            tasks = parse(self.server.get(f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true"))
        assert tasks is not None
        vocabulary = make_vocabulary(tuple(interface.controls), self._background)
        classes = [replace(each, name=interface.written.get(each.name, each.name)) for each in vocabulary.classes]
        features, masks, others = list[Features](), list[NDArray[Any]](), list[Mapping[str, Any]]()
        for task in tasks:
            own = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
            if not own:
                others.append(task)
                continue
            try:
                image, mask = self._read(
                    task, max(own, key=lambda each: str(each.get("updated_at"))), interface, classes
                )
            except TipssegError as error:
                self.note(f"Task {task.get('id')} is left out of the fit: {error.message}")
                continue
            features.append(image)
            masks.append(mask)
        if len(features) < 2:
            raise InputError(
                f"{pluralize(len(features), 'task')} with an annotation, but a fit needs two", "Submit more tasks."
            )
        unlabelled = list[Features]()
        for task in random.Random(0).sample(others, min(len(others), _UNLABELLED)):
            try:
                with self._lock:
                    unlabelled.append(self._encode(self._image_of(task, interface))[0][0])
            except TipssegError as error:
                self.note(f"Task {task.get('id')}: {error.message}")
        options = LabelOptions(mode=self._options.mode, short_side=self._options.short_side)
        fitted = fit(self._model, features, masks, vocabulary, options, unlabelled=unlabelled)
        fitted.save(self._fits / f"{project}.fit")
        self.note(f"Project {project}: fitted to {pluralize(len(features), 'task')}; the next predictions use the fit.")

    def _read(
        self,
        task: Mapping[str, Any],
        annotation: Mapping[str, Any],
        interface: Interface,
        classes: Sequence[LabelClass],
    ) -> tuple[Features, NDArray[Any]]:
        """Return the features of a task's image, and its annotation as a mask [H, W]."""
        names = ClassNames(classes, add=False)
        with self._lock:
            features = self._encode(self._image_of(task, interface))[0][0]
        try:
            source = read_task(
                {**task, "annotations": [annotation]}, Path("Label Studio"), int(task.get("id") or 0), names
            )
            assert source is not None
            objects = source.read(features.size)
        except ValueError as error:
            raise InputError(str(error)) from error
        names.raise_unknown()
        return features, paint_objects(objects, features.size, classes)[0]

    def start_training(self, project: str, interface: Interface, tasks: Sequence[Mapping[str, Any]] | None) -> None:
        """Run `train` in a thread of its own, because Label Studio waits for seconds only."""

        def run() -> None:
            try:
                self.train(project, interface, tasks)
            except TipssegError as error:
                self.note(f"Project {project}: no fit: {error.message} {error.hint}".rstrip())
            finally:
                self._training.discard(project)

        if project in self._training:
            self.note(f"Project {project}: training already.")
            return
        self._training.add(project)
        threading.Thread(target=run, name=f"train-{project}", daemon=True).start()


def _results(objects: Sequence[LabelledObject], label_map: LabelMap, interface: Interface) -> list[dict[str, object]]:
    """Return the results of a prediction, as the control tag of each label asks."""
    results, names = list[dict[str, object]](), {entry.id: entry.name for entry in label_map.classes}
    classes = [replace(each, name=interface.written.get(each.name, each.name)) for each in label_map.classes]
    for kind, control in dict.fromkeys(interface.controls.values()):
        own = [each for each in objects if interface.controls.get(names[each.region.class_id]) == (kind, control)]
        tags = control, interface.tag
        if kind == "polygonlabels":
            found = polygon_results(own, label_map.shape, classes, tags)
        else:
            found = [
                {
                    **result_head(str(number), kind, tags, label_map.shape, each.score),
                    "value": {**_value(each, kind, label_map.shape), kind: [classes[each.region.class_id - 1].name]},
                }
                for number, each in enumerate(own, start=1)
            ]
        results += [
            {key: f"{control}-{value}" if key in ("id", "from_id", "to_id") else value for key, value in each.items()}
            for each in found
        ]
    return results


def _value(found: LabelledObject, kind: str, size: tuple[int, int]) -> dict[str, object]:
    """Return the pixels of an object: its box in percent, a run-length code, or a PNG."""
    (y, x, h, w), (height, width) = found.region.box, size
    if kind == "rectanglelabels":
        box = {"x": x / width, "y": y / height, "width": w / width, "height": h / height}
        return {**{key: round(100 * share, 5) for key, share in box.items()}, "rotation": 0}
    mask = np.zeros(size, np.bool_)
    mask[y : y + h, x : x + w] = found.region.mask
    if kind == "brushlabels":
        return {"format": "rle", "rle": encode_brush(mask)}
    opaque = np.repeat(mask[..., None].view(np.uint8) * np.uint8(255), 4, axis=2)
    return {
        "imageDataURL": "data:image/png;base64," + base64.b64encode(encode_picture(Image.fromarray(opaque))).decode()
    }


# ---- HTTP ----


def serve(backend: Backend, host: str = "127.0.0.1", port: int = 9090) -> ThreadingHTTPServer:
    """Return a server for a backend; call its `serve_forever`. Raise UsageError if the port is taken."""

    handler = type("Handler", (_Handler,), {"backend": backend})
    try:
        return ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}", "Choose another port with argument `port`."
        ) from error


class _Handler(BaseHTTPRequestHandler):
    backend: Backend

    def do_GET(self) -> None:
        known = urlsplit(self.path).path in ("/", "/health")
        self._answer(200 if known else 404, {"status": "UP", "model_class": "tipsseg"} if known else {})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        call = {"/setup": self._setup, "/predict": self._predict, "/train": self._train, "/webhook": self._webhook}.get(
            path
        )
        try:
            size = int(self.headers.get("Content-Length") or 0)
            if not 0 <= size <= _REQUEST_LIMIT:
                raise ValueError(f"a request of {size} bytes")
            request = parse(self.rfile.read(size))
            self._answer(404 if call is None else 200, {} if call is None else call(request))
        except (ValueError, TypeError) as error:
            self._answer(400, {"error": str(error)})
        except TipssegError as error:
            self.backend.note(f"{path}: {error.message}")
            self._answer(400, {"error": f"{error.message} {error.hint}".strip()})

    def _setup(self, request: dict[str, Any]) -> dict[str, object]:
        parse_interface(take(request, "schema", str))
        backend = self.backend
        if backend.server is None and request.get("hostname") and request.get("access_token"):
            backend.server = LabelStudio(str(request["hostname"]), str(request["access_token"]))
        return {"model_version": backend.version(_project(request.get("project")))}

    def _predict(self, request: dict[str, Any]) -> dict[str, object]:
        tasks = [task for task in take(request, "tasks", list) if isinstance(task, dict)]
        interface = parse_interface(take(request, "label_config", str))
        return {"results": self.backend.predict(_project(request.get("project")), interface, tasks)}

    def _train(self, request: dict[str, Any]) -> dict[str, object]:
        tasks = request.get("annotations")
        interface = parse_interface(take(request, "label_config", str))
        self.backend.start_training(
            _project(request.get("project")), interface, tasks if isinstance(tasks, list) else None
        )
        return {}

    def _webhook(self, request: dict[str, Any]) -> dict[str, object]:
        if request.get("action") == "START_TRAINING":
            project = take(request, "project", dict)
            interface = parse_interface(take(project, "label_config", str))
            self.backend.start_training(_project(project.get("id")), interface, None)
        return {}

    def _answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Print nothing: the backend notes what fails."""


def _project(project: object) -> str:
    """Return the id of a project, which Label Studio writes as "12.1700000000" or 12. Raise ValueError for others."""
    found = re.match(r"[0-9]{1,18}", str(project))
    if found is None:
        raise ValueError(f"no project {project!r}")
    return found[0]
