"""Read images in Parquet files."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from io import BytesIO
from itertools import accumulate
from pathlib import Path, PurePath
from typing import Any

from tipsseg.images.containers import Container, Member, number_of, size_fault
from tipsseg.options.values import Every
from tipsseg.util.text import first_line

#: Row groups in memory per file.
_GROUPS = 2

#: The preferred name of the column.
_COLUMN = "image"


class ParquetTable(Container):
    """The images of a Parquet file. They are named by their row, from 0: 000012, with the suffix of the row's `path` if it has one.

    Memory holds two row groups of the image column.
    """

    has_files = False

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise OSError("Parquet requires pyarrow: pip install 'tipsseg[parquet]'") from error
        self._errors = (ArrowException, OSError, ValueError)
        try:
            self._file: Any = ParquetFile(path)
        except self._errors as error:
            raise OSError(f"not a readable Parquet file ({first_line(error)})") from error
        weakref.finalize(self, self._file.close)
        self._column, self._path = _image_column(self._file.schema_arrow)
        groups = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
        self._starts = [0, *accumulate(groups)]
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, Any] = OrderedDict()

    def members(self, every: Every | None) -> Iterator[Member]:
        for group, start in enumerate(self._starts[:-1]):
            count = self._starts[group + 1] - start
            paths: list[Any] = [None] * count
            if self._path:
                with self._lock:
                    paths = self._read(group, self._path).combine_chunks().field(0).to_pylist()
            for row, path in enumerate(paths, start):
                suffix = PurePath(path).suffix.lower() if isinstance(path, str) else ""
                yield Member(f"{row:06d}{suffix if suffix.isascii() and len(suffix) <= 6 else ''}")

    def size(self, name: str) -> None:
        self._row(name)

    def open(self, name: str) -> BytesIO:
        row = self._row(name)
        group = bisect_right(self._starts, row) - 1
        with self._lock:
            column = self._groups.get(group)
            if column is None:
                column = self._groups[group] = self._read(group, self._column)
                if len(self._groups) > _GROUPS:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(group)
            value = column[row - self._starts[group]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            named = isinstance(value, dict) and value.get("path")
            raise OSError("this row has only the path of an image, which is not read" if named else "this row is empty")
        if fault := size_fault(len(data)):
            raise OSError(fault)
        return BytesIO(data)

    def _row(self, name: str) -> int:
        row = number_of(PurePath(name).stem)
        if row >= self._starts[-1]:
            raise FileNotFoundError("no such row")
        return row

    def _read(self, group: int, column: str) -> Any:
        try:
            return self._file.read_row_group(group, columns=[column]).column(0)
        except self._errors as error:
            raise OSError(f"broken Parquet file ({first_line(error)})") from error


def _image_column(schema: Any) -> tuple[str, str]:
    """Return the name of the image column, and of its column of paths or "". Raise OSError if no column fits, or several do."""
    import pyarrow

    def is_bytes(kind: Any) -> bool:
        return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)

    found = {}
    for field in schema:
        inner = {part.name: part.type for part in field.type} if pyarrow.types.is_struct(field.type) else {}
        if is_bytes(field.type):
            found[field.name] = ""
        elif "bytes" in inner and is_bytes(inner["bytes"]):
            found[field.name] = f"{field.name}.path" if "path" in inner else ""
    name = _COLUMN if _COLUMN in found else next(iter(found), None)
    if name is None:
        raise OSError("no column of images, which has bytes, or structs with `bytes`")
    if name != _COLUMN and len(found) > 1:
        raise OSError(f"several columns of bytes ({', '.join(found)}); rename the column of the images to `{_COLUMN}`")
    return name, found[name]
