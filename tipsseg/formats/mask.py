"""The facts of a mask, inside its PNG file: what it labels, who made it, and from what.

    IHDR
    iTXt tipsseg      the facts as JSON, at most LIMIT bytes
    PLTE IDAT ...     the pixels
    tpSg ...          what is bulky, by name: scores, objects, the model's own mask
    IEND

Image libraries read such a file like any PNG. Some programs move the text, compress it, or leave it out; few keep `tpSg`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import prod
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipsseg.types import LabelArray
from tipsseg.util.json import parse

#: Image.open of Pillow rejects texts above 1 MiB, cv2.imread of OpenCV files with 8 MB before the pixels.
LIMIT = 16 << 10

_SIGNATURE, _KEYWORD, _BULK = b"\x89PNG\r\n\x1a\n", b"tipsseg", b"tpSg"
#: The mark of the end of a zip archive, and the place of the length of the comment after it.
_ZIP_END, _ZIP_COMMENT = b"PK\5\6", 20

_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_TEXTS = (b"iTXt", b"zTXt", b"tEXt")

#: The facts that may be long: of an image with thousands of classes, they are bulk.
_LONG = ("image", "formerly", "names", "counts", "confidence", "present")

#: The size limit of unpacked bulk in bytes.
_BULK_LIMIT = 4 << 30

#: The size limit of facts that are bulk, in bytes: of tens of thousands of classes with long names.
_LONG_LIMIT = 8 << 20

_VERSION = 1

#: The length of `labels_digest`.
BASE_LENGTH = 16

Author = Literal["model", "person"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFacts:
    """The picture that a mask labels.

    Attributes:
        bytes: The size of its file.
        sha256: The hash of its file in hex; "" for a file that takes long to read.
        pixels: The digest of the upright image (see `upright.pixel_digest`); "" for a picture that is read in parts.
    """

    bytes: int
    sha256: str = ""
    pixels: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFacts:
    """The facts of a mask.

    Attributes:
        image: The name of the image.
        formerly: The names that it had before.
        by: Who made the labels.
        source: Of a person's labels, the format that they came in; "" for a mask that was changed in place.
        saved: Of a person's labels, when that person saved them, in UTC.
        accepted: True if a person looked at the model's labels, and said that they are right.
        question: The digest of the question of the folder (see `RunInfo.digest`).
        given: The digest of the regions and labels that the image was given; "" without any.
        names: The names of the classes that occur, by id.
        picture: The picture.
        labels: The digest of the labels (see `label_digest`).
        data: The digest of the chunks with the pixels, which tells without decoding that nobody changed them.
        size: (height, width) in pixels.
        counts: The pixels of the classes that occur, of the background and of ignored pixels, by id. Parts count in wholes too.
        confidence: The mean confidence of the classes that occur, and of the background, by id.
        present: The ids of the classes that competed; None if all did.
        grid: What a plugin says of the grid of the labels, JSON values by name (see `Grid.facts`).
    """

    image: str
    formerly: tuple[str, ...] = ()
    by: Author = "model"
    source: str = ""
    saved: str = ""
    accepted: bool = False
    question: str
    given: str = ""
    names: Mapping[int, str]
    picture: PictureFacts
    labels: str
    data: str = ""
    size: tuple[int, int]
    counts: Mapping[int, int]
    confidence: Mapping[int, float]
    present: tuple[int, ...] | None = None
    grid: Mapping[str, object] = field(default_factory=dict)

    @property
    def by_person(self) -> bool:
        return self.by == "person"

    @property
    def ignored(self) -> int:
        """The number of ignored pixels."""
        return sum(count for each, count in self.counts.items() if each and each not in self.names)

    def record(self) -> dict[str, Any]:
        """Return the facts as JSON values, without those that say nothing."""
        found: dict[str, Any] = {
            "v": _VERSION,
            "image": self.image,
            "formerly": list(self.formerly),
            "by": self.by,
            "from": self.source,
            "saved": self.saved,
            "accepted": self.accepted,
            "question": self.question,
            "given": self.given,
            "names": {str(key): name for key, name in self.names.items()},
            "picture": {name: getattr(self.picture, name) for name in ("bytes", "sha256", "pixels")},
            "labels": self.labels,
            "data": self.data,
            "size": list(self.size),
            "counts": {str(key): value for key, value in self.counts.items()},
            "confidence": {str(key): value for key, value in self.confidence.items()},
            "present": None if self.present is None else list(self.present),
            "grid": dict(self.grid),
        }
        empty = {
            "formerly": [],
            "from": "",
            "saved": "",
            "grid": {},
            "accepted": False,
            "question": "",
            "given": "",
            "data": "",
        }
        return {key: value for key, value in found.items() if value is not None and value != empty.get(key)}


def read_facts(record: Mapping[str, Any]) -> MaskFacts:
    """Read facts from JSON values. Raise ValueError if one is missing or of another type."""
    if _typed(record, "v", int) != _VERSION:
        raise ValueError("another version of tipsseg wrote it")
    by: Any = record.get("by")
    size, picture = _typed(record, "size", list), _typed(record, "picture", dict)
    present = record.get("present")
    if (
        by not in ("model", "person")
        or [type(each) for each in size] != [int, int]
        or not (present is None or (type(present) is list and all(type(each) is int for each in present)))
    ):
        raise ValueError("a fact has another type")
    return MaskFacts(
        image=_typed(record, "image", str),
        formerly=_texts(_typed(record, "formerly", list, [])),
        by=by,
        source=_typed(record, "from", str, ""),
        saved=_typed(record, "saved", str, ""),
        accepted=_typed(record, "accepted", bool, False),
        question=_typed(record, "question", str, ""),
        given=_typed(record, "given", str, ""),
        names=_by_id(_typed(record, "names", dict), str),
        picture=PictureFacts(
            bytes=_typed(picture, "bytes", int),
            sha256=_typed(picture, "sha256", str, ""),
            pixels=_typed(picture, "pixels", str, ""),
        ),
        labels=_typed(record, "labels", str),
        data=_typed(record, "data", str, ""),
        size=(size[0], size[1]),
        counts=_by_id(_typed(record, "counts", dict), int),
        confidence=_by_id(_typed(record, "confidence", dict), float, int),
        present=None if present is None else tuple(present),
        grid=_typed(record, "grid", dict, {}),
    )


_Value = TypeVar("_Value")


def _typed(record: Mapping[str, Any], key: str, kind: type[_Value], default: object = None) -> _Value:
    value = record.get(key, default)
    if type(value) is not kind:
        raise ValueError(f"`{key}` is missing, or of another type")
    return value


def _texts(values: list[Any]) -> tuple[str, ...]:
    if not all(type(value) is str for value in values):
        raise ValueError("a name is not a text")
    return tuple(values)


def _by_id(record: Mapping[str, Any], *kinds: type) -> dict[int, Any]:
    found = dict(sorted((int(key), value) for key, value in record.items()))
    if not all(type(value) in kinds for value in found.values()):
        raise ValueError("a value of a class has another type")
    return found


def label_digest(labels: LabelArray) -> str:
    """Return a digest of the size and the ids of labels [H, W], whatever their dtype."""
    height, width = labels.shape
    narrow = labels.dtype == np.uint8 or int(labels.max(initial=0)) < 256
    data = np.ascontiguousarray(labels, np.uint8 if narrow else "<u2")
    return sha256(b"%d %d\n" % (height, width) + data.tobytes()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class SealedMask:
    """A PNG file, apart from its pixels.

    Attributes:
        facts: Its facts; None without any that can be read.
        data: The digest of the chunks with the pixels.
        bulk: What is bulky, by name, compressed.
        depth: The bits of a pixel; 0 if there are no pixels.
    """

    facts: MaskFacts | None
    data: str
    bulk: Mapping[str, memoryview] = field(default_factory=dict)
    depth: int = 0

    @property
    def intact(self) -> bool:
        """Return True if the file has the pixels that it was written with."""
        return self.facts is not None and self.facts.data == self.data

    def unpack(self, name: str, limit: int) -> bytes | None:
        """Return bulk of at most `limit` bytes; None if it is missing, damaged or larger."""
        with suppress(zlib.error, KeyError):
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(self.bulk[name], limit + 1)  # with room for the end, which is not data
            return data if unpacker.eof and len(data) <= limit else None
        return None

    def unpacked(self) -> dict[str, bytes]:
        """Return all bulk by name, but for facts and what is damaged."""
        found = {name: self.unpack(name, _BULK_LIMIT) for name in self.bulk if name != "facts"}
        return {name: data for name, data in found.items() if data is not None}

    def objects(self, size: tuple[int, int]) -> NDArray[np.int32] | None:
        """Return the number of the object at each pixel of a mask of this size, [H, W]; None if the mask does not have them."""
        length = 4 * prod(size)
        data = self.unpack("objects", length)
        return (
            None if data is None or len(data) != length else np.frombuffer(data, "<i4").astype(np.int32).reshape(size)
        )


def labels_digest(facts: MaskFacts, bulk: SealedMask) -> str:
    """Return a digest of the labels of a mask as it says them, and of the objects that touch."""
    objects = bulk.unpack("objects", 4 * prod(facts.size)) or b""
    return sha256(facts.labels.encode() + objects).hexdigest()[:BASE_LENGTH]


def seal(png: bytes, facts: MaskFacts, bulk: Mapping[str, bytes] | None = None) -> bytes:
    """Return a mask with these facts in place of others; `bulk` is what is bulky, by name."""
    head, tail = _ours(replace(facts, data=read_sealed(png).data), bulk or {})
    pieces = [_SIGNATURE]
    for kind, body, whole in _chunks(png):
        if kind == _BULK or _text_of(kind, body) is not None:
            continue
        if kind == b"IEND":
            pieces.append(tail)
        pieces.append(bytes(whole))
        if kind == b"IHDR":
            pieces.append(head)
    return b"".join(pieces)


def facts_text(facts: MaskFacts) -> str:
    """Return facts as JSON, for masks that are no PNG files: what a plugin says stands beside what tipsseg says."""
    record = facts.record()
    return _json(record | record.pop("grid", {})).decode()


def read_facts_text(text: str) -> MaskFacts:
    """Read facts from `facts_text`. Raise ValueError if one is missing or of another type."""
    record = _typed({"facts": parse(text.encode())}, "facts", dict)
    grid = {key: record.pop(key) for key in {*record} - {*MaskFacts.__dataclass_fields__, "v", "from"}}
    return read_facts({**record, "grid": grid})


def attach(data: bytes, facts: MaskFacts) -> bytes:
    """Return a file that belongs to a mask with the facts of the mask: of a PNG in chunks, of a NumPy archive in the comment."""
    with suppress(ValueError):  # a damaged file stays as it is
        if data.startswith(_SIGNATURE):
            return seal(data, facts)
        end = data.rindex(_ZIP_END) + _ZIP_COMMENT
        record = facts.record()
        text = _json(record)
        if len(text) > LIMIT:
            text = _json({key: value for key, value in record.items() if key not in _LONG})
        return data[:end] + struct.pack("<H", len(text)) + text
    return data


def read_attached(data: bytes) -> MaskFacts | None:
    """Return the facts in a mask, or in a file from `attach`; None if the file has none, or has other content than it says."""
    with suppress(ValueError, TypeError, RecursionError):
        if data.startswith(_SIGNATURE):
            found = read_sealed(data)
            return found.facts if found.intact else None
        comment = data[data.rindex(_ZIP_END) + _ZIP_COMMENT + 2 :]
        return read_facts(_typed({"facts": parse(comment)}, "facts", dict))
    return None


def make_envelope(facts: MaskFacts, bulk: Mapping[str, bytes] | None = None) -> bytes:
    """Return what `envelope` returns for a mask with these facts."""
    return b"".join([_SIGNATURE, *_ours(facts, bulk or {}), _chunk(b"IEND", b"")])


def _ours(facts: MaskFacts, bulk: Mapping[str, bytes]) -> tuple[bytes, bytes]:
    """Return the chunks of a mask before and after the pixels."""
    record, kept = facts.record(), dict(bulk)
    text = _json(record)
    if len(text) > LIMIT:
        kept["facts"] = _json({key: record.pop(key) for key in _LONG if key in record})
        text = _json(record)
    tail = [_chunk(_BULK, name.encode() + b"\0" + zlib.compress(kept[name], 1)) for name in sorted(kept)]
    return _chunk(b"iTXt", _KEYWORD + b"\0\0\0\0\0" + text), b"".join(tail)


def read_sealed(png: bytes) -> SealedMask:
    """Read the facts of a mask. Raise ValueError for a file that is damaged, or not a PNG."""
    text: bytes | None = None
    digest, last, bulk, depth = sha256(), b"", dict[str, memoryview](), 0
    for kind, body, _ in _chunks(png):
        if kind in _PIXELS:
            if kind != last:
                digest.update(kind)
            digest.update(body)
            depth = body[8] if kind == b"IHDR" and len(body) > 8 else depth
        elif kind == _BULK:
            name = bytes(body[:32]).partition(b"\0")[0]
            bulk[name.decode("ascii", "replace")] = body[len(name) + 1 :]
        elif text is None:
            text = _text_of(kind, body)
        last = kind
    found, facts = SealedMask(None, digest.hexdigest()[:32], bulk, depth), None
    with suppress(ValueError, TypeError, RecursionError):  # the message of an error is as deep as its value
        record = _typed({"facts": parse(text or b"{}")}, "facts", dict)
        if "facts" in bulk:
            record |= _typed({"facts": parse(found.unpack("facts", _LONG_LIMIT) or b"{}")}, "facts", dict)
        facts = read_facts(record)
    return replace(found, facts=facts)


def envelope(png: bytes) -> bytes:
    """Return a mask without its pixels: its facts and its bulk."""
    pieces = [
        whole for kind, body, whole in _chunks(png) if kind in (_BULK, b"IEND") or _text_of(kind, body) is not None
    ]
    return b"".join([_SIGNATURE, *pieces])


def open_envelope(data: bytes) -> SealedMask:
    """Read what `envelope` returned, or a mask; without facts if it is damaged, or says nothing."""
    with suppress(ValueError):
        return read_sealed(data)
    return SealedMask(None, "")


def _chunks(png: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield the kind of each chunk, its content, and all of it. Raise ValueError if one is damaged, or the last one is missing."""
    view, at, kind = memoryview(png), len(_SIGNATURE), b""
    if view[:at] != _SIGNATURE:
        raise ValueError("not a PNG file")
    while kind != b"IEND":
        if at + 12 > len(view):
            raise ValueError("it ends in the middle")
        length, kind = struct.unpack_from(">I4s", view, at)
        end = at + 12 + length
        if end > len(view):
            raise ValueError("it ends in the middle")
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ValueError("a checksum does not match")
        yield kind, view[at + 8 : end - 4], view[at:end]
        at = end


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _text_of(kind: bytes, body: memoryview) -> bytes | None:
    """Return our text in a chunk; None if the chunk has none. Programs write it in any of the three kinds."""
    if kind not in _TEXTS or body[: len(_KEYWORD) + 1] != _KEYWORD + b"\0":
        return None
    rest = bytes(body[len(_KEYWORD) + 1 :])
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        rest = rest[1:]
    if packed:
        with suppress(zlib.error):
            return zlib.decompressobj().decompress(rest, 2 * LIMIT)
        return b""
    return rest[: 2 * LIMIT]


def _json(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
