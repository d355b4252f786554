"""Class vectors that were fitted to masks, and their file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import TipssegError, UsageError, VocabularyError
from tipsseg.options import LabelOptions, Mode
from tipsseg.types import LABELS_VERSION
from tipsseg.util.files import atomic_write, is_there, json_bytes, read_regular
from tipsseg.util.json_values import parse, take, take_share
from tipsseg.util.printable import quoted
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary

#: What the names of files of fits end with; by it they are told from files of words.
FIT_SUFFIX = ".fit"

#: One key: the order of several in a safetensors file is not always the same.
_KEY = "tipsseg"
_KIND = "tipsseg.fit"
_VERSION = 1
#: A length in the first bytes of the file, then that many bytes of JSON.
_LENGTH_BYTES = 8
_LIMIT = 1 << 30  # bytes

#: No fit comes near; with larger numbers logits would be infinite.
_HUGE = 1e6

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClassFit:
    """The score of a class.

    Attributes:
        name: The class; "" for the background.
        images: How many images have pixels of it.
        text_iou: IoU of the text vectors alone on these images, None for a class without pixels.
        iou: IoU of the chosen vectors, each image labelled by a fit without it. None where there is one image alone, or no pixels.
        source: "text": the text vector as it was; "text and masks": drawn towards it; "masks": the text did not help.
    """

    name: str
    images: int
    text_iou: float | None
    iou: float | None
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class FittedVocabulary:
    """A vocabulary with fitted vectors, for `Labeller` in place of a vocabulary.

    Attributes:
        vocabulary: The classes and the background phrases; its `fit` is the digest of the vectors.
        vectors: [P, D] float32, in the order of the vocabulary's phrases. Their lengths are not 1.
        biases: [P] float32, added to the products of vectors and patch features. The sum stands for the cosine.
        temperature: That of the softmax over these sums.
        model: The sha256 of each file of the model, by its name.
        model_id: What the model is called: its id in weights.lock, or the name of its folder.
        mode: How the images were seen, see `LabelOptions`.
        short_side: Their shorter side as the model saw it, in pixels.
        scores: How each class came out, by id; first the background, where it has phrases.
        labels_version: See `types.LABELS_VERSION`.
    """

    vocabulary: Vocabulary
    vectors: Values
    biases: Values
    temperature: float
    model: Mapping[str, str]
    model_id: str
    mode: Mode
    short_side: int
    scores: tuple[ClassFit, ...]
    labels_version: int = LABELS_VERSION

    def __post_init__(self) -> None:
        """Let the vocabulary say by which vectors it labels."""
        numbers = (self.vectors, self.biases, np.float64(self.temperature))
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in numbers)).hexdigest()[:32]
        object.__setattr__(self, "vocabulary", replace(self.vocabulary, fit=digest))

    def __repr__(self) -> str:
        return f"FittedVocabulary({self.vocabulary!r}, model={self.model_id!r}, mode={self.mode!r}, short_side={self.short_side})"

    def check(
        self, model: Mapping[str, object], model_id: str, mode: Mode | None = None, short_side: int | None = None
    ) -> None:
        """Raise UsageError if the fit is of another model, or of images seen in another way.

        Args:
            model: The sha256 of files of the model; files that only one of the two knows are not compared.
            model_id: What the model is called.
            mode: How images are shown to it. None: not known yet.
            short_side: Of the images as it sees them. None: not known yet.
        """
        if self.labels_version != LABELS_VERSION:
            raise UsageError(
                "the fitted vocabulary is of another version of the labels", "Fit again with this version."
            )
        if any(self.model[name] != model[name] for name in self.model.keys() & model.keys()):
            raise self.of_another_model(model_id)
        if (mode or self.mode, short_side or self.short_side) != (self.mode, self.short_side):
            raise UsageError(
                f"the fitted vocabulary is of images in mode {self.mode!r} with short side {self.short_side}, and these are "
                f"seen in mode {(mode or self.mode)!r} with short side {short_side or self.short_side}",
                "Give the mode and the short side of the fit, or fit again with these.",
            )

    def of_another_model(self, model_id: str) -> UsageError:
        """Return the error for a model, called `model_id`, that is not the one of the fit."""
        other = f"{model_id} with other files" if model_id == self.model_id else model_id
        return UsageError(
            f"the fitted vocabulary is of the model {self.model_id}, and this model is {other}",
            f"Load the model of the fit with argument `model`={self.model_id}, or fit again with this one.",
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file. The same fit gives the same bytes. Raises OutputError."""
        from safetensors.numpy import save

        vocabulary = self.vocabulary
        record = {
            "kind": _KIND,
            "version": _VERSION,
            "classes": [asdict(spec) for spec in vocabulary.specs],
            "background": vocabulary.background,
            "templates": vocabulary.templates,
            "source": vocabulary.source,
            "temperature": self.temperature,
            "model": dict(sorted(self.model.items())),
            "model_id": self.model_id,
            "labels_version": self.labels_version,
            "mode": self.mode,
            "short_side": self.short_side,
            "scores": [asdict(score) for score in self.scores],
        }
        tensors = {"biases": self.biases, "vectors": self.vectors}
        atomic_write(Path(path), save(tensors, {_KEY: json_bytes(record).decode()}))

    @classmethod
    def load(cls, path: str | Path) -> FittedVocabulary:
        """Read what `save` wrote. Raises VocabularyError for a file that cannot be read, or is not a fit."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = Path(path)
        if not is_there(path):
            raise VocabularyError(f"the fitted vocabulary {quoted(str(path))} is no file", "Fit it: tipsseg fit --help")
        try:
            data = read_regular(path, _LIMIT)
            tensors = load(data)
            length = int.from_bytes(data[:_LENGTH_BYTES], "little")
            header = parse(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
            fitted = _made(parse(header["__metadata__"][_KEY].encode()), tensors)
        except VocabularyError as error:
            raise VocabularyError(error.reason, error.hint, path=path) from error
        except (OSError, TipssegError) as error:
            raise VocabularyError(f"it cannot be read: {error}", path=path) from error
        except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise VocabularyError("it is no fitted vocabulary", "Give a file that a fit wrote.", path=path) from error
        return fitted


#: Classes as functions of the library take them: names, ClassSpecs, a dict of names with their synonyms, a vocabulary, or a fit.
Classes = Vocabulary | FittedVocabulary | Sequence[str | ClassSpec] | Mapping[str, Sequence[str]]


def as_vocabulary(classes: Classes) -> tuple[Vocabulary, FittedVocabulary | None]:
    """Return the vocabulary of classes, and their fit if they have one. Raise VocabularyError."""
    if isinstance(classes, FittedVocabulary):
        return classes.vocabulary, classes
    return (classes if isinstance(classes, Vocabulary) else make_vocabulary(classes)), None


def is_fit(source: str | Path) -> bool:
    """Tell by its name whether a vocabulary is a file of a fit."""
    return Path(source).suffix.lower() == FIT_SUFFIX


def _read_score(record: Mapping[str, Any]) -> ClassFit:
    text_iou, iou = (None if record[key] is None else take_share(record, key) for key in ("text_iou", "iou"))
    return ClassFit(take(record, "name", str), take(record, "images", int), text_iou, iou, take(record, "source", str))


def _made(record: Mapping[str, Any], tensors: Mapping[str, Values]) -> FittedVocabulary:
    """Build the fit in a file. Raises ValueError and its like if the record is not one of a fit."""
    if (record["kind"], record["version"]) != (_KIND, _VERSION):
        raise ValueError("of another kind or version")
    specs = [ClassSpec(**entry) for entry in record["classes"]]
    vocabulary = make_vocabulary(specs, tuple(record["background"]), record["templates"], str(record["source"]))
    vectors, biases, temperature = tensors["vectors"], tensors["biases"], float(record["temperature"])
    phrases = len(vocabulary.phrases)
    if vectors.ndim != 2 or vectors.shape[0] != phrases or biases.shape != (phrases,):
        raise ValueError("vectors and phrases differ in number")
    if {vectors.dtype, biases.dtype} != {np.dtype(np.float32)} or not temperature > 0:
        raise ValueError("wrong types of numbers")
    numbers = (vectors, biases, np.array([temperature, 1 / temperature]))
    if not all((np.abs(part) <= _HUGE).all() for part in numbers):  # false for NaN too
        raise ValueError("no numbers, or numbers that no fit gives")
    options = LabelOptions(mode=record["mode"], short_side=int(record["short_side"]))
    if options.short_side is None:
        raise ValueError("no short side")
    return FittedVocabulary(
        vocabulary=vocabulary,
        vectors=vectors,
        biases=biases,
        temperature=temperature,
        model=dict(record["model"]),
        model_id=str(record["model_id"]),
        mode=options.mode,
        short_side=options.short_side,
        scores=tuple(map(_read_score, record["scores"])),
        labels_version=int(record["labels_version"]),
    )
