"""Notes about the images of a run: printed once, at the right time, and only if there is something to note."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from entries import entry_of
from saying import Said

from tipsseg.engine.notes import ImageNotes, example_hashes
from tipsseg.run.results import Derived, Labelled
from tipsseg.types import ImageRef
from tipsseg.util.files import Fingerprint
from tipsseg.weights.sources import find_model

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
EXAMPLE = sorted(example_hashes())[0]


def said(model: str, images: Sequence[tuple[str | None, bool]]) -> list[str]:
    """The notes on images of these hashes, which are squeezed or not; "|" stands where the images end."""
    progress = Said()
    notes = ImageNotes(find_model(model).facts(), progress)
    for number, (sha256, squeezed) in enumerate(images):
        ref = ImageRef(Path(f"in/{number}.png"), PurePosixPath(f"{number}.png"))
        entry = replace(entry_of(ref.name, {}), input=Fingerprint(1, 1, sha256))
        notes.add(Labelled(ref, entry, (), Derived(), ("squeezed",) if squeezed else ()))
    progress.note("|")
    notes.end()
    return progress.lines


TINY = "The model tiny knows only synthetic scenes"


@pytest.mark.parametrize(
    ("model", "images", "lines"),
    {
        "the examples": ("tiny", [(EXAMPLE, False)] * 3, ["|"]),
        "a photograph": ("tiny", [("0" * 64, False)] * 3, [TINY, "|"]),
        "a photograph after an example": ("tiny", [(EXAMPLE, False), ("0" * 64, False)], [TINY, "|"]),
        "too large for a hash": ("tiny", [(None, False)], [TINY, "|"]),
        "another model": ("l14", [("0" * 64, False)], ["|"]),
        "a copy of tiny": (str(SCENES.parents[1] / "tipsseg/assets/tiny"), [("0" * 64, False)], [TINY, "|"]),
        "one strip": ("l14", [(None, False), (None, True)], ["|", "1.png: more than 16 times"]),
        "strips": (
            "l14",
            [(None, True), (None, False), (None, True), (None, True)],
            ["|", "0.png and 2 more images: more"],
        ),
    }.values(),
)
def test_notes_warn_of_pictures_unlike_the_drawn_scenes(
    model: str, images: Sequence[tuple[str | None, bool]], lines: list[str]
) -> None:
    found = said(model, images)
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))


def test_the_examples_are_those_of_the_repository() -> None:
    files = [path for path in SCENES.rglob("*") if path.is_file()]
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == example_hashes()
