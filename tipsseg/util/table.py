"""Tables of text for a terminal."""

from __future__ import annotations

import io
from collections.abc import Container, Iterable, Sequence
from itertools import accumulate
from typing import Literal

from tipsseg.util.printable import one_line

#: Columns of numbers are so wide at least; longer cells than the second are cut.
_NARROWEST, _WIDEST = 9, 40


def text_table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Container[int] = (0,)) -> str:
    """Lay out rows under their heads; the columns in `left` are aligned to the left, the others to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2))
    for number, head in enumerate(heads):
        justify: Literal["left", "right"] = "left" if number in left else "right"
        width = None if number in left else _NARROWEST
        table.add_column(head, justify=justify, no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*(_cut(one_line(text)) for text in row))
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None, markup=False, emoji=False, highlight=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _cut(text: str) -> str:
    """Return text of as many columns as a cell has; versions of rich cut accents in different ways."""
    from rich.cells import cell_len

    if cell_len(text) <= _WIDEST:
        return text
    return text[: sum(end < _WIDEST for end in accumulate(map(cell_len, text)))] + "…"
