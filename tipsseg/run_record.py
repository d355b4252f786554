"""run.json: what was run, on what, with which result; and whether two runs would give an image the same labels."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path

from tipsseg import __version__
from tipsseg.file_options import FileOptions
from tipsseg.files import atomic_write, json_bytes
from tipsseg.label_options import LabelOptions
from tipsseg.records import BACKGROUND
from tipsseg.vocabulary import Vocabulary
from tipsseg.vocabulary_file import entry_record

RUN_FILE = "run.json"

#: The key of the formats that the labels are being converted into; there is none once that is done.
CONVERTING = "converting"

#: Packages whose version may matter to labels or files.
_PACKAGES = ("torch", "numpy", "pillow", "opencv-python", "pycocotools", "sentencepiece", "safetensors")


@dataclass(frozen=True, slots=True)
class Decides:
    """All that decides the labels of an image, known before the model is loaded.

    model       as `ModelSource.facts` gives it
    vocabulary  as it was asked for; what an automatic background comes to follows from the model
    dtype       as it was asked for
    """

    model: Mapping[str, object]
    vocabulary: Vocabulary
    options: LabelOptions
    files: FileOptions
    dtype: str

    def record(self) -> dict[str, object]:
        """As run.json has it."""
        return {"model": dict(self.model), "vocabulary": vocabulary_record(self.vocabulary, self.vocabulary)}

    def option_record(self) -> dict[str, object]:
        """The options of labelling and of files."""
        return {**asdict(self.options), **self.files.record()}

    @property
    def digest(self) -> str:
        """The same for the same labels and annotations: 32 hex digits."""
        value = {
            "version": __version__,
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
    """How a run ended: images labelled, labelled before and unchanged, failed."""

    labelled: int = 0
    unchanged: int = 0
    failed: int = 0

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
        "digest": decides.digest,
        "command": facts.command,
        "model": {**decides.model, "sha256": dict(facts.sha256)},
        "device": facts.device,
        "dtype": facts.dtype,
        "asked": {**facts.asked, "dtype": decides.dtype},
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


def write_run(records: Path, record: Mapping[str, object]) -> Path:
    """Write run.json into a folder of records and return its path. Raises OutputError."""
    path = records / RUN_FILE
    atomic_write(path, json_bytes(record, indent=2) + b"\n")
    return path


def read_run(records: Path) -> dict[str, object] | None:
    """The content of run.json in a folder of records; None where there is none, or it is not by this tool."""
    try:
        record = json.loads((records / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("tool") == "tipsseg" else None


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """What of "model" and "vocabulary" is not the same in two contents of run.json: of these, ids would mean other things."""
    found = []
    if model_identity(_mapping(one.get("model"))) != model_identity(_mapping(other.get("model"))):
        found.append("model")
    if vocabulary_identity(_mapping(one.get("vocabulary"))) != vocabulary_identity(_mapping(other.get("vocabulary"))):
        found.append("vocabulary")
    return found


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
        "classes": [
            {"id": BACKGROUND if entry.negative else next(ids), **entry_record(entry)} for entry in asked.entries
        ],
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
