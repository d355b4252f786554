"""Data sets that training libraries load: shards with images, masks and objects, in Parquet or tar files.

    README.md                     a card, with the classes
    tipsseg.json                  the shards, each with the number of its images, its size and sha256
    data/train-00000.parquet      for Hugging Face datasets, DuckDB, Polars, or data/train-00000.tar for WebDataset

They are written from an output folder into another place (see `commands.dataset`); other formats are files of the folder itself.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tipsseg.errors import UsageError
from tipsseg.types import LabelClass, ignore_id
from tipsseg.util.json import json_bytes

#: The list of the shards, the card, and the folder of the shards.
INDEX, CARD, DATA_FOLDER = "tipsseg.json", "README.md", "data"

#: Rows of Parquet that are written together, at most this many and about this many bytes: readers load as much at a time.
_GROUP_ROWS, _GROUP_BYTES = 100, 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """An image of a data set with its labels.

    Attributes:
        name: The name of the image in its run.
        key: The name without the suffix.
        path: The address of the image, if the sample has no picture.
        picture: The bytes of its file, or a PNG if loaders would not read that as tipsseg did; None if only its path is stored.
        suffix: The suffix of the picture, such as ".jpg".
        mask: The index mask as PNG.
        size: (height, width) in pixels.
        names: The names of the classes in the image.
        objects: Its objects as COCO annotations, with RLE masks and without ids.
        corrected: True if the labels are a person's.
        encoded: True if the picture is not the bytes of its file.
    """

    name: str
    key: str
    path: str
    picture: bytes | None
    suffix: str
    mask: bytes
    size: tuple[int, int]
    names: tuple[str, ...]
    objects: Sequence[Mapping[str, Any]]
    corrected: bool
    encoded: bool

    def record(self) -> dict[str, object]:
        """Return the facts beside the picture and the mask."""
        height, width = self.size
        return {
            "file_name": self.name, "height": height, "width": width, "names": list(self.names), "corrected": self.corrected,
            "objects": list(self.objects),
        }  # fmt: skip


class Dataset:
    """A format of shards.

    Attributes:
        name: The name that users pass.
        suffix: The suffix of a shard.
        stores_paths: True if a sample may have the path of its picture in place of the bytes.
        fields: The names of the class and the mask of an object.
        example: Python that loads the data set from the folder {place}, for the card.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    stores_paths: ClassVar[bool] = False
    fields: ClassVar[tuple[str, str]]
    example: ClassVar[str]

    def check(self) -> None:
        """Raise UsageError if a package is missing."""

    def write(self, path: Path, samples: Iterable[Sample], classes: Sequence[LabelClass]) -> None:
        """Write a shard. Raise OSError if that fails."""
        raise NotImplementedError


class Parquet(Dataset):
    """Rows with the features of Hugging Face `datasets`, whose `Image` is a struct of bytes and path."""

    name = "parquet"
    suffix = ".parquet"
    stores_paths = True
    fields = ("category", "rle")
    example = 'from datasets import load_dataset\n\ndata = load_dataset("{place}", split="train")'

    def check(self) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UsageError("the format parquet requires pyarrow", "Install it: pip install pyarrow") from error

    def write(self, path: Path, samples: Iterable[Sample], classes: Sequence[LabelClass]) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        schema = _schema(classes)
        # pyarrow would take some paths for URLs.
        with path.open("wb") as file, ParquetWriter(file, schema) as writer:
            for rows in _groups(samples):
                writer.write_table(pa.Table.from_pylist(rows, schema))


def _groups(samples: Iterable[Sample]) -> Iterator[list[dict[str, object]]]:
    rows, size = list[dict[str, object]](), 0
    for sample in samples:
        rows.append(_row(sample))
        size += len(sample.picture or b"") + len(sample.mask)
        if len(rows) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _row(sample: Sample) -> dict[str, object]:
    path = sample.path if sample.picture is None else sample.key + sample.suffix
    objects = [
        {
            "category": each["category_id"],
            "bbox": each["bbox"],
            "area": each["area"],
            "score": each["score"],
            "rle": each["segmentation"]["counts"],
            "part_of": each.get("part_of"),
        }
        for each in sample.objects
    ]
    return {
        **sample.record(),
        "image": {"bytes": sample.picture, "path": path},
        "mask": {"bytes": sample.mask, "path": f"{sample.key}.png"},
        "objects": objects,
    }


