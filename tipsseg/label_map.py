"""LabelMap: the labels of one image, and the masks, pictures and objects that are made from them without the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tipsseg.errors import InputError, UsageError
from tipsseg.options import FileOptions, Instances, MinArea, PngMode, check_whole_number
from tipsseg.types import ConfidenceArray, LabelArray, LabelClass, TopClasses, ignore_id
from tipsseg.util.printable import quoted

if TYPE_CHECKING:
    from PIL import Image

    from tipsseg.images.decoding import ImageInput
    from tipsseg.regions.objects import LabelledObject


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """The labels of one image.

    Attributes:
        labels: [H, W] uint8 (uint16 above 254 classes): 0 background, 1..N the classes, `ignore` below the minimum confidence.
        confidence: [H, W] float32 in [0, 1] (float16 above 64 million pixels): the probability of the label that won, which is
            softmax(score / temperature) over the classes and the background; the score of a class is that of its best phrase. For
            refined labels it is the refined probability.
        classes: The N classes, by id.
        top: The best classes of each patch. None: they were not asked for.
    """

    labels: LabelArray
    confidence: ConfidenceArray
    classes: tuple[LabelClass, ...]
    top: TopClasses | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.labels.shape
        return height, width

    @property
    def ignore(self) -> int:
        """The id of pixels whose confidence was too low: 255, or 65535 in 16-bit maps."""
        return ignore_id(len(self.classes))

    def regions(self, *, instances: Instances = "component", min_area: int = 1) -> list[LabelledObject]:
        """Find the objects that the labels show.

        Args:
            instances: "component": each 8-connected region of a class is an object; "class": all pixels of a class are one object.
            min_area: Smaller objects are left out, in pixels.

        Returns:
            The objects, by class, then from top to bottom, then from left to right. Each has its `region` (class_id, area in
            pixels, box (y, x, h, w), mask [h, w] within the box), its `score` (the mean confidence) and its `outline` (polygons).
        """
        from tipsseg.regions.objects import labelled_objects

        options = FileOptions(instances=instances, min_area=MinArea(min_area))
        return labelled_objects(self.labels, self.confidence, len(self.classes), options)

    def save_mask(self, path: str | Path, *, mode: PngMode = "L") -> None:
        """Write the labels as an index mask: a PNG whose pixel values are the label ids. The file appears whole or not at all.

        Args:
            path: The file, named "*.png"; its folder is made where it is absent.
            mode: "L": grey, 16-bit above 254 classes; "P": 8-bit with a palette of the classes' colours.

        Raises:
            OutputError: The file cannot be written.
            UsageError: The mode is unknown, or the file's name says that it is of another format.
        """
        from tipsseg.formats.png import encode_mask
        from tipsseg.util.files import atomic_write

        if Path(path).suffix.lower() != ".png":
            raise UsageError(f"a mask is a PNG, and {path} is named otherwise", "Give a path that ends with .png.")
        atomic_write(Path(path), encode_mask(self.labels, self.classes, FileOptions(png_mode=mode).png_mode))

    def overlay(self, image: ImageInput, *, title: str = "") -> Image.Image:
        """Draw the labels as colours on the image, outlined, with names and a legend.

        Args:
            image: The image that was labelled: a path, a Pillow image, or pixels [H, W, 3] uint8 RGB.
            title: Text above the legend, such as the name of the image.

        Returns:
            The picture, in mode RGB. Small images are enlarged; images with a side above 4096 pixels are scaled down.

        Raises:
            ImageError: The file cannot be read.
            InputError: The image has a wrong shape or dtype, or another size than the labels.
        """
        from PIL import Image

        from tipsseg.images.decoding import to_upright
        from tipsseg.images.upright import thumbnail_rgb
        from tipsseg.regions.drawing import draw_labels

        upright = to_upright(image)
        height, width = self.size
        if upright.size != (width, height):
            raise InputError(
                f"the image is {upright.height} x {upright.width} (height x width) pixels, and its labels are {height} x {width}",
                "Give the image that was labelled.",
            )
        return Image.fromarray(draw_labels(thumbnail_rgb(upright), self.labels, self.classes, title))

    def to_coco(
        self, image_id: int, *, first_id: int = 1, instances: Instances = "component", min_area: int = 1
    ) -> list[dict[str, object]]:
        """Make the entries of `annotations` in a COCO file for this image, with masks as compressed run-length codes.

        Args:
            image_id: The id of the image in the file.
            first_id: The id of the first annotation; the others follow.
            instances: See `regions`.
            min_area: See `regions`, in pixels.

        Returns:
            The entries, ready for JSON: id, image_id, category_id (the id of the class), segmentation, area in pixels,
            bbox [x, y, w, h], iscrowd, score.

        Raises:
            UsageError: `image_id` is no whole number from 0 on, or `first_id` none from 1 on.
        """
        from tipsseg.formats.coco import annotation_record, codes

        if type(image_id) is not int or image_id < 0:
            raise UsageError(f"argument `image_id` must be a whole number from 0 on, not {quoted(image_id)}")
        check_whole_number("argument `first_id`", first_id)
        objects = self.regions(instances=instances, min_area=min_area)
        return [
            {"id": first_id + place, "image_id": image_id, **annotation_record(each, code)}
            for place, (each, code) in enumerate(zip(objects, codes(objects, self.size), strict=True))
        ]
