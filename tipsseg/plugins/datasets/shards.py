"""Data sets that training libraries load: shards with images, masks and objects, in Parquet or tar files.

    README.md                     a card, with the classes
    data/train-00000.parquet      for Hugging Face datasets, DuckDB, Polars, or data/train-00000.tar for WebDataset

They are written from an output folder into another place (see `write`); other formats are files of the folder itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, ClassVar

from tipsseg.errors import UsageError
from tipsseg.types import LabelClass, ignore_id
from tipsseg.util.json import json_bytes

#: Rows of Parquet that are written together, at most this many and about this many bytes: readers load as much at a time.
_GROUP_ROWS, _GROUP_BYTES = 100, 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """An image of a data set with its labels.

    Attributes:
        key: The name of the image in its run, without the suffix.
        suffix: The suffix of the picture, such as ".jpg".
        picture: The bytes of its file, or a PNG if loaders would not read that as tipsseg did.
        encoded: True if the picture is not the bytes of its file.
        mask: The index mask as PNG.
        facts: The other columns; `objects` are COCO annotations, with RLE masks and without ids.
    """

    key: str
    suffix: str
    picture: bytes
    encoded: bool
    mask: bytes
    facts: Mapping[str, Any]

    @property
    def size(self) -> int:
        """The bytes of the picture and the mask."""
        return len(self.picture) + len(self.mask)


def cut(samples: Iterator[Sample], size: int, count: int = sys.maxsize) -> Iterator[Iterator[Sample]]:
    """Cut samples into groups of at most `count` and `size` bytes, or of one sample. Consume each group before the next one."""
    following = next(samples, None)

    def group() -> Iterator[Sample]:
        nonlocal following
        number, left = 0, size
        while following is not None and (not number or (number < count and following.size <= left)):
            number, left = number + 1, left - following.size
            yield following
            following = next(samples, None)

    while following is not None:
        yield group()


class Dataset:
    """A format of shards.

    Attributes:
        name: The name that users pass.
        suffix: The suffix of a shard.
        package: The module that writes it.
        fields: The names of the class and the mask of an object.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    package: ClassVar[str]
    fields: ClassVar[tuple[str, str]]

    def check(self) -> None:
        """Raise UsageError if the package is missing."""
        try:
            import_module(self.package)
        except ImportError as error:
            what = f"the format {self.name} requires {self.package.partition('.')[0]}"
            raise UsageError(what, f"Install it: pip install 'tipsseg[{self.name}]'") from error

    def write(self, file: BinaryIO, samples: Iterator[Sample], classes: Sequence[LabelClass]) -> None:
        """Write a shard."""
        raise NotImplementedError


class Parquet(Dataset):
    """Rows with the features of Hugging Face `datasets`, whose `Image` is a struct of bytes and path."""

    name = "parquet"
    suffix = ".parquet"
    package = "pyarrow.parquet"
    fields = ("category", "rle")

    def write(self, file: BinaryIO, samples: Iterator[Sample], classes: Sequence[LabelClass]) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        features = _features(classes)
        metadata = {"huggingface": json_bytes({"info": {"features": features}})}
        schema = pa.schema([(name, _arrow(feature)) for name, feature in features.items()], metadata=metadata)
        with ParquetWriter(file, schema) as writer:
            for group in cut(samples, _GROUP_BYTES, _GROUP_ROWS):
                writer.write_table(pa.Table.from_pylist(list(map(_row, group)), schema))


def _row(sample: Sample) -> dict[str, object]:
    picture = {"bytes": sample.picture, "path": sample.key + sample.suffix}
    mask = {"bytes": sample.mask, "path": f"{sample.key}.png"}
    objects = [
        {**each, "category": each["category_id"], "rle": each["segmentation"]["counts"]}
        for each in sample.facts["objects"]
    ]  # pyarrow takes the fields of the schema
    return {**sample.facts, "image": picture, "mask": mask, "objects": objects}


