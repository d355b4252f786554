"""Format tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Container, Iterable, Sequence
from itertools import accumulate
from typing import Literal

from tipsseg.util.printable import one_line

#: The minimum width of a column of numbers, and the maximum width of a cell.
_MIN_WIDTH, _MAX_WIDTH = 9, 40


def text_table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Container[int] = (0,)) -> str:
    """Return a table as text. The columns in `left` are left-aligned, all others right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2))
    for number, head in enumerate(heads):
        justify: Literal["left", "right"] = "left" if number in left else "right"
        width = None if number in left else _MIN_WIDTH
        table.add_column(head, justify=justify, no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*(_cut(one_line(text)) for text in row))
    text = io.StringIO()
    Console(file=text, width=1000, color_system=None, markup=False, emoji=False, highlight=False).print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _cut(text: str) -> str:
    """Cut text to the maximum width of a cell. Versions of rich differ in how they cut accents."""
    from rich.cells import cell_len

    if cell_len(text) <= _MAX_WIDTH:
        return text
    return text[: sum(end < _MAX_WIDTH for end in accumulate(map(cell_len, text)))] + "…"
