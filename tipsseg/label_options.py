"""How an image is labelled, beside the model and the vocabulary. Imports nothing that takes its time: `--help` needs this."""

from __future__ import annotations

from dataclasses import dataclass

from tipsseg.errors import UsageError
from tipsseg.printable import quoted

#: How an image can be shown to the model.
MODES = ("slide", "whole")

#: How edges can be refined.
REFINEMENTS = ("none", "pamr")

#: Images of more pixels are refused unless more are allowed: decoded, this many take 2 GB.
MAX_PIXELS = 500_000_000


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How an image is labelled, beside the model and the vocabulary.

    mode            "slide": overlapping windows of the model's native size; "whole": the image at once
    short_side      the image's shorter side is resized to this many pixels; None: the model's native size
    min_confidence  pixels whose confidence is below this get the ignore id; 0..1
    refine          "pamr": edges follow the colours of the image; "none": labels as the model gives them

    Raises UsageError for values that no model could use.
    """

    mode: str = "slide"
    short_side: int | None = None
    min_confidence: float = 0.0
    refine: str = "none"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"unknown mode {quoted(self.mode)}", f"Use one of {', '.join(MODES)}.")
        if self.refine not in REFINEMENTS:
            raise UsageError(f"unknown refinement {quoted(self.refine)}", f"Use one of {', '.join(REFINEMENTS)}.")
        if self.short_side is not None:
            if type(self.short_side) is not int:
                raise UsageError(f"short side must be a whole number of pixels, not {quoted(self.short_side)}")
            if self.short_side < 1:
                raise UsageError(f"short side {quoted(self.short_side)} is not positive")
        if isinstance(self.min_confidence, bool) or not isinstance(self.min_confidence, int | float):
            raise UsageError(f"minimum confidence must be a number, not {quoted(self.min_confidence)}")
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"minimum confidence {quoted(self.min_confidence)} is not between 0 and 1")
