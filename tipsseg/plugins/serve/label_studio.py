"""A machine-learning backend for Label Studio: it predicts the labels of a project, and learns from what people submit.

It speaks the protocol of label-studio-ml, JSON over HTTP: GET /health, POST /setup, /predict, /train and /webhook. `tipsseg serve`
runs it. The labels of the project are the phrases; its control tags decide whether objects are brush strokes, bitmasks, polygons or
boxes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import Request, urlopen

from numpy.typing import NDArray

from tipsseg._version import __version__
from tipsseg.address import as_address, is_url
from tipsseg.errors import InputError, OutputError, TipssegError, UsageError, Words
from tipsseg.folder.plan import plan_run
from tipsseg.folder.spec import RunSpec
from tipsseg.formats.label_studio import object_results, prediction_score
from tipsseg.images.remote import check_address
from tipsseg.label_map import find_objects
from tipsseg.labelling.features import Features, encode_prepared, find_features
from tipsseg.labelling.labeller import Labeller
from tipsseg.labelling.local import load_for
from tipsseg.labelling.source import FeatureSource, Loaded
from tipsseg.learning.fit import fit
from tipsseg.learning.masks import MOST_UNLABELLED, draw
from tipsseg.learning.vectors import require_learned
from tipsseg.options import Refinement
from tipsseg.options.records import DEFAULT_FILE_OPTIONS, ComputeOptions, LabelOptions
from tipsseg.plugins.serve.interface import (
    Interface,
    newest_annotations,
    parse_interface,
    parse_project,
    read_annotation,
)
from tipsseg.types import ImageRef
from tipsseg.util.files import is_folder, is_inside
from tipsseg.util.json import json_bytes, parse, short, take
from tipsseg.util.text import pluralize, printable, shorten
from tipsseg.vocabulary.fitted import FittedVocabulary
from tipsseg.vocabulary.vocabulary import Vocabulary, make_vocabulary, parse_background

#: Annotated images that a fit takes, drawn at random from more: their features are in memory.
_MOST = 256

#: Labellers that are kept, one for each list of labels.
_KEPT = 8

#: The most bytes of a request.
_REQUEST_LIMIT = 256 << 20

#: Seconds to wait for Label Studio; while it connects, which it gives up after three.
_TIMEOUT, _TIMEOUT_CONNECTING = 60, 1

#: The most characters of the reason for an error in the first line of an answer.
_REASON = 500

#: Characters that an address keeps; others, such as spaces, are escaped.
_URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"


class LabelStudioServer:
    """The API of a Label Studio server.

    Attributes:
        url: Its address.
        token: An access token: a personal one, or the older kind.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url.rstrip("/"), token.strip()

    def check(self) -> None:
        """Raise InputError unless the server accepts the token."""
        self.get("/api/current-user/whoami", _TIMEOUT_CONNECTING)

    def get(self, path: str, timeout: float = _TIMEOUT) -> bytes:
        """Return the answer to a GET request. Raise InputError if there is none within `timeout` seconds."""
        try:
            request = Request(self.url + quote(path, safe=_URL_CHARACTERS))
            # Not for a bucket that it redirects to.
            request.add_unredirected_header("Authorization", self._authorization(timeout))
            with urlopen(request, timeout=timeout) as answer:
                data: bytes = answer.read()
                return data
        except (OSError, ValueError, KeyError, HTTPException) as error:
            if isinstance(error, HTTPError):
                error.close()
            hint: str = "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY to its address and an access token of Account & Settings."
            if "/data/local-files" in path and getattr(error, "code", 0) in (403, 404):
                hint = Words(
                    "Set LOCAL_FILES_SERVING_ENABLED=true for Label Studio, and add its folder to the project as a "
                    "storage for local files. Or set {images}."
                )
            raise InputError(f"Label Studio at {self.url} does not return {shorten(path)}: {error}", hint) from error

    def _authorization(self, timeout: float) -> str:
        if self.token.count(".") != 2:
            return f"Token {self.token}"
        body = json.dumps({"refresh": self.token}).encode()  # a personal token is exchanged for a short one
        request = Request(f"{self.url}/api/token/refresh", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=timeout) as answer:
            return f"Bearer {json.load(answer)['access']}"

    def tasks(self, project: str) -> Any:
        """Return all tasks of a project, with their annotations."""
        number = project.partition(".")[0]
        return parse(self.get(f"/api/projects/{number}/export?exportType=JSON&download_all_tasks=true"))


