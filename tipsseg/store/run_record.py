"""run.json: what was run, on what, with which result; and whether two runs would give an image the same labels."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path

from tipsseg import __version__
from tipsseg.errors import OutputError
from tipsseg.options import FileOptions, LabelOptions, recorded_names
from tipsseg.types import BACKGROUND
from tipsseg.util.files import atomic_write, json_bytes, read_regular
from tipsseg.util.fingerprint import Fingerprint, parse_file
from tipsseg.util.json_values import is_inside, parse
from tipsseg.util.ownership import MOVE, Ownership
from tipsseg.vocabulary.toml_file import class_record
from tipsseg.vocabulary.vocabulary import Vocabulary

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
class Decides:
    """All that decides the labels of an image, known before the model is loaded.

    model       as `ModelSource.facts` gives it
    vocabulary  as it was asked for; what an automatic background comes to follows from the model
    dtype       that the model computes in; "auto" as long as nothing has settled it, see `settle`
    """

    model: Mapping[str, object]
    vocabulary: Vocabulary
    options: LabelOptions
    files: FileOptions
    dtype: str

    def record(self) -> dict[str, object]:
        """As run.json has it."""
        vocabulary = vocabulary_record(self.vocabulary, self.vocabulary)
        return {"model": dict(self.model), "vocabulary": vocabulary, "options": self.option_record()}

    def settle(self, dtype: str) -> Decides:
        """The same with the dtype that the model computes in."""
        return replace(self, dtype=dtype)

    def option_record(self) -> dict[str, object]:
        """The options of labelling and of files."""
        return {**asdict(self.options), **self.files.record()}

    @property
    def digest(self) -> str:
        """The same for the same labels and annotations: 32 hex digits."""
        value = {
            "labels_version": LABELS_VERSION,
            "model": model_identity(self.model),
            "vocabulary": vocabulary_identity(vocabulary_record(self.vocabulary, self.vocabulary)),
            "options": {**asdict(self.options), **self.files.image_record()},
            "dtype": self.dtype,
        }
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What run.json says of a run from its beginning on; all values fit into JSON.

    command     that asks for the same labels, without paths
    device, dtype, sha256, vocabulary    what it came to, see `engine.Started`
    image_root  the folder that the images' names begin at
    shard       "3/8", None for a whole run
    """

    decides: Decides
    command: str
    device: str
    dtype: str
    sha256: Mapping[str, str]
    vocabulary: Vocabulary
    asked: Mapping[str, object]
    formats: tuple[str, ...]
    image_root: str
    shard: str | None
    started: datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """How a run ended: images labelled, labelled before and unchanged, failed.

    edited  those of `unchanged` with files that were changed by hand, and are kept
    """

    labelled: int = 0
    unchanged: int = 0
    failed: int = 0
    edited: int = 0

    @property
    def done(self) -> int:
        """All of them."""
        return self.labelled + self.unchanged + self.failed


def run_record(facts: RunFacts) -> dict[str, object]:
    """The content of run.json for a run that is still going, or was broken off; see `ended`."""
    decides = facts.decides
    return {
        "tool": "tipsseg",
        "version": __version__,
        "labels_version": LABELS_VERSION,
        "digest": decides.digest,
        "command": facts.command,
        "model": {**decides.model, "sha256": dict(facts.sha256)},
        "device": facts.device,
        "dtype": facts.dtype,
        "asked": dict(facts.asked),
        "options": decides.option_record(),
        "vocabulary": vocabulary_record(decides.vocabulary, facts.vocabulary),
        "formats": list(facts.formats),
        "shard": facts.shard,
        "image_root": facts.image_root,
        "versions": {"python": platform.python_version(), **_versions()},
        "started": facts.started.isoformat(timespec="seconds"),
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
