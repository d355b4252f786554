"""Define LabelMap: the labels of one image, with its masks, objects and pictures. None of them needs the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypedDict

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from tipsseg.errors import InputError, TipssegError, UsageError, Words
from tipsseg.formats.coco import annotation_records, encode_masks
from tipsseg.formats.png import encode_mask, encode_picture
from tipsseg.images.decoding import ImageInput, ImageReader
from tipsseg.images.upright import thumbnail_rgb
from tipsseg.options import MAX_PIXELS, Instances, MinArea, parse_min_area
from tipsseg.options.fields import check_whole_number
from tipsseg.options.records import FileOptions
from tipsseg.regions.drawing import colour_labels, draw_labels
from tipsseg.regions.objects import LabelledObject, class_mask, count_pixels, labelled_objects
from tipsseg.types import ConfidenceArray, LabelArray, LabelClass, Remark, TopClasses, ignore_id
from tipsseg.util.files import atomic_write
from tipsseg.util.text import join_first, quote
from tipsseg.vocabulary.vocabulary import Present

if TYPE_CHECKING:
    from supervision import Detections

#: Pillow's options for `save_overlay`, by suffix. JPEG uses full colour resolution, because half would blur outlines and text.
_PICTURES: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 92, "subsampling": 0},
    ".webp": {"format": "WEBP", "quality": 92},
}

#: Longest side of the picture in a notebook, in pixels.
_NOTEBOOK_SIDE = 1024

#: The number of classes that `repr` lists.
_MOST_NAMES = 6


class LabelledMask(TypedDict):
    """One segment, as returned by Hugging Face's image-segmentation pipeline."""

    label: str
    score: float
    mask: Image.Image


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Labels of one image. `np.asarray(result)` returns them as an array.

    Attributes:
        labels: [H, W] uint8 (uint16 with more than 254 classes): 0 background, 1..N the classes, `ignore` below the minimum
            confidence. A pixel of a part has the id of the part.
        confidence: [H, W] float32 in [0, 1] (float16 with more than 64 million pixels): the probability of the label, which is
            softmax(score / temperature) over the classes and the background; a class has the score of its best phrase. For
            refined labels it is p^3 / (p^3 + (1 - p)^3) of the refined probability p. For a part it is w * s^2 / (s^2 + (1 - s)^2),
            with the confidence w of its whole and s of the part in it.
        classes: The N classes, by id.
        top: The best classes of each patch. None unless they were requested.
        image: The path or picture that was labelled, never a decoded copy. None if it was labelled from features.
        whole_confidences: For parts, the confidence [H, W] of their outermost whole, then of its part that they are in, and so on;
            elsewhere the label's. Empty if no pixel is of a part.
        present: What was said of the classes in this image; None if nothing was.
        instances: [H, W] int32: 1, 2, ... for the objects of labels with regions, 0 elsewhere. None without regions.
        remarks: Remarks on the labels.
    """

    labels: LabelArray
    confidence: ConfidenceArray
    classes: tuple[LabelClass, ...]
    top: TopClasses | None = None
    image: ImageInput | None = field(default=None, kw_only=True)
    whole_confidences: tuple[ConfidenceArray, ...] = field(default=(), kw_only=True)
    present: Present | None = field(default=None, kw_only=True)
    instances: NDArray[np.int32] | None = field(default=None, kw_only=True)
    remarks: tuple[Remark, ...] = field(default=(), kw_only=True)

    def __repr__(self) -> str:
        height, width = self.shape
        pixels = count_pixels(self.labels, self.classes)
        present = [entry for entry in self.classes if pixels[entry.id]]
        shares = [f"{entry.name} {pixels[entry.id] / self.labels.size:.1%}" for entry in present]
        return f"LabelMap({height}x{width}, {join_first(shares, _MOST_NAMES) or 'background only'})"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.labels, dtype=dtype, copy=copy)

    def __dlpack__(self, **keywords: Any) -> Any:
        """Return the labels for other libraries: `torch.as_tensor(result)` is [H, W]."""
        return self.labels.__dlpack__(**keywords)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.labels.__dlpack_device__()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.labels.shape
        return height, width

    @property
    def names(self) -> dict[int, str]:
        """Class names by label id, 1..N. The background, 0, has no name."""
        return {entry.id: entry.name for entry in self.classes}

    @property
    def ignore(self) -> int:
        """Label id of pixels below the minimum confidence: 255, or 65535 in 16-bit maps."""
        return ignore_id(len(self.classes))

    def mask(self, name: str | SupportsIndex) -> NDArray[np.bool_]:
        """Return the pixels of a class, with the pixels of its parts.

        Args:
            name: The name of the class, or a label id; 0 is the background.

        Returns:
            [H, W] bool.

        Raises:
            UsageError: The labels have no such class.
        """
        ids: dict[object, int] = {number: number for number in (0, *self.names, self.ignore)}
        ids |= {entry.name: entry.id for entry in self.classes}
        if name not in ids:
            known = join_first(list(self.names.values()), _MOST_NAMES)
            hint = f"The classes are {known}." if isinstance(name, str) else f"The ids are 0 to {len(self.classes)}."
            raise UsageError(f"the labels have no class {quote(name)}", hint)
        return class_mask(self.labels, self.classes, ids[name])

    @cached_property
    def objects(self) -> tuple[Segment, ...]:
        """The objects in the image: one for each connected region of a class. See `find_objects`."""
        return self.find_objects()

    def find_objects(
        self, *, instances: Instances = "component", min_area: int | str | MinArea = 1
    ) -> tuple[Segment, ...]:
        """Find the objects in the labels.

        Args:
            instances: "component": each 8-connected region of a class is an object, and with regions each of `instances`.
                "class": all pixels of a class form one object. The object of a whole has the pixels of its parts.
            min_area: Minimum area of an object, in pixels or as a percentage of the image, for example "0.1%".

        Returns:
            The objects, by class, then from top to bottom, then from left to right. Parts follow their whole.
        """
        return tuple(
            Segment(self.names[entry.region.class_id], self.shape, entry) for entry in self._find(instances, min_area)
        )

    def _find(self, instances: Instances, min_area: int | str | MinArea) -> list[LabelledObject]:
        return find_objects(self, FileOptions(instances=instances, min_area=parse_min_area(min_area)))

    def save_mask(self, path: str | Path) -> None:
        """Write the labels as an index mask: a grey PNG whose pixel values are the label ids. The file is written atomically.

        Args:
            path: The file, "*.png", 16-bit with more than 254 classes. Missing folders are created.

        Raises:
            OutputError: The file cannot be written.
            UsageError: The suffix is not .png.
        """
        if Path(path).suffix.lower() != ".png":
            raise UsageError(f"a mask is a PNG file, not {path}", "Use a path that ends with .png.")
        atomic_write(Path(path), encode_mask(self.labels, self.classes))

    def overlay(self, image: ImageInput | None = None, *, title: str = "") -> Image.Image:
        """Draw the labels on the image: colours, outlines, class names and a legend.

        Args:
            image: The image that was labelled. None: the path or picture that was passed to the labeller.
            title: Text above the legend, for example the name of the image.

        Returns:
            The picture, in mode RGB. Small images are enlarged; images with a side above 4096 pixels are scaled down.

        Raises:
            ImageError: The file cannot be read.
            InputError: The image has the wrong shape or dtype, or its size differs from the labels'.
            UsageError: The image was labelled from features, and `image` is None.
        """
        image = self.image if image is None else image
        if image is None:
            raise UsageError("labels from features have no image to draw on", "Pass the image: overlay(image).")
        upright = ImageReader(max(MAX_PIXELS, self.labels.size)).upright(image)
        height, width = self.shape
        if upright.size != (width, height):
            raise InputError(
                f"the image is {upright.height} x {upright.width} (height x width) pixels, but its labels are {height} x {width}",
                "Pass the image that was labelled.",
            )
        return Image.fromarray(draw_labels(thumbnail_rgb(upright), self.labels, self.classes, title))

    def save_overlay(self, path: str | Path, image: ImageInput | None = None, *, title: str = "") -> None:
        """Write the picture that `overlay` draws. The file is written atomically.

        Args:
            path: The file: .png, .jpg or .webp. Missing folders are created.
            image: See `overlay`.
            title: See `overlay`.

        Raises:
            OutputError: The file cannot be written.
            UsageError: The suffix is unknown.
            TipssegError: See `overlay`.
        """
        options = _PICTURES.get(Path(path).suffix.lower())
        if options is None:
            raise UsageError(f"cannot save an overlay as {path}", f"Use one of {', '.join(_PICTURES)}.")
        atomic_write(Path(path), encode_picture(self.overlay(image, title=title), **options))

    def _repr_png_(self) -> bytes:
        """Return the overlay for a notebook, or the labels in colours if the image is not available."""
        try:
            picture = self.overlay()
        except TipssegError:
            picture = Image.fromarray(colour_labels(self.labels, self.classes))
        picture.thumbnail((_NOTEBOOK_SIDE, _NOTEBOOK_SIDE))
        return encode_picture(picture)

    def to_coco(
        self, image_id: int, *, first_id: int = 1, instances: Instances = "component", min_area: int | str | MinArea = 1
    ) -> list[dict[str, object]]:
        """Return this image's `annotations` for a COCO file, with masks as compressed run-length codes.

        Args:
            image_id: The id of the image in the file.
            first_id: The id of the first annotation; the others follow.
            instances: See `find_objects`.
            min_area: See `find_objects`.

        Returns:
            JSON-serialisable dicts: id, image_id, category_id (the id of the class), segmentation, area in pixels,
            bbox [x, y, w, h], iscrowd, score; for a part also part_of, the id of the annotation of its whole.

        Raises:
            UsageError: `image_id` is not an integer >= 0, or `first_id` is not an integer >= 1.
        """
        image_id = check_whole_number(Words("{image_id}"), image_id, least=0)
        first_id = check_whole_number(Words("{first_id}"), first_id)
        objects = self._find(instances, min_area)
        records = annotation_records(objects, encode_masks(objects, self.shape), self.classes, first_id)
        return [{"id": number, "image_id": image_id, **record} for number, record in enumerate(records, first_id)]

    def to_dicts(self, *, instances: Instances = "class", min_area: int | str | MinArea = 1) -> list[LabelledMask]:
        """Return the segments as Hugging Face's image-segmentation pipeline does.

        Args:
            instances: See `find_objects`. "class" is the pipeline's semantic segmentation.
            min_area: See `find_objects`.

        Returns:
            For each segment `label`, `score` (the mean confidence, 0..1) and `mask`, a Pillow image in mode L of 0 and 255.
        """
        found = self.find_objects(instances=instances, min_area=min_area)
        masks = [Image.fromarray(entry.mask.view(np.uint8) * np.uint8(255)) for entry in found]
        return [
            {"label": entry.name, "score": entry.score, "mask": mask} for entry, mask in zip(found, masks, strict=True)
        ]

    def to_supervision(self, *, instances: Instances = "component", min_area: int | str | MinArea = 1) -> Detections:
        """Return the objects as `supervision.Detections`, with the class names as `data["class_name"]`.

        Args:
            instances: See `find_objects`.
            min_area: See `find_objects`.

        Raises:
            UsageError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise UsageError("supervision is not installed", "Run: pip install supervision") from error
        objects = self.find_objects(instances=instances, min_area=min_area)
        if not objects:
            return Detections.empty()
        return Detections(
            xyxy=np.array([entry.xyxy for entry in objects], np.float32),  # [N, 4]
            mask=np.stack([entry.mask for entry in objects]),  # [N, H, W]
            confidence=np.array([entry.score for entry in objects], np.float32),
            class_id=np.array([entry.class_id for entry in objects]),
            data={"class_name": np.array([entry.name for entry in objects])},
        )