class Backend:
    """Predict the labels of tasks, and fit the classes of a project to submitted annotations. Thread-safe.

        backend = Backend(ComputeOptions(model="l14"), note=print)
        backend.predict("1", interface, tasks)
        serve(backend, port=9090)

    A project is named by its id, or by id and time of creation, as in "1.1700000000".
    """

    def __init__(
        self,
        compute: ComputeOptions,
        *,
        min_confidence: float = 0.0,
        refine: Refinement = "none",
        background: str = "auto",
        fits: Path = Path("fits"),
        images: Path | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Load the model.

        Args:
            compute: The model, its device, and the feature store.
            min_confidence: See `LabelOptions`.
            refine: See `LabelOptions`.
            background: "auto", "none", or phrases separated by commas.
            fits: The folder for fits, one file a project.
            images: The document root of Label Studio's local files, to read them from the disk. None: over its API.
            note: Gets a line of text about each request that fails, and about fits.

        Raises:
            TipssegError: An argument is invalid, or the model cannot be loaded.
        """
        if images is not None and not is_folder(images):
            raise UsageError(
                Words("{images}={folder} is not a folder", folder=images), "Pass the document root of local files."
            )
        self._options = LabelOptions(min_confidence=min_confidence, refine=refine)
        self._fits, self._images = fits, images
        self._background = parse_background(background)
        self._print, self._printing, self._lock = note, threading.Lock(), threading.Lock()
        vocabulary = make_vocabulary(["image"], self._background)
        spec = RunSpec(**vars(compute), vocabulary=vocabulary, options=self._options, formats=(), output=Path())
        loaded = load_for(plan_run(spec), note, quiet=False)
        self._model, self._view = loaded.model, loaded.view
        self._name, self._hashes = str(loaded.info.model["id"]), take(loaded.info.model, "sha256", dict)
        self._source: FeatureSource[Features] = FeatureSource(
            loaded.model.backbone,
            loaded.view,
            loaded.store,
            find_features(loaded.model.backbone.device),
            spec.reader,
            pixels=self._options.refine != "none",
        )
        self._labellers: OrderedDict[str, Labeller] = OrderedDict()
        self._training = set[str]()
        self._folder = tempfile.TemporaryDirectory(prefix="tipsseg-serve-")
        self._servers = dict[str, LabelStudioServer]()
        url = os.environ.get("LABEL_STUDIO_URL")
        self._server = LabelStudioServer(url, os.environ.get("LABEL_STUDIO_API_KEY", "")) if url else None
        if self._server is not None:
            try:
                self._server.check()
                self.note(f"Label Studio at {self._server.url} accepts the token.")
            except InputError as error:
                self.note("Label Studio cannot be used yet", error)

    def close(self) -> None:
        """Remove temporary files."""
        self._folder.cleanup()

    def note(self, text: str, error: TipssegError | None = None) -> None:
        """Print a line, with what an error says."""
        if error is not None:
            text += ": " + error.with_hint
        with self._printing:
            self._print(text)

    def connect(self, project: str, interface: Interface, url: str = "", token: str = "") -> str:
        """Read the images and annotations of a project from a server, unless the environment names another one.

        Return the version of the model. Raise InputError if the server does not accept the token.
        """
        if url and token:
            self._servers[project] = LabelStudioServer(url, token)
        if server := self._server_of(project):
            server.check()
        if error := interface.implied_whole(self._vocabulary(interface).classes):
            self.note(f"Project {project}", error)
        return self.version(project, interface)

    def _server_of(self, project: str) -> LabelStudioServer | None:
        return self._server or self._servers.get(project)

    # ---- labels ----

    def _vocabulary(self, interface: Interface, source: str = "") -> Vocabulary:
        return make_vocabulary(interface.phrases, self._background, source=source)

    def version(self, project: str, interface: Interface) -> str:
        """Return the version of the model for a project. It changes with the labels, the options and the fit."""
        return self._question(project, interface)[1]

    def _question(self, project: str, interface: Interface) -> tuple[Vocabulary | FittedVocabulary, str]:
        """Return the classes of a project, which is its fit if it has one for them, and the version of the model."""
        vocabulary = self._vocabulary(interface)
        fitted = self._fit_of(project, vocabulary)
        asked = [interface.phrases, self._options.record(), self._background]
        digest = hashlib.sha256(json_bytes(asked)).hexdigest()[:8]
        version = f"{self._name} tipsseg {__version__} {digest}"
        return (vocabulary, version) if fitted is None else (fitted, f"{version} fit {fitted.vocabulary.fit[:8]}")

    def _fit_of(self, project: str, vocabulary: Vocabulary) -> FittedVocabulary | None:
        """Return the fit of a project; None if there is none, or none for these classes and this model."""
        path = self._fit_path(project)
        if not os.path.lexists(path):
            return None
        try:
            fitted = FittedVocabulary.load(path)
            fitted.check(self._hashes, self._name, self._view.mode, self._view.base)
        except TipssegError as error:
            self.note(f"The fit of project {project} is not used", error)
            return None
        if [entry.name for entry in fitted.vocabulary.classes] == [entry.name for entry in vocabulary.classes]:
            return fitted
        self.note(f"The fit of project {project} is not used: its labels have changed since. Start training again.")
        return None

    def _fit_path(self, project: str) -> Path:
        return self._fits / f"{project}.fit"

    def _labeller(self, classes: Vocabulary | FittedVocabulary, version: str) -> Labeller:
        if version not in self._labellers:
            self._labellers[version] = Labeller(self._model, classes, self._options)
            if len(self._labellers) > _KEPT:
                self._labellers.popitem(last=False)
        return self._labellers[version]

    def predict(self, project: str, interface: Interface, tasks: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return a prediction for each task, in the form of Label Studio's predictions; [] for one whose image cannot be read."""
        classes, version = self._question(project, interface)
        predictions = list[Any]()
        for task in tasks:
            try:
                image = self._load(project, interface, task)
            except TipssegError as error:
                self.note(f"Task {short(task.get('id'))}", error)
                predictions.append([])
                continue
            with self._lock:
                labeller, scales = self._labeller(classes, version), self._encode(image)
                label_map = labeller.assign(labeller.score(scales), image.picture.prepared)
            objects = find_objects(label_map, DEFAULT_FILE_OPTIONS)
            results = object_results(objects, label_map.shape, label_map.classes, interface.labels, interface.tag)
            predictions.append({"result": results, **prediction_score(objects), "model_version": version})
        return predictions

    def _encode(self, image: Loaded[Features]) -> list[Features]:
        """Return the features of an image, from the store if it has them."""
        missing = image.missing
        encoded = None if missing is None else encode_prepared(self._model.backbone, missing)
        scales, pending = self._source.merge(image, encoded)
        self._source.save(pending)
        return scales

    # ---- images ----

    def _load(self, project: str, interface: Interface, task: Mapping[str, Any]) -> Loaded[Features]:
        """Read the image of a task. Raise TipssegError if that fails."""
        data = task.get("data")
        image = data.get(interface.image) if isinstance(data, dict) else None
        if not isinstance(image, str) or not image:
            raise InputError(f"its data has no image `{interface.image}`")
        try:
            with self._file(self._server_of(project), image) as path:
                return self._source.load(ImageRef(path, PurePosixPath(path.name)))
        except (OSError, ValueError) as error:
            raise InputError(f"its image {short(image)} is not an address: {shorten(str(error))}") from error

    @contextmanager
    def _file(self, server: LabelStudioServer | None, image: str) -> Iterator[Path]:
        """Yield the address of an image: below the root of local files, fetched from Label Studio, or behind another URL."""
        if server is not None and image.startswith(f"{server.url}/"):
            image = image.removeprefix(server.url)
        parts = urlsplit(image)
        local = (parse_qs(parts.query).get("d") or [""])[0] if parts.path.startswith("/data/local-files") else ""
        if local and self._images is not None:
            if not is_inside(local):
                raise InputError(Words("its image {local} is outside the folder of {images}", local=shorten(local)))
            yield self._images / local
        elif parts.scheme and is_url(address := as_address(image)):
            check_address(address)
            yield address
        elif image.startswith("/") and server is not None:
            with tempfile.NamedTemporaryFile(
                dir=self._folder.name, suffix=PurePosixPath(local or parts.path).suffix
            ) as file:
                file.write(server.get(image))
                file.flush()
                yield Path(file.name)
        else:
            raise InputError(f"its image {short(image)} is neither a URL nor an uploaded file")

    # ---- learning ----

    def train(self, project: str, interface: Interface, tasks: object = None) -> None:
        """Fit the labels of a project to its submitted annotations. Later predictions use the fit.

        Args:
            project: The project.
            interface: Its labelling interface.
            tasks: Its tasks with their annotations. None: from Label Studio.

        Raises:
            InputError: Fewer than two tasks have an annotation that can be read, or the annotations improve no label.
            TipssegError: The fit fails.
        """
        server = self._server_of(project)
        if tasks is None and server is None:
            raise InputError("Label Studio's address is unknown", "Set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.")
        vocabulary = self._vocabulary(interface, f"Label Studio project {project}")
        if error := interface.implied_whole(vocabulary.classes):
            raise error
        self._check_target(project, vocabulary)
        try:
            submitted, others = newest_annotations(
                server.tasks(project) if tasks is None and server is not None else tasks
            )
        except ValueError as error:
            raise InputError(f"the tasks of the project cannot be read: {error}") from error
        features, masks = list[Features](), list[NDArray[Any]]()
        for task, annotation in draw(submitted, _MOST):
            try:
                image = self._features(project, interface, task)
                masks.append(read_annotation(task, annotation, interface, vocabulary.classes, image.size))
                features.append(image)
            except TipssegError as error:
                self.note(f"Task {short(task.get('id'))} is left out of the fit", error)
        if len(features) < 2:
            raise InputError(
                f"{pluralize(len(features), 'task')} with labels, but a fit requires two", "Submit more tasks."
            )
        unlabelled = list[Features]()
        for task in draw(others, MOST_UNLABELLED):
            try:
                unlabelled.append(self._features(project, interface, task))
            except TipssegError as error:
                self.note(f"Task {short(task.get('id'))}", error)
        fitted = fit(self._model, features, masks, vocabulary, unlabelled=unlabelled)
        path = self._check_target(project, vocabulary)
        require_learned(fitted, path)
        fitted.save(path)
        self.note(
            f"Project {project}: fitted to {pluralize(len(features), 'task')}, in {path}. Retrieve predictions again."
        )

    def _check_target(self, project: str, vocabulary: Vocabulary) -> Path:
        """Return the path of a project's fit. Raise OutputError if there is a file that did not come from its training."""
        path = self._fit_path(project)
        if os.path.lexists(path):
            with suppress(TipssegError):
                if FittedVocabulary.load(path).vocabulary.source == vocabulary.source:
                    return path
            reason = f"no training of project {project} wrote this file, so it is not replaced"
            raise OutputError(path, reason, "Move the file, or serve with another folder for vocabularies.")
        return path

    def _features(self, project: str, interface: Interface, task: Mapping[str, Any]) -> Features:
        image = self._load(project, interface, task)
        with self._lock:
            return self._encode(image)[0]

    def start_training(self, project: str, interface: Interface, tasks: object = None) -> None:
        """Run `train` in a thread of its own, because Label Studio waits for seconds only."""

        def run() -> None:
            try:
                self.train(project, interface, tasks)
            except TipssegError as error:
                self.note(f"Project {project}: no fit", error)
            finally:
                self._training.discard(project)

        if project in self._training:
            self.note(f"Project {project}: a training is already running.")
            return
        self._training.add(project)
        threading.Thread(target=run, name=f"train-{project}", daemon=True).start()


# ---- HTTP ----


def serve(backend: Backend, host: str = "127.0.0.1", port: int = 9090) -> ThreadingHTTPServer:
    """Return a server for a backend; call its `serve_forever`. Raise UsageError if the port is taken."""

    handler = type("Handler", (_Handler,), {"backend": backend})
    try:
        return ThreadingHTTPServer((host, port), handler)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}",
            Words("Choose another port with {port}, or an IPv4 address of this machine with {host}."),
        ) from error