def _features(classes: Sequence[LabelClass]) -> dict[str, Any]:
    """Return the columns as features of `datasets`."""
    image = {"_type": "Image"}
    text, truth, small, large, real = (
        {"dtype": dtype, "_type": "Value"} for dtype in ("string", "bool", "int32", "int64", "float64")
    )
    category = {"names": ["background", *(entry.name for entry in classes)], "_type": "ClassLabel"}
    fields = {"category": category, "bbox": [small], "area": large, "score": real, "rle": text, "part_of": small}
    facts = {"file_name": text, "height": small, "width": small, "names": [text], "corrected": truth}
    return {"image": image, "mask": image, **facts, "objects": [fields]}


def _arrow(feature: Any) -> Any:
    """Return the Arrow type of a feature."""
    import pyarrow as pa

    if isinstance(feature, list):
        return pa.list_(_arrow(feature[0]))
    if "_type" not in feature:
        return pa.struct([(name, _arrow(each)) for name, each in feature.items()])
    if feature["_type"] == "Image":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.type_for_alias(feature.get("dtype", "int64"))


class WebDataset(Dataset):
    """Tar files with three members for an image: the picture, <key>.mask.png, and <key>.json with the facts and the objects."""

    name = "webdataset"
    suffix = ".tar"
    package = "webdataset"
    fields = ("category_id", "segmentation")

    def write(self, file: BinaryIO, samples: Iterator[Sample], classes: Sequence[LabelClass]) -> None:
        from webdataset import TarWriter

        # Without time and owner: the same labels give the same bytes.
        facts = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "format": "PAX_FORMAT"}
        with TarWriter(file, encoder=False, **facts) as writer:
            for sample in samples:
                # WebDataset ends a key at the first dot of the last part.
                key = sample.key.replace("%", "%25").replace(".", "%2E")
                members = {sample.suffix[1:]: sample.picture, "mask.png": sample.mask, "json": json_bytes(sample.facts)}
                writer.write({"__key__": key, **members})


DATASETS: Mapping[str, Dataset] = {form.name: form for form in (Parquet(), WebDataset())}


def card(
    form: Dataset,
    title: str,
    splits: Iterable[str],
    state: str,
    run: Mapping[str, object],
    classes: Sequence[LabelClass],
) -> str:
    """Return the card of a data set in Markdown, with the metadata that the Hugging Face hub and `load_dataset` read.

    Args:
        form: The format.
        title: The name of the data set.
        splits: The names of its splits.
        state: A digest of the samples: `datasets` caches a data set by its card, not by its content.
        run: The facts of the run (see `RunFacts.info`).
        classes: The classes.
    """
    names = {0: "", **{entry.id: entry.name.replace("|", "\\|") for entry in classes}}
    return _CARD.format(
        files="".join(f"  - split: {split}\n    path: data/{split}-*{form.suffix}\n" for split in splits),
        state=state,
        title=title,
        run=run,
        ignore=ignore_id(len(classes)),
        rows="".join(f"| {entry.id} | {names[entry.id]} | {names[entry.part_of]} |\n" for entry in classes),
        fields=form.fields,
    )


#: The card. Its head is for the Hugging Face hub and `load_dataset`.
_CARD = """\
---
configs:
- config_name: default
  description: samples {state}
  data_files:
{files}task_categories:
- image-segmentation
tags:
- tipsseg
---
# {title}

Labels by tipsseg {run[version]} with the model {run[model]}. The images keep the licence of their source: state it here.

The pixels of `mask` are ids: 0 background, {ignore} ignored, and

| id | class | part of |
|---|---|---|
{rows}
`objects` lists the objects of an image: the id of the class as `{fields[0]}`, `bbox` (x, y, width and height in pixels), `area` in
pixels, the mean confidence as `score`, the mask of height x width as compressed COCO run lengths in `{fields[1]}`, and
`part_of`, the position of its whole in the list, from 0. `corrected` is true if a person corrected the labels.

Made by: `{run[command]}`
"""
