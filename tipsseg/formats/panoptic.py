"""COCO panoptic: one RGB PNG per image, whose colours are segment ids, and panoptic.json, which describes the segments.

A segment is an object. Its id, R + 256 G + 65536 B, counts from 1 in each image. Id 0 ("void") marks pixels outside all objects:
background, ignored pixels and objects below the minimum area. What its parts
leave of a whole is one segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from PIL import Image

from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts, base_of, output_name
from tipsseg.formats.coco import (
    annotation_record,
    category_record,
    encode_head,
    group_by_image,
    image_lines,
    image_record,
    is_panoptic,
    read_categories,
)
from tipsseg.formats.png import encode_picture, read_panoptic_ids
from tipsseg.formats.records import ClassNames, Objects, Size, SourceImage, check_object_count, image_errors
from tipsseg.formats.source import Source
from tipsseg.regions.components import components
from tipsseg.regions.objects import LabelledObject, number_pixels, visible_objects
from tipsseg.regions.shapes import Shape
from tipsseg.types import LabelArray, printable_path
from tipsseg.util.json import encode_section, json_bytes, prepend, short, take


class Panoptic(Format):
    name = "panoptic"
    description = "COCO panoptic: panoptic/<image>.png and panoptic.json"
    folder = "panoptic"
    files = ("panoptic.json",)
    needs = frozenset({"objects"})
    divides = True

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        segments = visible_objects(image.objects, run.classes, image.size)
        ids = number_pixels(enumerate((entry.region for entry in segments), start=1), image.size)
        colours = ids.astype("<u4").view(np.uint8).reshape(*image.size, 4)[..., :3]  # [H, W, 3]
        return encode_picture(Image.fromarray(colours))

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        """Return the `images` entry and the `annotations` entry, without the image id."""
        visible = visible_objects(image.objects, run.classes, image.size)
        segments = [{"id": number, **annotation_record(entry)} for number, entry in enumerate(visible, start=1)]
        file_name = f"{printable_path(output_name(image.ref.relative, run.files.names))}.png"
        record = image_record(image.ref, image.size, image.base)
        return json_bytes(record), json_bytes({"file_name": file_name, "segments_info": segments})

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        # With one segment per class, classes are stuff, not countable things.
        thing = run.files.instances != "class"
        categories = (
            {
                **category_record(each),
                "isthing": int(thing if each.thing is None else each.thing),
                "color": list(each.colour),
            }
            for each in run.classes
        )
        yield from encode_head(run, "segment", categories)
        yield from encode_section(b"images", image_lines(images, rows))
        annotations = (
            prepend(b'"image_id": %d' % number, rows(image)[1]) for number, image in enumerate(images, start=1)
        )
        yield from encode_section(b"annotations", annotations)
        yield b"\n}\n"

    detect_json = staticmethod(is_panoptic)

    def read(self, source: Source, names: ClassNames) -> Iterator[SourceImage]:
        for name in source.find_suffix(".json"):
            value = source.json(name)
            if is_panoptic(value):
                yield from _read_images(source, name, value, names)

    def reread_shapes(self, objects: Iterable[LabelledObject], size: tuple[int, int]) -> list[Shape]:
        return [entry.region.shape() for entry in objects]


def _read_images(source: Source, name: str, value: Mapping[str, Any], names: ClassNames) -> Iterator[SourceImage]:
    where = source.display_path(name)
    with image_errors(where):
        categories = read_categories(value, names)
        for image, annotations in group_by_image(value):
            file_name = image["file_name"]
            if len(annotations) > 1:
                raise ValueError(f"{short(file_name)} has {len(annotations)} entries in `annotations`, not one")
            if not annotations:  # Datumaro leaves out images without objects
                yield SourceImage(file_name, where, lambda _: Objects((), Panoptic.name), submitted=False)
                continue
            picture = take(annotations[0], "file_name", str)
            places = (PurePosixPath(name).with_suffix("") / picture, PurePosixPath(name).parent / picture)
            found = [place for place in map(str, places) if source.has(place)] or source.find_name(picture)
            if not found:
                raise ValueError(f"{short(picture)} is missing: pass a folder or zip with this file and its pictures")
            read = partial(_read_segments, source, found[0], annotations[0], categories, names, where, base_of(image))
            yield SourceImage(file_name, source.display_path(found[0]), read, submitted=False)


def _read_segments(
    source: Source,
    picture: str,
    annotation: object,
    categories: Mapping[int, str],
    names: ClassNames,
    where: Path,
    base: str,
    size: Size,
) -> Objects:
    with source.file(picture) as path:
        ids = read_panoptic_ids(path, size)
    stored, numbers = np.unique(ids, return_inverse=True)
    with image_errors(where, f"the segments of {short(picture)}"):
        segments = take(annotation, "segments_info", list)
        check_object_count(segments)
        classes = {take(each, "id", int): take(each, "category_id", int) for each in segments}
        if unknown := [number for number in stored.tolist() if number and number not in classes]:
            raise ValueError(f"the id {unknown[0]} of the picture is missing")
        if missing := [number for number in classes.values() if number not in categories]:
            raise ValueError(f"no category has the id {missing[0]}")
        table = np.array([names.id_of(categories[classes[each]]) if each else 0 for each in stored.tolist()], np.uint16)
    instances = numbers.reshape(size).astype(np.int32) + 1
    regions = components(cast(LabelArray, table[instances - 1]), int(table.max(initial=0)), 1, instances)
    return Objects(tuple(region.shape() for region in regions), Panoptic.name, base=base)
