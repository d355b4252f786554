"""Class vectors fitted to masks, and their file format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tipsseg.errors import UsageError, VocabularyError, Words
from tipsseg.options import Mode
from tipsseg.types import LABELS_VERSION
from tipsseg.util.files import atomic_write, describe_error, file_size, path_exists
from tipsseg.util.json import json_bytes, parse, take
from tipsseg.util.text import quote
from tipsseg.vocabulary.vocabulary import ClassSpec, Vocabulary, make_vocabulary, parse_class

#: The suffix of fit files, which distinguishes them from vocabulary files.
FIT_SUFFIX = ".fit"

#: The only metadata key: safetensors does not write several keys in a fixed order.
_KEY = "tipsseg"
_KIND = "tipsseg.fit"
_VERSION = 1
_MAX_BYTES = 1 << 30

#: The limit for vectors and biases, far above the values of real fits. Larger values would make logits infinite.
_MAX_VALUE = 1e6


_Values = NDArray[np.float32]


#: The origin of a class vector.
VectorSource = Literal["text", "text and masks", "masks"]


@dataclass(frozen=True, slots=True)
class ClassFit:
    """The result of a fit for one class.

    Attributes:
        name: The class name; "" for the background.
        images: The number of images that contain the class.
        text_iou: IoU of the text vectors on these images. None if no image contains the class.
        iou: Cross-validated IoU of the fitted vectors: each image is scored by a fit without it. None with fewer than two images,
            or if no image contains the class.
        source: The origin of the vector. "text": the text vector; "text and masks": learned from masks, with the text vector as a
            prior; "masks": learned from masks alone.
    """

    name: str
    images: int
    text_iou: float | None
    iou: float | None
    source: VectorSource


@dataclass(frozen=True, slots=True, eq=False)
class FittedVocabulary:
    """A vocabulary with fitted vectors. `Labeller` accepts it in place of a vocabulary.

    Attributes:
        vocabulary: The classes and the background phrases; its `fit` is the digest of the vectors.
        vectors: [P, D] float32, one per phrase of each of `vocabulary.contests`, in order. They are not unit vectors.
        biases: [P] float32, added to the products of vectors and patch features. The sums replace the cosines.
        temperature: The temperature of the softmax over these sums.
        model: The sha256 of each model file, by file name.
        model_id: The model id in weights.lock, or the name of the model folder.
        mode: The mode of the training images; see `LabelOptions`.
        short_side: The shorter side of the training images as model input, in pixels.
        scores: The results in the order of class ids. With background phrases, the background comes first.
        labels_version: See `types.LABELS_VERSION`.
    """

    vocabulary: Vocabulary
    vectors: _Values
    biases: _Values
    temperature: float
    model: Mapping[str, str]
    model_id: str
    mode: Mode
    short_side: int
    scores: tuple[ClassFit, ...]
    labels_version: int = LABELS_VERSION

    def __post_init__(self) -> None:
        """Set `vocabulary.fit` to the digest of the vectors."""
        numbers = (self.vectors, self.biases, np.float64(self.temperature))
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in numbers)).hexdigest()[:32]
        object.__setattr__(self, "vocabulary", replace(self.vocabulary, fit=digest))

    def __repr__(self) -> str:
        return f"FittedVocabulary({self.vocabulary!r}, model={self.model_id!r}, mode={self.mode!r}, short_side={self.short_side})"

    @property
    def learned(self) -> bool:
        """True if a vector differs from the text's vector."""
        return any(score.source != "text" for score in self.scores)

    def check(
        self, model: Mapping[str, object], model_id: str, mode: Mode | None = None, short_side: int | None = None
    ) -> None:
        """Raise UsageError unless the fit matches a model, a mode and a short side.

        Args:
            model: The sha256 of each model file, by file name. Only files that both sides list are compared.
            model_id: The model id, for messages.
            mode: The mode of the images, or None if unknown.
            short_side: The short side of the images, or None if unknown.
        """
        if self.labels_version != LABELS_VERSION:
            raise UsageError(
                "the fitted vocabulary was made with a different version of the labels", "Fit again with this version."
            )
        if any(self.model[name] != model[name] for name in self.model.keys() & model.keys()):
            raise self.wrong_model_error(model_id)
        if (mode or self.mode, short_side or self.short_side) != (self.mode, self.short_side):
            raise UsageError(
                f"the fitted vocabulary requires mode {self.mode!r} and short side {self.short_side}, but the options are "
                f"mode {(mode or self.mode)!r} and short side {short_side or self.short_side}",
                "Use the mode and the short side of the fit, or fit again with these options.",
            )

    def wrong_model_error(self, model_id: str) -> UsageError:
        """Return the error for using this fit with another model."""
        other = f"a different {model_id}, with different files" if model_id == self.model_id else model_id
        return UsageError(
            f"the fitted vocabulary requires the model {self.model_id}, but this model is {other}",
            Words(
                "Load the model of the fit with {model}={model_id}, or fit again with this model.",
                model_id=self.model_id,
            ),
        )

    def save(self, path: str | Path) -> None:
        """Write the fit as a safetensors file. The bytes are deterministic. Raise OutputError if that fails."""
        from safetensors.numpy import save

        vocabulary = self.vocabulary
        record = {
            "kind": _KIND,
            "version": _VERSION,
            "classes": [_class_values(spec) for spec in vocabulary.specs],
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
        """Read a file that `save` wrote. Raise VocabularyError if it cannot be read or does not hold a fit."""
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path_exists(path):
            raise VocabularyError(f"fitted vocabulary not found: {quote(str(path))}", "Create it: tipsseg fit --help")
        size = file_size(path)
        if size is None or size > _MAX_BYTES:
            reason = "not a regular file" if size is None else f"larger than {_MAX_BYTES:,} bytes"
            raise VocabularyError(f"cannot be read: {reason}", path=path)
        try:
            with safe_open(path, framework="numpy") as file:
                record = parse((file.metadata() or {}).get(_KEY, "").encode())
                return _parse_fit(record, file.get_tensor("vectors"), file.get_tensor("biases"))
        except OSError as error:
            raise VocabularyError(f"cannot be read: {describe_error(error)}", path=path) from error
        except (SafetensorError, ValueError, UsageError) as error:
            reason = f"not a vocabulary that tipsseg fit wrote: {error}"
            raise VocabularyError(reason, "Pass a file that `tipsseg fit` wrote.", path=path) from error


def _class_values(spec: ClassSpec) -> dict[str, object]:
    """Return the values of a class for a file; those that few classes have are left out for others."""
    rare = {"part_of", "phrase", "thing"}
    return {name: value for name, value in asdict(spec).items() if name not in rare or value not in ("", None)}


#: Classes that library functions accept: names, ClassSpecs, a dict of names with their synonyms, a vocabulary, or a fit.
Classes = Vocabulary | FittedVocabulary | Sequence[str | ClassSpec] | Mapping[str, Sequence[str]]


def as_vocabulary(classes: Classes) -> tuple[Vocabulary, FittedVocabulary | None]:
    """Return the vocabulary of classes, and their fit or None. Raise VocabularyError if the classes are invalid."""
    if isinstance(classes, FittedVocabulary):
        return classes.vocabulary, classes
    return (classes if isinstance(classes, Vocabulary) else make_vocabulary(classes)), None


def is_fit(source: str | Path) -> bool:
    """Return True if the name of a vocabulary ends with .fit."""
    return Path(source).suffix.lower() == FIT_SUFFIX


def _parse_fit(record: object, vectors: _Values, biases: _Values) -> FittedVocabulary:
    """Build a fit from the record and the tensors of a file. Raise ValueError or UsageError if they are invalid."""
    if (take(record, "kind", str), take(record, "version", int)) != (_KIND, _VERSION):
        raise ValueError("another kind or version")
    vocabulary = make_vocabulary(
        [parse_class(entry) for entry in take(record, "classes", list)],
        take(record, "background", tuple[str, ...]),
        take(record, "templates", list),
        take(record, "source", str),
    )
    phrases = sum(len(contest.phrases) for contest in vocabulary.contests)
    if vectors.ndim != 2 or vectors.shape[0] != phrases or biases.shape != (phrases,):
        raise ValueError("the numbers of vectors and phrases differ")
    temperature, short_side = take(record, "temperature", float), take(record, "short_side", int)
    if {vectors.dtype, biases.dtype} != {np.dtype(np.float32)} or not temperature > 0 or short_side < 1:
        raise ValueError("wrong dtype, temperature or short side")
    numbers = (vectors, biases, np.array([temperature, 1 / temperature]))
    if not all((np.abs(part) <= _MAX_VALUE).all() for part in numbers):  # also False for NaN
        raise ValueError("values are NaN or out of range")
    scores = take(record, "scores", tuple[ClassFit, ...])
    if not all(0 <= share <= 1 for score in scores for share in (score.text_iou, score.iou) if share is not None):
        raise ValueError("an IoU is out of range")
    return FittedVocabulary(
        vocabulary=vocabulary,
        vectors=vectors,
        biases=biases,
        temperature=temperature,
        model=take(record, "model", dict),
        model_id=take(record, "model_id", str),
        mode=take(record, "mode", Mode),
        short_side=short_side,
        scores=scores,
        labels_version=take(record, "labels_version", int),
    )
