"""Masks that say what they are: read back, damaged, hostile, and in the hands of other programs."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tipsseg.formats.mask import (
    LIMIT,
    MaskFacts,
    PictureFacts,
    envelope,
    label_digest,
    open_envelope,
    read_facts,
    read_sealed,
    seal,
)
from tipsseg.formats.png import encode_mask
from tipsseg.types import LabelArray, LabelClass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CLASSES = tuple(LabelClass(number, name, (number, 0, 0)) for number, name in enumerate(("tree", "sky"), start=1))
LABELS: LabelArray = np.array([[0, 1, 2], [1, 1, 255]], np.uint8).repeat(9, axis=0).repeat(7, axis=1)
PNG = encode_mask(LABELS, CLASSES)
FACTS = MaskFacts(
    image="sub/a.jpg",
    question="c" * 32,
    names={1: "tree", 2: "sky"},
    picture=PictureFacts(bytes=6387, sha256="a" * 64, pixels="b" * 32),
    labels=label_digest(LABELS),
    size=(18, 21),
    counts={0: 63, 1: 189, 2: 63, 65535: 63},
    confidence={0: 0.5, 1: 0.75, 2: 1.0},
)
MASK = seal(PNG, FACTS, {"scores": b"[0.5]", "objects": LABELS.astype("<i4").tobytes()})


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def with_text(kind: bytes, body: bytes, *, last: bool = False, more: bytes = b"") -> bytes:
    """The plain mask with a text chunk before or after its pixels, and `more` before its end."""
    pieces = [SIGNATURE]
    for each, content in chunks(PNG):
        if each == b"IEND":
            pieces += [chunk(kind, body)] * last + [more]
        pieces.append(chunk(each, content))
        if each == b"IHDR" and not last:
            pieces.append(chunk(kind, body))
    return b"".join(pieces)


def text_of(png: bytes) -> bytes:
    return next(body for kind, body in chunks(png) if kind == b"iTXt").removeprefix(b"tipsseg\0\0\0\0\0")


def mask_that_says(text: bytes) -> bytes:
    return with_text(b"iTXt", b"tipsseg\0\0\0\0\0" + text)


def mask_with_bulk(name: bytes, data: bytes) -> bytes:
    return with_text(b"iTXt", b"tipsseg\0\0\0\0\0" + text_of(MASK), more=chunk(b"tpSg", name + b"\0" + data))


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
IDS = st.integers(0, 65_535)


@given(
    facts=st.builds(
        MaskFacts,
        image=NAME,
        formerly=st.lists(NAME, max_size=3).map(tuple),
        by=st.sampled_from(["model", "person"]),
        source=st.sampled_from(["", "coco"]),
        saved=st.sampled_from(["", "2025-05-01T10:00:00+00:00"]),
        accepted=st.booleans(),
        question=st.just("c" * 32),
        given=st.sampled_from(["", "d" * 32]),
        names=st.dictionaries(IDS, NAME, max_size=5),
        picture=st.builds(PictureFacts, bytes=st.integers(0, 1 << 40), sha256=st.sampled_from(["", "a" * 64])),
        labels=st.just(label_digest(LABELS)),
        confidence=st.dictionaries(IDS, st.floats(0, 1), max_size=5),
        present=st.none() | st.lists(IDS, max_size=5).map(tuple),
    ),
    bulk=st.dictionaries(st.sampled_from(["scores", "objects", "model"]), st.binary(max_size=99)),
)
def test_what_is_sealed_is_read_back(facts: MaskFacts, bulk: dict[str, bytes]) -> None:
    mask = seal(PNG, facts, bulk)
    found = read_sealed(mask)
    assert found.facts == replace(facts, data=found.data)
    assert found.intact
    assert {name: found.unpack(name, 99) for name in found.bulk} == bulk
    assert seal(mask, facts, bulk) == mask == seal(seal(PNG, FACTS, {"other": b"x"}), facts, bulk)
    known = open_envelope(envelope(mask))
    assert (known.facts, {name: known.unpack(name, 99) for name in known.bulk}) == (found.facts, bulk)
    assert read_facts(facts.record()) == facts


@pytest.mark.parametrize("count", [1, 300, 13_000])
def test_the_text_is_short_however_many_classes_occur(count: int) -> None:
    names = {number: f"класс {number} 🌲" for number in range(1, count + 1)}
    facts = replace(FACTS, names=names, confidence=dict.fromkeys(names, 0.123456), present=tuple(names))
    mask = seal(PNG, facts)
    assert len(text_of(mask)) <= LIMIT
    assert read_sealed(mask).facts == replace(facts, data=read_sealed(mask).data)
    assert ("facts" in read_sealed(mask).bulk) == (count > 200)
    assert json.loads(text_of(mask))["question"] == FACTS.question  # what is short is there in any case


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("kind", "pack"),
    [
        (b"iTXt", lambda text: b"\0\0en\0a title\0" + text),
        (b"iTXt", lambda text: b"\1\0\0\0" + zlib.compress(text)),
        (b"zTXt", lambda text: b"\0" + zlib.compress(text)),
        (b"tEXt", lambda text: text),
    ],
    ids=["iTXt", "compressed iTXt", "zTXt", "tEXt"],
)
def test_facts_are_read_however_a_program_writes_the_text(kind: bytes, pack: object, last: bool) -> None:
    assert callable(pack)
    assert read_sealed(with_text(kind, b"tipsseg\0" + pack(text_of(MASK)), last=last)).facts == read_sealed(MASK).facts
    assert read_sealed(with_text(kind, b"tipssegs\0" + pack(text_of(MASK)), last=last)).facts is None


def test_a_mask_that_pillow_saves_with_its_text_keeps_its_facts() -> None:
    """In a chunk of another kind, and the pixels compressed otherwise: they are no longer those of the seal for certain."""
    info, saved = PngImagePlugin.PngInfo(), BytesIO()
    with Image.open(BytesIO(MASK)) as picture:
        assert isinstance(picture, PngImagePlugin.PngImageFile)
        info.add_text("tipsseg", picture.text["tipsseg"], zip=True)
        picture.save(saved, format="PNG", pnginfo=info)
    found = read_sealed(saved.getvalue())
    assert found.facts == read_sealed(MASK).facts
    assert found.bulk == {}
    with Image.open(BytesIO(MASK)) as picture:
        picture.save(saved := BytesIO(), format="PNG")
    assert read_sealed(saved.getvalue()).facts is None


def test_a_changed_pixel_is_noticed_and_moved_chunks_are_not() -> None:
    assert read_sealed(MASK).intact
    other = LABELS.copy()
    other[0, 0] = 2
    (pixels,) = (body for kind, body in chunks(encode_mask(other, CLASSES)) if kind == b"IDAT")
    pieces = [chunk(kind, pixels if kind == b"IDAT" else body) for kind, body in chunks(MASK)]
    changed = read_sealed(SIGNATURE + b"".join(pieces))
    assert (changed.facts, changed.intact) == (read_sealed(MASK).facts, False)
    assert not read_sealed(PNG).intact
    split = [
        b"".join(chunk(kind, part) for part in ((body[:5], body[5:]) if kind == b"IDAT" else (body,)))
        for kind, body in chunks(MASK)
    ]
    assert read_sealed(SIGNATURE + b"".join(split)).intact
    last = with_text(b"tEXt", b"tipsseg\0" + text_of(MASK), last=True)
    assert read_sealed(last).intact


def test_labels_have_one_digest_whatever_their_dtype() -> None:
    ids = LABELS.astype(np.uint16)
    others: list[LabelArray] = [ids, ids.T, ids + np.uint16(1), ids + np.uint16(256), ids[:0]]
    assert label_digest(LABELS) == label_digest(ids) == label_digest(ids.T.copy().T)
    assert len({label_digest(each) for each in others}) == 5


# ---- damage ----


def test_a_truncated_mask_is_an_error() -> None:
    for length in range(len(MASK)):
        with pytest.raises(ValueError, match=r"in the middle|not a PNG"):
            read_sealed(MASK[:length])
    assert read_sealed(MASK + b"more").facts == read_sealed(MASK).facts


def test_a_wrong_checksum_is_an_error() -> None:
    for at in range(len(SIGNATURE), len(MASK)):
        damaged = bytearray(MASK)
        damaged[at] ^= 1
        with pytest.raises(ValueError, match=r"checksum|in the middle"):
            read_sealed(bytes(damaged))


@given(st.binary(max_size=300), st.integers(0, len(MASK)), st.integers(0, 40))
def test_random_bytes_are_an_error_or_a_mask_without_facts(noise: bytes, at: int, length: int) -> None:
    for data in (noise, SIGNATURE + noise, MASK[:at] + noise + MASK[at + length :]):
        with suppress(ValueError):
            assert read_sealed(data).facts in (None, read_sealed(MASK).facts)
        open_envelope(data)
        assert open_envelope(noise).facts is None


@settings(max_examples=300)
@given(st.binary(max_size=60) | NAME.map(str.encode), st.sampled_from([b"iTXt", b"zTXt", b"tEXt"]))
def test_random_texts_are_no_facts(text: bytes, kind: bytes) -> None:
    for body in (text, b"\0" + text, b"\0\0\0\0" + text, b"\1\0\0\0" + text, b"\1\0\0\0" + zlib.compress(text)[:-3]):
        assert read_sealed(with_text(kind, b"tipsseg\0" + body)).facts is None


RECORD = json.loads(text_of(MASK))
WRONG: dict[str, Sequence[object]] = {
    "no object": [[], 1, "text", None, [["v", 1]]],
    "v": [0, 2, True, "1", None],
    "image": [1, None, ["a"], "\ud800"],
    "formerly": ["a", [1]],
    "by": ["both", 1, None, ["model"]],
    "from": [1],
    "accepted": [1, "true"],
    "question": [1],
    "names": [[], {"a": "b"}, {"1": 2}, {"1": None}, {"9" * 5000: "a"}],
    "picture": [[], {}, {"bytes": "1"}, {"bytes": 1, "pixels": 2}],
    "labels": [None, 3],
    "confidence": [{"1": "a"}, {"1": True}, {"1": [0.5]}, {"1": float("nan")}, {"1": float("inf")}, {"": 1}],
    "present": [1, ["1"], [1.5], [None]],
}


@pytest.mark.parametrize("key", WRONG)
def test_facts_of_another_shape_are_none(key: str) -> None:
    for value in WRONG[key]:
        record = value if key == "no object" else {**RECORD, key: value}
        text = json.dumps(record).encode()
        assert read_sealed(mask_that_says(text)).facts is None, value
        assert read_sealed(mask_with_bulk(b"facts", zlib.compress(text))).facts is None, value
    assert read_sealed(mask_that_says(json.dumps({**RECORD, "new": {}}).encode())).facts == read_sealed(MASK).facts


@pytest.mark.parametrize(
    ("opening", "end"), [(b"[", b"]"), (b'{"a":', b"}"), (b'{"v":1,"image":[', b"]}"), (b"[{", b"}]")]
)
def test_deeply_nested_facts_are_none(opening: bytes, end: bytes) -> None:
    """At each depth near the limit of the parser too, where the value can be read and is too deep for a message."""
    whole = json.dumps(RECORD).encode()
    for depth in (*range(1, 1000, 7), 1_000_000):
        nested = opening * depth + b"1" * opening.endswith(b":") + end * depth
        for text in (nested, opening * depth, whole.replace(b'"tree"', b"[" * depth + b"]" * depth)):
            assert read_sealed(mask_that_says(text)).facts is None
            packed = zlib.compress(text, 1)
            assert read_sealed(mask_with_bulk(b"facts", packed)).facts in (None, read_sealed(MASK).facts)


def test_bombs_take_little_memory() -> None:
    zeros, lists = zlib.compress(bytes(1 << 30)), zlib.compress(b"[" + b"[]," * (1 << 24) + b"1]")
    bombs = [
        *(with_text(b"zTXt", b"tipsseg\0\0" + bomb) for bomb in (zeros, lists)),
        *(with_text(b"iTXt", b"tipsseg\0\1\0\0\0" + bomb) for bomb in (zeros, lists)),
        *(mask_with_bulk(name, bomb) for name in (b"facts", b"scores", b"objects") for bomb in (zeros, lists)),
    ]
    tracemalloc.start()
    for bomb in bombs:
        found = read_sealed(bomb)
        assert found.facts in (None, read_sealed(MASK).facts)
        assert found.unpack("scores", 1 << 20) is None
        assert found.objects(LABELS.shape) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


def test_facts_take_memory_as_their_size_allows() -> None:
    lists = b"[" + b"[]," * (1 << 21) + b"1]"
    tracemalloc.start()
    assert read_sealed(mask_with_bulk(b"facts", zlib.compress(lists, 1))).facts is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 512 << 20


def test_bulk_is_whole_or_none() -> None:
    found = read_sealed(MASK)
    for name, length in (("scores", 5), ("objects", 4 * LABELS.size)):
        assert found.unpack(name, length - 1) is None
        data = found.unpack(name, length)
        assert data is not None
        assert len(data) == length
    assert found.unpack("model", 1 << 20) is None
    objects = found.objects(LABELS.shape)
    assert objects is not None
    assert np.array_equal(objects, LABELS)
    assert objects.dtype == np.int32
    for size in ((1, 1), (LABELS.shape[0] + 1, LABELS.shape[1]), (LABELS.size, 2)):
        assert found.objects(size) is None
    packed, generator = zlib.compress(b"[0.5, 0.25]"), random.Random(3)
    for _ in range(200):
        cut = bytearray(packed[: generator.randrange(len(packed))])
        assert read_sealed(mask_with_bulk(b"scores", bytes(cut))).unpack("scores", 99) is None
        noise = generator.randbytes(generator.randrange(40))
        assert read_sealed(with_text(b"tEXt", b"a\0b", more=chunk(b"tpSg", noise))).facts is None


# ---- other programs ----


@pytest.fixture(scope="module")
def large() -> tuple[LabelArray, bytes]:
    """Labels, and their mask with many scores and a large model's mask inside."""
    rng = np.random.default_rng(5)
    labels: LabelArray = rng.integers(0, 3, (75, 100), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    noise: LabelArray = rng.integers(0, 3, (2000, 3000), np.uint8)
    inner = seal(encode_mask(noise, CLASSES), FACTS)
    names = {number: f"class {number}" for number in range(13_000)}
    scores = json.dumps(rng.random(13_000).tolist()).encode()
    facts = replace(FACTS, by="person", names=names, confidence=dict.fromkeys(names, 0.5))
    mask = seal(encode_mask(labels, CLASSES), facts, {"scores": scores, "model": inner})
    assert read_sealed(mask).unpack("model", 64 << 20) == inner
    assert len(mask) > 1 << 20
    return labels, mask


def test_pillow_reads_the_pixels(large: tuple[LabelArray, bytes]) -> None:
    with Image.open(BytesIO(large[1])) as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), large[0])


def test_opencv_reads_the_pixels(large: tuple[LabelArray, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(large[1])
    found = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert found is not None
    assert np.array_equal(found, large[0])
    decoded = cv2.imdecode(np.frombuffer(large[1], np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert np.array_equal(decoded, large[0])


def test_imageio_reads_the_pixels(large: tuple[LabelArray, bytes]) -> None:
    imageio = pytest.importorskip("imageio.v3")
    assert np.array_equal(imageio.imread(large[1], extension=".png"), large[0])


def test_torchvision_reads_the_pixels(large: tuple[LabelArray, bytes]) -> None:
    io, torch = pytest.importorskip("torchvision.io"), pytest.importorskip("torch")
    data = torch.frombuffer(bytearray(large[1]), dtype=torch.uint8)
    assert np.array_equal(io.decode_png(data)[0].numpy(), large[0])