def find_objects(label_map: LabelMap, options: FileOptions) -> list[LabelledObject]:
    """Find the objects in labels, scored by their mean confidence."""
    classes = label_map.classes
    confidences = (*label_map.whole_confidences, label_map.confidence)
    return labelled_objects(label_map.labels, confidences, classes, options, label_map.instances)


class Segment:
    """One object in an image.

    Attributes:
        name: The name of its class.
    """

    def __init__(self, name: str, shape: tuple[int, int], found: LabelledObject) -> None:
        self.name = name
        self._shape = shape
        self._found = found

    def __repr__(self) -> str:
        facts = f"class_id={self.class_id}, score={self.score}, area={self.area}, xyxy={self.xyxy}"
        return f"Segment({self.name!r}, {facts})"

    @property
    def class_id(self) -> int:
        """The label id of its class, 1..N."""
        return self._found.region.class_id

    @property
    def score(self) -> float:
        """The mean confidence of its pixels, 0..1, to four decimals."""
        return self._found.score

    @property
    def area(self) -> int:
        """The number of its pixels."""
        return self._found.region.area

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """The bounding box (left, top, right, bottom) in pixels. Right and bottom are exclusive."""
        y, x, height, width = self._found.region.box
        return x, y, x + width, y + height

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Its mask in the image, [H, W] bool. A new array on every access."""
        pixels = np.zeros(self._shape, np.bool_)
        left, top, right, bottom = self.xyxy
        pixels[top:bottom, left:right] = self._found.region.mask
        return pixels

    @property
    def polygons(self) -> list[NDArray[np.float64]]:
        """A ring [K, 2] of (x, y) in pixels for each connected part; holes are joined to the ring by a cut."""
        return [ring[:, ::-1] for ring in self._found.outline.rings]