class _Handler(BaseHTTPRequestHandler):
    backend: Backend

    def do_GET(self) -> None:
        known = urlsplit(self.path).path in ("/", "/health")
        self._answer(200 if known else 404, {"status": "UP", "model_class": "tipsseg"} if known else {})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        calls = {"/setup": self._setup, "/predict": self._predict, "/train": self._train, "/webhook": self._webhook}
        try:
            size = int(self.headers.get("Content-Length") or 0)
            if not 0 <= size <= _REQUEST_LIMIT:
                raise ValueError(f"a request of {size} bytes")
            data = self.rfile.read(size)
            # A web page can send other types to any address, and its browser names the page.
            if self.headers.get_content_type() != "application/json" or "Origin" in self.headers:
                raise ValueError("requests must have the type application/json, and must not come from web pages")
            request = parse(data)
            if not isinstance(request, dict):
                raise ValueError("the request is not an object")
            self._answer(*((200, calls[path](request)) if path in calls else (404, {})))
        except (ValueError, TipssegError) as error:
            known = error if isinstance(error, TipssegError) else InputError(str(error))
            self.backend.note(shorten(path), known)
            self._answer(400, {"error": ". ".join(filter(None, (known.message, known.hint)))})

    def _setup(self, request: dict[str, Any]) -> dict[str, object]:
        project, interface = parse_project(request.get("project")), parse_interface(take(request, "schema", str))
        server = [str(request.get(key) or "") for key in ("hostname", "access_token")]
        return {"model_version": self.backend.connect(project, interface, *server)}

    def _predict(self, request: dict[str, Any]) -> dict[str, object]:
        tasks = take(request, "tasks", tuple[dict[str, Any], ...])
        interface = parse_interface(take(request, "label_config", str))
        project = parse_project(request.get("project"))
        results = self.backend.predict(project, interface, tasks)
        self.backend.note(f"Project {project}: predicted {sum(map(bool, results))} of {pluralize(len(tasks), 'task')}.")
        return {"results": results}

    def _train(self, request: dict[str, Any]) -> dict[str, object]:
        interface = parse_interface(take(request, "label_config", str))
        self.backend.start_training(parse_project(request.get("project")), interface, request.get("annotations"))
        return {}

    def _webhook(self, request: dict[str, Any]) -> dict[str, object]:
        if request.get("action") == "START_TRAINING":
            project = take(request, "project", dict)
            interface = parse_interface(take(project, "label_config", str))
            self.backend.start_training(parse_project(project.get("id"), project.get("created_at")), interface)
        return {}

    def _answer(self, status: int, value: Mapping[str, object]) -> None:
        data = json.dumps(value).encode()
        # Label Studio shows people the reason in the first line, not the body.
        reason = printable(str(value.get("error", "")))[:_REASON].encode("ascii", "replace").decode()
        with suppress(ConnectionError):  # Label Studio stops waiting after some time
            self.send_response(status, reason or None)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Print nothing: the backend notes what fails."""
