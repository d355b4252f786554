"""Scenes drawn ahead into memory-mapped files, and the batches that training takes from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scenes import draw_scene
from tqdm import tqdm
from views import ahead
from world import ABSENT_WORDS, CONCEPTS, LEAF_LIST, WHOLES, ancestors, leaf_ids

from tipsseg.background import GENERAL_BACKGROUND
from tipsseg.templates import PROTOCOL_TEMPLATES

STORED_SHORT, STORED_LONG = 336, 480
WINDOW = 224
#: Truth is compared on a grid of this side over a window: every fourth pixel.
SAMPLES = 56
ABSENT_PER_BATCH = 12


@dataclass(frozen=True, slots=True, eq=False)
class SceneStore:
    """Scenes of one size; a portrait scene is stored on its side.

    images [N, 336, 480, 3] uint8, truths [N, 336, 480] uint8, portrait [N] bool, captions: (short, long) of each scene.
    """

    images: NDArray[np.uint8]
    truths: NDArray[np.uint8]
    portrait: NDArray[np.bool_]
    captions: list[tuple[str, str]]


def open_store(folder: Path, count: int, first_seed: int) -> SceneStore:
    """The scenes of seeds first_seed .. first_seed + count - 1; drawn on first use, kept in `folder`."""
    shape = (count, STORED_SHORT, STORED_LONG)
    name = f"{first_seed}-{count}"
    meta = folder / f"{name}.json"
    if not meta.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for kind, extra in (("images", (3,)), ("truths", ())):
            np.lib.format.open_memmap(folder / f"{name}.{kind}.npy", "w+", np.uint8, shape + extra).flush()
        chunks = [range(start, min(start + 100, count)) for start in range(0, count, 100)]
        records: list[tuple[bool, str, str]] = []
        with ProcessPoolExecutor(2) as pool:
            jobs = [pool.submit(_draw_chunk, folder / name, chunk, first_seed) for chunk in chunks]
            for job in tqdm(jobs, desc="drawing", unit_scale=100, unit="scene"):
                records += job.result()
        meta.write_text(json.dumps(records))
    records = json.loads(meta.read_text())
    return SceneStore(
        np.load(folder / f"{name}.images.npy", mmap_mode="r"),
        np.load(folder / f"{name}.truths.npy", mmap_mode="r"),
        np.array([record[0] for record in records]),
        [(record[1], record[2]) for record in records],
    )


def _draw_chunk(base: Path, chunk: range, first_seed: int) -> list[tuple[bool, str, str]]:
    cv2.setNumThreads(1)
    images = np.load(f"{base}.images.npy", mmap_mode="r+")
    truths = np.load(f"{base}.truths.npy", mmap_mode="r+")
    records = []
    for index in chunk:
        seed = first_seed + index
        rng = np.random.default_rng([seed, 1])
        portrait = bool(rng.random() < 0.25)
        size = (STORED_LONG, STORED_SHORT) if portrait else (STORED_SHORT, STORED_LONG)
        scene = draw_scene(seed, *size)
        images[index] = scene.image.transpose(1, 0, 2) if portrait else scene.image
        truths[index] = scene.truth.T if portrait else scene.truth
        records.append((portrait, *_captions(rng, tuple(thing.name for thing in scene.things), scene.place)))
    return records


def _captions(rng: np.random.Generator, things: tuple[str, ...], place: str) -> tuple[str, str]:
    """A short, careless caption, and a longer one that names all things."""
    here = {"meadow": "on the grass", "beach": "at the beach", "lake": "by a lake", "street": "on a street"}
    where = {**here, "desert": "in the sand", "sea": "at sea"}[place]
    names = [f"a {thing}" for thing in dict.fromkeys(things)] or ["nothing"]
    short = f"{names[rng.integers(len(names))]} {where}"
    return short, f"a picture of {', '.join(names[:-1])}{' and ' if len(names) > 1 else ''}{names[-1]} {where}"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one training step needs.

    pixels    [B, 224, 224, 3] uint8
    phrases   the P texts of this step, filled into templates
    listed    [B, P] bool: the phrases that compete in this image
    positive  [B, P, 27] bool: for each leaf id, the listed phrases that are right; where nothing is right or wrong, all are
    truth     [B, 56, 56] uint8 leaf ids
    captions  2 B texts: the short ones, then the long ones
    """

    pixels: NDArray[np.uint8]
    phrases: list[str]
    listed: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    truth: NDArray[np.uint8]
    captions: list[str]