def _schema(classes: Sequence[LabelClass]) -> Any:
    """Return the Arrow schema, with the features of `datasets` as metadata."""
    import pyarrow as pa

    names = ["background", *(entry.name for entry in classes)]
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {
        "category": (pa.int64(), {"names": names, "_type": "ClassLabel"}),
        "bbox": (pa.list_(pa.int32()), [_value("int32")]),
        "area": (pa.int64(), _value("int64")),
        "score": (pa.float64(), _value("float64")),
        "rle": (pa.string(), _value("string")),
        "part_of": (pa.int32(), _value("int32")),
    }
    columns = {
        "image": (picture, {"_type": "Image"}),
        "mask": (picture, {"_type": "Image"}),
        "file_name": (pa.string(), _value("string")),
        "height": (pa.int32(), _value("int32")),
        "width": (pa.int32(), _value("int32")),
        "names": (pa.list_(pa.string()), [_value("string")]),
        "corrected": (pa.bool_(), _value("bool")),
        "objects": (
            pa.list_(pa.struct({name: kind for name, (kind, _) in kinds.items()})),
            [{name: feature for name, (_, feature) in kinds.items()}],
        ),
    }
    features = {name: feature for name, (_, feature) in columns.items()}
    metadata = {"huggingface": json_bytes({"info": {"features": features}})}
    return pa.schema([(name, kind) for name, (kind, _) in columns.items()], metadata=metadata)


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


class WebDataset(Dataset):
    """Tar files with three members for an image: the picture, <key>.mask.png, and <key>.json with the facts and the objects."""

    name = "webdataset"
    suffix = ".tar"
    fields = ("category_id", "segmentation")
    example = """\
import glob, io
import numpy as np, webdataset as wds
from PIL import Image

shards = sorted(glob.glob("{place}/data/train-*.tar"))
read_mask = wds.handle_extension("mask.png", lambda data: np.array(Image.open(io.BytesIO(data))))
data = wds.WebDataset(shards, shardshuffle=False).decode(read_mask, "pil")
for image, mask, facts in data.to_tuple("jpg;png;webp", "mask.png", "json"): ..."""

    def write(self, path: Path, samples: Iterable[Sample], classes: Sequence[LabelClass]) -> None:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for sample in samples:
                assert sample.picture is not None
                # WebDataset ends a key at the first dot of the last part.
                key = sample.key.replace("%", "%25").replace(".", "%2E")
                facts = json_bytes(sample.record())
                parts = {sample.suffix: sample.picture, ".mask.png": sample.mask, ".json": facts}
                for suffix, data in parts.items():
                    # Without time and owner: the same labels give the same bytes.
                    member = tarfile.TarInfo(key + suffix)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


DATASETS: Mapping[str, Dataset] = {form.name: form for form in (Parquet(), WebDataset())}


def card(
    form: Dataset,
    title: str,
    splits: Sequence[str],
    state: str,
    facts: Mapping[str, object],
    classes: Sequence[LabelClass],
) -> str:
    """Return the card of a data set in Markdown, with the metadata that the Hugging Face hub and `load_dataset` read.

    Args:
        form: The format.
        title: The name of the data set.
        splits: The names of its splits.
        state: A digest of the shards: `datasets` caches a data set by its card, not by its content.
        facts: The facts of the run (see `RunFacts.info`).
        classes: The classes.
    """
    files = "".join(f"  - split: {split}\n    path: data/{split}-*{form.suffix}\n" for split in splits)
    rows = "".join(
        f"| {entry.id} | {_cell(entry.name)} | {_cell(classes[entry.part_of - 1].name) if entry.part_of else ''} |\n"
        for entry in classes
    )
    return _CARD.format(
        files=files,
        state=state,
        title=title,
        version=facts["version"],
        model=facts["model"],
        example=form.example.format(place=title),
        ignore=ignore_id(len(classes)),
        rows=rows,
        command=facts["command"],
        category=form.fields[0],
        segmentation=form.fields[1],
    )


#: The digest of the shards in a card.
STATE = re.compile(rb"(?m)^(  description: shards )[0-9a-f]{8}(?=\r?$)")

#: The card. Its head is for the Hugging Face hub and `load_dataset`.
_CARD = """\
---
configs:
- config_name: default
  description: shards {state}
  data_files:
{files}task_categories:
- image-segmentation
tags:
- tipsseg
---
# {title}

Labels by tipsseg {version} with the model {model}. The images keep the licence of their source: state it here.

```python
{example}
```

The pixels of `mask` are ids: 0 background, {ignore} ignored, and

| id | class | part of |
|---|---|---|
{rows}
`objects` lists the objects of an image: the id of the class as `{category}`, `bbox` (x, y, width and height in pixels), `area` in
pixels, the mean confidence as `score`, the mask of height x width as compressed COCO run lengths in `{segmentation}`, and
`part_of`, the position of its whole in the list, from 0. `corrected` is true if a person corrected the labels.

Made by: `{command}`
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
