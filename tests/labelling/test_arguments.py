"""What is wrong in the library's arguments is a TipssegError that says so, and names no option of the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipsseg
from tipsseg import ClassSpec, Labeller, LabelOptions, Model, TipssegError, load, make_vocabulary

#: Whatever a caller may pass, typed or not.
loose: Any = tipsseg


@pytest.fixture(scope="module")
def model(mlp_checkpoint: Path) -> Model:
    return load(mlp_checkpoint, device="cpu")


# name: (call with a model, what the message begins with)
WRONG: dict[str, tuple[Callable[[Model], object], str]] = {
    "model, number": (lambda _: loose.load(14), "the model must be an id or a folder, not 14"),
    "device, absent": (lambda _: load("tiny", device="mps"), "device 'mps' is not available"),
    "batch size, none": (
        lambda _: load("tiny", batch_size=0),
        "`batch_size`=0 is too small; the minimum is 1",
    ),
    "labeller, name of a model": (
        lambda _: loose.Labeller("tiny", ["a"]),
        "the model must be the result of tipsseg.load, not 'tiny'",
    ),
    "labeller, dict of options": (
        lambda model: loose.Labeller(model, ["a"], {"mode": "whole"}),
        "options must be LabelOptions, not {'mode': 'whole'}",
    ),
    "labeller, small side": (
        lambda model: Labeller(model, ["a"], LabelOptions(short_side=3)),
        "short side 3 is smaller than",
    ),
    "features, of another side": (
        lambda model: Labeller(model, ["a"]).label(model.encode(np.zeros((60, 90, 3), np.uint8), short_side=70)),
        "the image was encoded at 70 x 105 (height x width) pixels in windows, but this labeller expects 56 x 84",
    ),
    "features, of another mode": (
        lambda model: Labeller(model, ["a"]).label(model.encode(np.zeros((60, 60, 3), np.uint8), mode="whole")),
        "the image was encoded at 56 x 56 (height x width) pixels in one piece, but this labeller expects 56 x 56 "
        "(height x width) pixels in windows",
    ),
    "features, of another model": (
        lambda model: Labeller(model, ["a"]).label(load("tiny", device="cpu").encode(np.zeros((60, 60, 3), np.uint8))),
        "the features have 192 dimensions, but this model has 64",
    ),
    "image, floats": (
        lambda model: loose.Labeller(model, ["a"]).label(np.zeros((5, 5, 3))),
        "an image array must be uint8, [H, W, 3] or [3, H, W] RGB, [H, W, 4] or [4, H, W] RGBA, or [H, W] grey, got [5, 5, 3]",
    ),
    "classes, surrogate": (lambda _: make_vocabulary(["\udcff"]), "the name of class 1 is not UTF-8 text: '\\udcff'"),
    "errors, unknown": (
        lambda model: loose.Labeller(model, ["a"]).label_many([], errors="skip"),
        "unknown value of `errors` 'skip'",
    ),
    "templates, too many": (
        lambda _: make_vocabulary(["a"], "auto", ["{}"] * 1001),
        "1001 templates; the limit is 1000",
    ),
    "classes, number": (
        lambda _: loose.make_vocabulary(5),
        "classes must be a list of names (ids follow its order), not 5",
    ),
    "entry, supercategory": (
        lambda _: make_vocabulary([ClassSpec("tree", supercategory="\x1bx")]),
        "the supercategory of 'tree' contains the control character \\u001b",
    ),
    "classes, a dict of texts": (
        lambda _: loose.make_vocabulary({"tree": "oak"}),
        "synonyms of 'tree' must be a list of strings, not 'oak'",
    ),
    "entry, negative": (
        lambda _: make_vocabulary(["a", loose.ClassSpec("tree", negative="yes")]),
        "`negative` of 'tree' must be true or false, not 'yes'",
    ),
    "background, none": (
        lambda _: loose.make_vocabulary(["a"], None),
        "background must be 'auto', 'none' or a list, not None",
    ),
    "templates, none": (
        lambda _: loose.make_vocabulary(["a"], "auto", None),
        "templates must be a list of strings, not None",
    ),
    "vocabulary, number": (
        lambda _: loose.read_vocabulary(5),
        "a vocabulary must be a preset name or a path, not 5",
    ),
    "short side, text": (
        lambda _: loose.LabelOptions(short_side="448"),
        "`short_side` must be a whole number, not '448'",
    ),
    "confidence, text": (
        lambda _: loose.LabelOptions(min_confidence="1"),
        "`min_confidence` must be a number, not '1'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, begin = WRONG[case]
    with pytest.raises(TipssegError) as caught:
        call(model)
    error = caught.value
    assert error.message.startswith(begin)
    assert "--" not in error.message + error.hint
    assert " -c " not in error.hint


def test_names_alone_are_a_vocabulary(model: Model) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (70, 60, 3), np.uint8)
    plain = Labeller(model, ["panda leg", ClassSpec("tree", ("oak",))])
    made = Labeller(model, make_vocabulary(["panda leg", ClassSpec("tree", ("oak",))]))
    assert plain.vocabulary == made.vocabulary
    assert (plain.label(pixels).labels == made.label(pixels).labels).all()


def test_a_path_is_a_folder_whatever_its_name(
    mlp_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").symlink_to(mlp_checkpoint)
    assert load(Path("tiny"), device="cpu").backbone.native_size == 56
    assert load("tiny", device="cpu").backbone.native_size == 224