class PhraseTable:
    """The phrases of one step: all concepts in one wording each, the background words, and some absent words."""

    def __init__(self, rng: np.random.Generator) -> None:
        words = [c.name if rng.random() < 0.5 else c.wordings[rng.integers(len(c.wordings))] for c in CONCEPTS]
        absent = [ABSENT_WORDS[k] for k in rng.choice(len(ABSENT_WORDS), ABSENT_PER_BATCH, replace=False)]
        self.words = [*words, *GENERAL_BACKGROUND, *absent]
        self.phrases = [
            PROTOCOL_TEMPLATES[rng.integers(len(PROTOCOL_TEMPLATES))].format(word) if rng.random() < 0.75 else word
            for word in self.words
        ]
        concepts = len(CONCEPTS)
        self.concepts = np.arange(concepts)
        self.background = np.arange(concepts, concepts + len(GENERAL_BACKGROUND))
        self.absent = np.arange(concepts + len(GENERAL_BACKGROUND), len(self.words))
        meaning = {wording: c.name for c in CONCEPTS for wording in c.wordings}
        names = [c.name for c in CONCEPTS] + [meaning.get(word) for word in GENERAL_BACKGROUND] + [None] * len(absent)
        #: [P, 27] bool: which leaves a phrase covers
        self.covers = np.zeros((len(names), len(LEAF_LIST) + 1), bool)
        self.depth = np.zeros(len(names), int)
        for index, name in enumerate(names):
            if name is not None:
                self.covers[index, list(leaf_ids(name))] = True
                self.depth[index] = 3 if name in LEAF_LIST else len(ancestors(name)) + 1

    def positives(self, foreground: NDArray[np.int64], background: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[27, P] bool: the right answers for each leaf, given what competes.

        The most specific of the asked phrases wins; else background words of that meaning; else the background words that
        mean nothing in this world.
        """
        right = np.zeros((self.covers.shape[1], len(self.words)), bool)
        neutral = background[~self.covers[background].any(1)]
        for leaf in range(1, right.shape[0]):
            asked = foreground[self.covers[foreground, leaf]]
            if asked.size:
                right[leaf, asked[self.depth[asked] == self.depth[asked].max()]] = True
            else:
                meant = background[self.covers[background, leaf]]
                right[leaf, meant if meant.size else neutral] = True
        return right


def _draw_list(
    rng: np.random.Generator, table: PhraseTable, present: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What somebody might ask of one image: phrases, and the background words that compete with them."""
    nothing = np.zeros(0, np.int64)
    kind = rng.random()
    if kind < 0.1:
        return table.concepts, nothing
    if kind < 0.45:
        whole = {w.name for w in WHOLES if rng.random() < 0.5}
        kept = [
            index
            for index, concept in enumerate(CONCEPTS)
            if not whole.intersection(ancestors(concept.name)) and (concept.name in LEAF_LIST or concept.name in whole)
        ]
        return np.array(kept), nothing
    visible = np.flatnonzero(table.covers[table.concepts][:, present].any(1))
    asked = set(rng.choice(visible, size=min(int(rng.integers(0, 4)), visible.size), replace=False).tolist())
    asked |= set(rng.choice(table.concepts, size=rng.integers(0 if asked else 1, 4), replace=False).tolist())
    absent = rng.choice(table.absent, size=rng.integers(0, 3), replace=False)
    words = {table.words[index] for index in asked}
    background = np.array([index for index in table.background if table.words[index] not in words])
    if rng.random() < 0.3:
        background = background[rng.random(background.size) < 0.7]
    return np.concatenate([np.array(sorted(asked)), absent]), background


def make_batch(store: SceneStore, seed: tuple[int, int], size: int) -> Batch:
    """A batch that depends on nothing but the store and the seed."""
    rng = np.random.default_rng(seed)
    table = PhraseTable(rng)
    pixels = np.empty((size, WINDOW, WINDOW, 3), np.uint8)
    truth = np.empty((size, SAMPLES, SAMPLES), np.uint8)
    listed = np.zeros((size, len(table.words)), bool)
    positive = np.zeros((size, len(table.words), table.covers.shape[1]), bool)
    scenes = rng.integers(0, len(store.captions), size)
    for row, scene in enumerate(scenes):
        pixels[row], truth[row] = _crop(rng, store, int(scene))
        foreground, background = _draw_list(rng, table, np.unique(truth[row]))
        listed[row, foreground] = listed[row, background] = True
        right = table.positives(foreground, background)
        right[~right.any(1)] = listed[row]
        positive[row] = right.T
    captions = [store.captions[scene][kind] for kind in (0, 1) for scene in scenes]
    return Batch(pixels, table.phrases, listed, positive, truth, captions)


def _crop(rng: np.random.Generator, store: SceneStore, scene: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A window of the scene, most often at its full short side, sometimes closer; mirrored half of the time."""
    image, truth = store.images[scene], store.truths[scene]
    side = STORED_SHORT if rng.random() < 0.7 else int(rng.integers(WINDOW * 3 // 4, STORED_SHORT))
    top, left = rng.integers(0, STORED_SHORT - side + 1), rng.integers(0, STORED_LONG - side + 1)
    image, truth = image[top : top + side, left : left + side], truth[top : top + side, left : left + side]
    if store.portrait[scene]:
        image, truth = image.transpose(1, 0, 2), truth.T
    if rng.random() < 0.5:
        image, truth = image[:, ::-1], truth[:, ::-1]
    method = cv2.INTER_AREA if side > WINDOW else cv2.INTER_CUBIC
    window = cv2.resize(np.ascontiguousarray(image), (WINDOW, WINDOW), interpolation=method)
    gamma, gain = rng.uniform(0.8, 1.25), rng.uniform(0.85, 1.15)
    curve = np.clip(255 * gain * (np.arange(256) / 255) ** gamma, 0, 255).astype(np.uint8)
    at = ((np.arange(SAMPLES) + 0.5) * side / SAMPLES).astype(int)
    return curve[window], truth[np.ix_(at, at)]


def batches(store: SceneStore, run_seed: int, first: int, last: int, size: int) -> Iterator[Batch]:
    """The batches of steps first .. last - 1, made ahead in threads, in order."""
    return ahead(lambda step: make_batch(store, (run_seed, step), size), first, last)
