"""What the labels of all images of a folder hold together: for run.json, and for a person at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tipsseg.types import LabelClass
from tipsseg.util.json_values import take
from tipsseg.util.printable import counted, one_line

#: How many classes a line names, and how many letters of each.
_NAMED = 8
_LETTERS = 40


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """How many images show a class, and how many of all their pixels."""

    id: int
    name: str
    images: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What all images hold.

    images   how many there are
    pixels   of all of them
    classes  all, by id
    """

    images: int
    pixels: int
    background: int
    ignored: int
    classes: tuple[ClassTotal, ...]

    def record(self) -> dict[str, object]:
        """As run.json has it; a share is of the pixels of all images."""
        return {
            "images": self.images,
            "pixels": self.pixels,
            "background": self.background,
            "ignored": self.ignored,
            "classes": [
                {
                    "id": each.id,
                    "name": each.name,
                    "images": each.images,
                    "pixels": each.pixels,
                    "share": round(each.pixels / max(self.pixels, 1), 6),
                }
                for each in self.classes
            ],
        }

    def lines(self) -> Iterator[str]:
        """A line on the classes that were found, the largest first, and one on those that never were."""
        if not self.images:
            return
        found = sorted((each for each in self.classes if each.images), key=lambda each: -each.pixels)  # stable
        if found:
            of_all = _listed([self._of_class(each) for each in found])
            yield f"Found in {counted(self.images, 'image')}, by area: {of_all}."
        if never := [_short(each) for each in self.classes if not each.images]:
            yield f"Never found: {_listed(never)}."

    def _of_class(self, entry: ClassTotal) -> str:
        share = entry.pixels / self.pixels
        percent = f"{100 * share:.1f}%" if share >= 0.001 else "<0.1%"
        return f"{_short(entry)} {percent} (in {entry.images})"


def total(summaries: Iterable[Mapping[str, object]], classes: Sequence[LabelClass]) -> Totals:
    """What images hold together whose `summary.label_summary` these are; those that are none are passed over.

    Memory goes with the classes and not with the images.
    """
    images = pixels = background = ignored = 0
    of_class = [[0, 0] for _ in classes]
    for summary in summaries:
        try:
            size = take(summary, "height", int) * take(summary, "width", int)
            own = [(take(each, "id", int), take(each, "pixels", int)) for each in take(summary, "classes", list)]
            nothing = take(take(summary, "background", dict), "pixels", int)
            unsure = take(summary, "ignored", int)
        except ValueError:
            continue
        images, pixels, background, ignored = images + 1, pixels + size, background + nothing, ignored + unsure
        for label_id, number in own:
            if 1 <= label_id <= len(classes) and number > 0:
                of_class[label_id - 1][0] += 1
                of_class[label_id - 1][1] += number
    counts = zip(classes, of_class, strict=True)
    return Totals(
        images, pixels, background, ignored, tuple(ClassTotal(each.id, each.name, *own) for each, own in counts)
    )


def _short(entry: ClassTotal) -> str:
    name = one_line(entry.name) or f"class {entry.id}"
    name = name if len(name) <= _LETTERS else name[: _LETTERS - 3] + "..."
    return f'"{name}"' if "," in name else name


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
