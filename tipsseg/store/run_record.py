"""run.json: what was run, on what, with which result; and whether two runs would give an image the same labels."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path

from tipsseg import __version__
from tipsseg.errors import InputError, OutputError
from tipsseg.formats.base import RunContext
from tipsseg.options import DTYPE_NAMES, recorded_names
from tipsseg.store.shards import state_folders
from tipsseg.store.spec import RunSpec
from tipsseg.types import BACKGROUND
from tipsseg.util.files import atomic_write, json_bytes, read_regular
from tipsseg.util.fingerprint import Fingerprint, parse_file
from tipsseg.util.json_values import parse
from tipsseg.util.ownership import MOVE, Ownership
from tipsseg.util.record_paths import is_inside
from tipsseg.vocabulary.toml_file import class_record
from tipsseg.vocabulary.vocabulary import Vocabulary
from tipsseg.weights.sources import find_model

RUN_FILE = "run.json"

#: Raised by one whenever the same input and options give other labels or other files; a release alone does not raise it.
LABELS_VERSION = 1

#: The key of the formats that the labels are being converted into; there is none once that is done.
CONVERTING = "converting"

#: The key that says that records of images were lost once: files may be there then that no record has.
LOST = "lost"

#: The key of files that were changed by hand, and were kept when the folder was begun anew.
KEPT = "kept"

#: Packages whose version may matter to labels or files.
_PACKAGES = ("torch", "numpy", "pillow", "opencv-python", "pycocotools", "sentencepiece", "safetensors")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many images a run has labelled, left unchanged since an earlier run, and failed to label.

    Attributes:
        edited: Those of `unchanged` with files that were changed by hand, and are kept.
    """

    labelled: int = 0
    unchanged: int = 0
    failed: int = 0
    edited: int = 0

    @property
    def done(self) -> int:
        """All of them."""
        return self.labelled + self.unchanged + self.failed


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run came to. Its fields become known one after the other: see `plan_run`, `Engine.start` and `OutputFolder`.

    Attributes:
        spec: What was asked for.
        model: `id`, `repository`, `revision` and `sha256` of the model, see `ModelSource.facts`.
        dtype: The dtype that the model computes in; "auto" until the model is loaded, where the output folder has none yet.
        device: The device of the model. Known once the model is loaded, as what follows.
        vocabulary: The vocabulary with its background resolved.
        dropped: Background phrases that were left out, each with the phrase of a class that it means the same as.
        image_root: The folder that the names of the images begin at.
        started: When the run began to label.
        ended: When the run ended. Known at the end, as what follows.
        counts: What became of the images.
        batch_size: Windows that made a batch at the end, after batches were halved for want of memory; None: not known.
    """

    spec: RunSpec
    model: Mapping[str, object]
    dtype: str
    device: str = ""
    vocabulary: Vocabulary | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    image_root: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    counts: Counts = Counts()
    batch_size: int | None = None

    @property
    def digest(self) -> str:
        """32 hex digits, the same for the same labels and annotations: a function of what was asked, the model and the dtype."""
        value = {
            "labels_version": LABELS_VERSION,
            "model": model_identity(self.model),
            "vocabulary": vocabulary_identity(vocabulary_record(self.spec.vocabulary, self.spec.vocabulary)),
            "options": {**asdict(self.spec.options), **self.spec.files.image_record()},
            "dtype": self.dtype,
        }
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def plan_run(spec: RunSpec) -> RunInfo:
    """What is known of a run before its model is loaded.

    Raises:
        CheckpointError: where the files of a local model cannot be read.
    """
    dtype = spec.dtype
    if dtype == "auto" and spec.formats:
        dtype = begun_dtype(spec) or "auto"
    return RunInfo(spec, find_model(spec.model).facts(keep_stamps=spec.use_cache), dtype)


def begun_dtype(spec: RunSpec) -> str | None:
    """The dtype that the labels in an output folder were begun in, by this run or another shard of it; None: there are none."""
    shards: list[Path] = []
    with suppress(InputError):  # told when the folder is taken
        shards = state_folders(spec.output)
    for state in (spec.state, *shards):
        dtype = (read_run(state) or {}).get("dtype")
        if isinstance(dtype, str) and dtype in DTYPE_NAMES:
            return dtype
    return None


def run_context(info: RunInfo) -> RunContext:
    """What the writers of the formats have to know of a run."""
    spec = info.spec
    facts = {
        "version": __version__,
        "command": spec.command(),
        "model": info.model["id"],
        "revision": info.model["revision"],
        "vocabulary": [entry.name for entry in spec.vocabulary.classes],
    }
    return RunContext(spec.output, spec.state, spec.vocabulary.classes, facts, spec.files, spec.owner)


def asked_record(info: RunInfo) -> dict[str, object]:
    """What of run.json decides which run it is: the model, the vocabulary as it was asked for, and the options."""
    spec = info.spec
    vocabulary = vocabulary_record(spec.vocabulary, spec.vocabulary)
    return {"model": dict(info.model), "vocabulary": vocabulary, "options": spec.option_record()}


def run_record(info: RunInfo) -> dict[str, object]:
    """The content of run.json for a run that is still going, or was broken off; see `ended`."""
    spec = info.spec
    return {
        "tool": "tipsseg",
        "version": __version__,
        "labels_version": LABELS_VERSION,
        "digest": info.digest,
        "command": spec.command(),
        "model": dict(info.model),
        "device": info.device,
        "dtype": info.dtype,
        "asked": {"device": spec.device, "dtype": spec.dtype, "batch_size": spec.batch_size},
        "options": spec.option_record(),
        "vocabulary": vocabulary_record(spec.vocabulary, info.vocabulary or spec.vocabulary),
        "formats": list(spec.formats),
        "shard": None if spec.shard is None else str(spec.shard),
        "image_root": info.image_root,
        "versions": {"python": platform.python_version(), **_versions()},
        "started": None if info.started is None else info.started.isoformat(timespec="seconds"),
        "ended": None,
        "counts": None,
    }


def ended(record: Mapping[str, object], formats: Sequence[str], counts: Counts, now: datetime) -> dict[str, object]:
    """The content of run.json once the run, in these formats, has ended."""
    return {
        **record,
        "formats": list(formats),
        "ended": now.isoformat(timespec="seconds"),
        "counts": asdict(counts),
    }


def write_run(ownership: Ownership, records: Path, record: Mapping[str, object]) -> Path:
    """Write run.json into a state folder and return its path. Raises OutputError.

    Its `files` are the files that stand for the whole run, each with its size, time and digest.
    """
    path = records / RUN_FILE
    refuse_other_record(records)
    ownership.refuse_outside(path)
    rest = {key: value for key, value in record.items() if key != "files"}  # of an earlier run, and in another place
    atomic_write(path, json_bytes({**rest, "files": ownership.record()}, indent=2) + b"\n")
    return path


def refuse_other_record(records: Path) -> None:
    """Raise OutputError where a run.json is there that is not by this tool."""
    path = records / RUN_FILE
    if os.path.lexists(path) and read_run(records) is None:
        raise OutputError(
            path,
            "the file that is there is not the record of a run, or cannot be read",
            MOVE,
        )


def read_run(records: Path) -> dict[str, object] | None:
    """The content of run.json in a state folder; None where there is none, or it is not by this tool."""
    try:
        record = parse(read_regular(records / RUN_FILE))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("tool") == "tipsseg" else None


def images_of(record: Mapping[str, object]) -> int:
    """How many images the folder had at the end of a run, by its run.json; what is missing there, or is no number, is 0."""
    counts, summary = _mapping(record.get("counts")), _mapping(record.get("summary"))
    done = [counts.get(key) for key in ("labelled", "unchanged")]
    held = summary.get("images")
    return max(sum(number for number in done if isinstance(number, int)), held if isinstance(held, int) else 0)


def written_files(record: Mapping[str, object] | None) -> dict[str, Fingerprint]:
    """The files that stand for the whole run, of the content of run.json, by their paths; those that are sound."""
    found: dict[str, Fingerprint] = {}
    for place, file in _mapping((record or {}).get("files")).items():
        with suppress(ValueError):
            if is_inside(place):
                found[place] = parse_file(file)
    return found


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """What of the model, the vocabulary and the names of files is not the same in two contents of run.json.

    Of the first two, ids would mean other things.
    """
    found = []
    if model_identity(_mapping(one.get("model"))) != model_identity(_mapping(other.get("model"))):
        found.append("model")
    if vocabulary_identity(_mapping(one.get("vocabulary"))) != vocabulary_identity(_mapping(other.get("vocabulary"))):
        found.append("vocabulary")
    if recorded_names(one) != recorded_names(other):
        found.append("choice of --names")
    return found


def difference_texts(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """What `differences` finds, in words: "the classes differ: panda leg, tree / car"."""
    found = differences(one, other)
    texts = []
    if "model" in found:
        models = [str(_mapping(record.get("model")).get("id")) for record in (one, other)]
        texts.append(f"the models differ: {' / '.join(models)}" + (" (with other files)" * (models[0] == models[1])))
    if "vocabulary" in found:
        first, second = (_mapping(record.get("vocabulary")) for record in (one, other))
        names = [_class_names(record) for record in (first, second)]
        if names[0] != names[1]:
            texts.append(f"the classes differ: {' / '.join(map(_few, names))}")
        else:
            keys = [key for key in ("classes", "background", "auto", "templates") if first.get(key) != second.get(key)]
            what = {"classes": "what is said of the classes", "auto": "background"}
            texts.append(f"with the same classes, other {', '.join(dict.fromkeys(what.get(key, key) for key in keys))}")
    if "choice of --names" in found:
        texts.append(f"the names of files differ: --names {' / '.join(map(recorded_names, (one, other)))}")
    return texts


def _class_names(vocabulary: Mapping[str, object]) -> list[str]:
    classes = vocabulary.get("classes")
    return [str(_mapping(each).get("name")) for each in classes] if isinstance(classes, list) else []


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def model_identity(facts: Mapping[str, object]) -> Mapping[str, object]:
    """What tells a model from others: a revision of a repository, or the hashes of its files."""
    if facts.get("revision"):
        return {"repository": facts.get("repository"), "revision": facts["revision"]}
    return {"sha256": facts.get("sha256")}


def vocabulary_identity(record: Mapping[str, object]) -> Mapping[str, object]:
    """What tells a vocabulary from others: all of its record but where it came from, and what an automatic background came to."""
    same = {key: value for key, value in record.items() if key != "source"}
    return {**same, "background": None} if record.get("auto") else same


def vocabulary_record(asked: Vocabulary, used: Vocabulary) -> dict[str, object]:
    """What competed: `classes` as the entries of a vocabulary file, with the ids that they were given (0: written as background),
    `background`, whether that was chosen by itself (`auto`), and `templates`.
    """
    ids = iter(range(1, len(asked.classes) + 1))
    return {
        "source": asked.source,
        "classes": [{"id": BACKGROUND if spec.negative else next(ids), **class_record(spec)} for spec in asked.specs],
        "background": list(used.background),
        "auto": asked.auto,
        "templates": list(asked.templates),
    }


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # opencv comes under several names
            continue
    return found
