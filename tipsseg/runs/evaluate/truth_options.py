"""What is said of the names and ids of truth masks, and the layout that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tipsseg.errors import UsageError, VocabularyError
from tipsseg.evaluation.truth import Layout, get_layout, plain_ids, plain_layout
from tipsseg.runs.evaluate.predictions import in_other_order
from tipsseg.vocabulary.files import read_vocabulary


@dataclass(frozen=True, slots=True)
class TruthOptions:
    """What is said of truth masks; see the help of `tipsseg eval`.

    Attributes:
        name: The layout of a benchmark. None: a layout of one's own, by the other three.
        ignore_index: The id of pixels that do not count.
        reduce_zero_label: Whether 0 does not count, and 1..N are the classes.
        zero_based: Whether 0..N-1 are the classes, without background.
    """

    name: str | None = None
    ignore_index: int | None = None
    reduce_zero_label: bool = False
    zero_based: bool = False

    def benchmark(self) -> Layout:
        """The layout that was named. Raises UsageError."""
        layout = get_layout(self.name or "")
        if self.ignore_index is not None or self.reduce_zero_label or self.zero_based:
            raise UsageError(
                f"argument `layout`={self.name} says already what the ids of the truth mean",
                "Leave out argument `ignore_index`, argument `reduce_zero_label` and argument `zero_based`.",
            )
        return layout

    def preset(self) -> str:
        """The preset vocabulary of the layout that was named. Raises VocabularyError where none was."""
        preset = None if self.name is None else self.benchmark().vocabulary
        if preset is None:
            raise VocabularyError("no classes given", 'Name what to label, for example ["panda leg", "tree"].')
        return preset

    def layout(self, names: Sequence[str]) -> Layout:
        """The layout for a vocabulary of these classes. Raises UsageError."""
        if self.name is None:
            return plain_layout(plain_ids(len(names), self.ignore_index, self.reduce_zero_label, self.zero_based))
        layout = self.benchmark()
        hint = f"Leave out argument `classes` and argument `vocabulary` to take the preset {layout.vocabulary}."
        if len(names) != layout.classes:
            raise UsageError(
                f"the layout {self.name} has {layout.classes} classes, the vocabulary has {len(names)}", hint
            )
        if in_other_order(names, [entry.name for entry in read_vocabulary(self.name).classes]):
            raise UsageError(f"the vocabulary has the classes of {self.name} in another order", hint)
        return layout
