"""Fits: what they learn, what they leave as it was, what they refuse, and their file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import Tensor

import tipsseg
from tinytips.data.scoring import FIRST_SEED, to_list
from tinytips.world.scenes import draw_scene
from tipsseg import Features, Labeller, LabelOptions, Model
from tipsseg.backbones.workers import limit_torch_threads
from tipsseg.errors import TipssegError, VocabularyError
from tipsseg.learn import FittedVocabulary
from tipsseg.learning import fit as choice
from tipsseg.learning.maths import MaskTensor, Prior, Window, cell_logits, draw_pieces, make_windows, solve
from tipsseg.learning.unlabelled import compare, find_examples, second_moment
from tipsseg.types import WindowPlan

NAMES = ("sky", "zoofle", "tree", "balloon")  # a zoofle is grass
THINGS = ("sky", "grass", "tree", "balloon")


@pytest.fixture(scope="module")
def pairs(tiny: Model) -> list[tuple[Features, MaskTensor]]:
    """Five scenes with grass, and masks of everything but balloons."""
    found: list[tuple[Features, MaskTensor]] = []
    for seed in range(FIRST_SEED + 6000, FIRST_SEED + 6100):
        scene = draw_scene(seed, 112, 112)
        mask = to_list(scene.truth, THINGS)
        if (mask == 2).mean() > 0.1 and len(found) < 5:
            found.append(
                (
                    tiny.encode(scene.image, short_side=112),
                    np.where((mask == 0) | (mask == 4), 255, mask).astype(np.uint8),
                )
            )
    return found


OPTIONS = LabelOptions(short_side=112)
VOCABULARY = tipsseg.make_vocabulary(NAMES, "none")


@pytest.fixture(scope="module")
def fitted(tiny: Model, pairs: list[tuple[Features, MaskTensor]]) -> FittedVocabulary:
    features, masks = zip(*pairs[:4], strict=True)
    return tipsseg.learn.fit(tiny, features, masks, VOCABULARY, OPTIONS)


def test_a_word_that_the_text_tower_does_not_know_is_learnt(
    tiny: Model, fitted: FittedVocabulary, pairs: list[tuple[Features, MaskTensor]]
) -> None:
    features, mask = pairs[4]
    grass = mask == 2
    recall = {
        name: (Labeller(tiny, vocabulary, OPTIONS).label(features).labels[grass] == 2).mean()
        for name, vocabulary in (("text", VOCABULARY), ("fit", fitted))
    }
    assert recall["text"] < 0.5
    assert recall["fit"] > 0.8
    assert fitted.scores[1].source == "masks"


def test_a_word_in_one_image_keeps_its_text(tiny: Model, pairs: list[tuple[Features, MaskTensor]]) -> None:
    features, masks = zip(*pairs[:2], strict=True)
    some = [masks[0], np.where(masks[1] == 2, 255, masks[1]).astype(np.uint8)]
    fitted = tipsseg.learn.fit(tiny, features, some, VOCABULARY, OPTIONS)
    assert (fitted.scores[1].images, fitted.scores[1].source != "masks") == (1, True)
    alone = tipsseg.learn.fit(tiny, features[:1], masks[:1], VOCABULARY, OPTIONS)
    assert (alone.scores[1].images, alone.scores[1].source) == (1, "text and masks")


def test_a_new_word_does_not_take_classes_that_the_masks_lack(
    tiny: Model, pairs: list[tuple[Features, MaskTensor]]
) -> None:
    """No mask shows a tree. The text finds trees in the images without masks."""
    features, masks = zip(*pairs[:3], strict=True)
    hidden = [np.where(mask == 3, 255, mask).astype(np.uint8) for mask in masks]
    recall = []
    for others in ((), [each for each, _ in pairs]):
        fitted = tipsseg.learn.fit(tiny, features, hidden, VOCABULARY, OPTIONS, unlabelled=others)
        assert fitted.scores[1].source == "masks"
        labeller = Labeller(tiny, fitted, OPTIONS)
        found = [(labeller.label(each).labels[mask == 3] == 3) for each, mask in pairs]
        recall.append(np.concatenate(found).mean())
    assert recall[1] > recall[0] + 0.1


def test_the_background_yields_to_a_word_for_one_of_its_phrases(
    tiny: Model, pairs: list[tuple[Features, MaskTensor]]
) -> None:
    """A zoofle is grass, which is a background phrase; no mask shows background."""
    features, masks = zip(*pairs[:4], strict=True)
    vocabulary = tipsseg.make_vocabulary(NAMES, ["grass"])
    fitted = tipsseg.learn.fit(tiny, features, masks, vocabulary, OPTIONS)
    assert [score.source for score in fitted.scores[:3:2]] == ["text and masks", "masks"]
    text = Labeller(tiny, vocabulary, OPTIONS).vectors.numpy()
    assert not np.array_equal(fitted.vectors[-1], text[-1])


def test_a_fit_without_a_gain_is_the_text(tiny: Model, pairs: list[tuple[Features, MaskTensor]]) -> None:
    """The masks are what the text says."""
    features = [each for each, _ in pairs]
    labeller = Labeller(tiny, tipsseg.make_vocabulary(THINGS, "none"), OPTIONS)
    masks = [labeller.label(each).labels.astype(np.uint8) for each in features]
    fitted = tipsseg.learn.fit(tiny, features, masks, tipsseg.make_vocabulary(THINGS, "none"), OPTIONS)
    assert not fitted.learned
    assert np.array_equal(fitted.vectors, labeller.vectors.numpy())
    assert not fitted.biases.any()


def test_examples_are_of_classes_that_the_masks_lack() -> None:
    windows = [Window(torch.zeros(2, 2, 3), torch.tensor([0]), torch.ones(4, 4, 1))]
    patches = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9], [0, 1, 0]])  # the last is not sure
    found = find_examples(windows, patches, torch.eye(3), torch.zeros(3), torch.tensor([0, 1, 2]))
    assert [(each.patches[0, 0].argmax().item(), each.groups.tolist()) for each in found] == [(1, [1]), (2, [2])]


def test_a_class_without_pixels_keeps_its_text(tiny: Model, fitted: FittedVocabulary) -> None:
    text = Labeller(tiny, VOCABULARY, OPTIONS).vectors.numpy()
    np.testing.assert_allclose(fitted.vectors[3], text[3], atol=1e-6)
    assert fitted.biases[3] == 0
    assert (fitted.scores[3].source, fitted.scores[3].images, fitted.scores[3].iou) == ("text", 0, None)


@pytest.mark.parametrize(("names", "strengths"), [(3, {10.0, 3.0}), (4, {10.0, 3.0}), (5, {30.0})])
def test_classes_are_held_the_more_where_masks_lack_many(
    monkeypatch: pytest.MonkeyPatch, names: int, strengths: set[float]
) -> None:
    """Three of the classes are in the masks."""
    tried: set[float] = set()

    def watched(windows: list[Window], group_of: Tensor, prior: Prior, *others: Any) -> tuple[Tensor, Tensor]:
        tried.update(prior.strength[torch.isfinite(prior.strength)].tolist())
        return solve(windows, group_of, prior, *others)

    monkeypatch.setattr(choice, "solve", watched)
    ids = torch.randint(0, 3, (3, 8, 8), generator=torch.Generator().manual_seed(0))
    shares = torch.nn.functional.one_hot(ids, 3).float()
    images = [
        [Window(torch.eye(5)[each[::2, ::2]], torch.arange(3), part)] for each, part in zip(ids, shares, strict=True)
    ]
    steps: list[tuple[int, int]] = []
    texts, called = torch.eye(5)[:names] * 3, ["a", "b", "c", "d", "e"][:names]
    choice.choose_and_fit(
        images, torch.arange(names), texts, torch.zeros(len(texts)), called, None, lambda *step: steps.append(step)
    )
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert {most for _, most in steps} == {3 * 7 + 1}
    assert len(steps) <= 22
    assert {each for each in tried if each > 1} == strengths


def test_the_same_masks_give_the_same_file_and_it_is_read_back(
    tiny: Model, fitted: FittedVocabulary, pairs: list[tuple[Features, MaskTensor]], tmp_path: Path
) -> None:
    features, masks = zip(*pairs[:4], strict=True)
    with limit_torch_threads(3):  # sums of several threads differ by their number
        again = tipsseg.learn.fit(tiny, features, masks, VOCABULARY, OPTIONS)
    files = [tmp_path / name for name in ("first.fit", "second.fit", "third.fit")]
    for each, file in zip((fitted, again, None), files, strict=True):
        (each or FittedVocabulary.load(files[0])).save(file)
    assert len({file.read_bytes() for file in files}) == 1
    read = FittedVocabulary.load(files[2])
    assert (read.vocabulary, read.scores, read.model) == (fitted.vocabulary, fitted.scores, fitted.model)
    first, second = (Labeller(tiny, each, OPTIONS).label(pairs[4][0]).labels for each in (fitted, read))
    np.testing.assert_array_equal(first, second)


def test_images_without_masks_keep_a_fit_from_serving_them_badly(
    tiny: Model, pairs: list[tuple[Features, MaskTensor]]
) -> None:
    """Patches of the images with masks are dim and noisy, so that the text is unsure of them; those of the others are not."""
    generator = torch.Generator().manual_seed(0)
    names = ("sky", "grass", "tree", "balloon")
    features, masks = zip(*pairs[:3], strict=True)
    dim = [
        replace(each, patches=0.25 * each.patches + 0.05 * torch.randn(each.patches.shape, generator=generator))
        for each in features
    ]
    others = [each for each, _ in pairs]
    free, held = (tipsseg.learn.fit(tiny, dim, masks, names, OPTIONS, unlabelled=some) for some in ((), others))
    labeller = Labeller(tiny, tipsseg.make_vocabulary(names), OPTIONS)
    moved = []
    for fitted in (free, held):
        labels = Labeller(tiny, fitted, OPTIONS).label(pairs[4][0]).labels
        moved.append((labels != labeller.label(pairs[4][0]).labels).mean())
    assert moved[1] < 0.7 * moved[0]


@pytest.mark.parametrize(
    ("others", "known", "unsure"),
    [
        pytest.param([[6.0, 0, 0], [0, 6, 0]], [True, True, False], 130.57, id="surer there"),
        pytest.param([[6.0, 0, 0]] * 2, [True, False, False], 130.57, id="the second is not there"),
        pytest.param([[0.1, 0, 0], [0, 0.1, 0]], [False, False, False], 1, id="as unsure there"),
    ],
)
def test_a_word_is_known_that_the_text_finds_surely_elsewhere(
    others: list[list[float]], known: list[bool], unsure: float
) -> None:
    """In the images with masks the text gives the first word for the second, and is not sure of it."""
    shares = torch.ones(4, 4, 1)
    windows = [Window(torch.tensor([0.1, 0, 0]).expand(2, 2, 3), torch.tensor([1]), shares)]
    found = compare(windows, torch.tensor(others), torch.eye(3), torch.arange(3), 3)
    assert found.known.tolist() == known
    assert found.unsure == pytest.approx(unsure, rel=0.01)


def test_logits_of_patches_that_are_held_stay() -> None:
    """The second feature is what the patches that are held have."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(4, 4, 2, generator=generator)
    windows = [Window(patches, torch.tensor([1]), torch.ones(8, 8, 1))]
    strength = torch.full((2,), 1.0)
    moment = second_moment(torch.tensor([[0.0, 1.0]]).expand(5, 2))
    torch.testing.assert_close(moment, torch.tensor([[0.0, 0, 0], [0, 1, 1], [0, 1, 1]]))
    changes = []
    for held in (0.0, 1e3):
        prior = Prior(torch.zeros(2, 2), torch.zeros(2), strength, strength, moment, torch.full((2,), held))
        weights, biases = solve(windows, torch.arange(2), prior, 0.0)
        changes.append(float((weights[:, 1] + biases).abs().max()))
    assert changes[0] > 0.3
    assert changes[1] < 0.02


Change = Callable[[Features, MaskTensor], tuple[Features, MaskTensor]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda f, m: (f, m[:-1]), "mask 1 is 111 x 112, but its image is 112 x 112", id="size"),
        pytest.param(
            lambda f, m: (f, np.full_like(m, 5)), "mask 1 has id 5, but the vocabulary has 4 classes", id="id"
        ),
        pytest.param(lambda f, m: (f, np.full_like(m, 255)), "the masks contain no labelled pixels", id="nothing"),
        pytest.param(lambda f, m: (f, m.astype(np.int64)), "must be an array of uint8 or uint16", id="dtype"),
        pytest.param(lambda f, m: (replace(f, patches=f.patches[..., :9]), m), "a different model", id="features"),
    ],
)
def test_unusable_masks_are_refused(
    tiny: Model, pairs: list[tuple[Features, MaskTensor]], change: Change, message: str
) -> None:
    features, mask = change(*pairs[0])
    with pytest.raises(TipssegError, match=message):
        tipsseg.learn.fit(tiny, [features], [mask], VOCABULARY, OPTIONS)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        pytest.param({}, LabelOptions(), "short side 112", id="short side"),
        pytest.param({}, LabelOptions(mode="whole", short_side=112), "mode 'slide'", id="mode"),
        pytest.param(
            {"model": {"config.json": "0" * 64}}, OPTIONS,
            "requires the model tiny, but this model is a different tiny, with different files(?m:$)",
            id="model",
        ),
        pytest.param(
            {"model": {"config.json": "0" * 64}, "model_id": "farm"}, OPTIONS, "the model farm, .* is tiny(?m:$)",
            id="two models",
        ),
        pytest.param({"vectors": np.ones((4, 7), np.float32)}, OPTIONS, "model's features have 192(?m:$)", id="width"),
        pytest.param({"labels_version": 0}, OPTIONS, "a different version of the labels", id="version"),
    ],
)  # fmt: skip
def test_a_fit_of_another_model_or_preprocessing_is_refused(
    tiny: Model, fitted: FittedVocabulary, changes: dict[str, object], options: LabelOptions, message: str
) -> None:
    with pytest.raises(tipsseg.UsageError, match=message):
        Labeller(tiny, replace(fitted, **changes), options)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", b"sky\ntree\n", (8).to_bytes(8, "little") + b"{}      "])
def test_a_file_that_is_no_fit_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "no.fit"
    file.write_bytes(data)
    with pytest.raises(VocabularyError, match="not a vocabulary that tipsseg fit wrote"):
        FittedVocabulary.load(file)


#: A key in the record of a fit, what somebody put there, and what the error says of it.
DAMAGES = {
    "an infinite side": ("short_side", "1e999", "the number 1e999... is too large"),
    "another mode": ("mode", '"tile"', '`mode` is "tile"'),
    "an infinite version": ("labels_version", "Infinity", "Infinity is not valid JSON"),
    "an endless number": ("temperature", f"1{'0' * 400}", "is too large"),
    "a negative temperature": ("temperature", "-1", "temperature"),
    "a cold softmax": ("temperature", "1e-99", "out of range"),
    "no side": ("short_side", "0", "short side"),
    "an infinite score": ("iou", "1e999", "the number 1e999... is too large"),
    "a score above 1": ("iou", "7", "an IoU is out of range"),
    "lists without end": ("source", "[" * 99_999 + "]" * 99_999, "nested too deeply"),
    "a score of text": ("text_iou", '"high"', '`scores[0].text_iou` is "high"'),
    "images of text": ("images", '"many"', '`scores[0].images` is "many"'),
}


@pytest.mark.parametrize(("key", "value", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_fit_with_a_damaged_record_is_refused(
    fitted: FittedVocabulary, tmp_path: Path, key: str, value: str, reason: str
) -> None:
    file = tmp_path / "x.fit"
    fitted.save(file)
    with safe_open(file, "numpy") as stored:
        record = stored.metadata()["tipsseg"]
        tensors = {name: stored.get_tensor(name) for name in ("biases", "vectors")}
    damaged, number = re.subn(rf'"{key}": ("[^"]*"|[^,}}]+)', lambda _: f'"{key}": {value}', record)
    assert number
    file.write_bytes(save(tensors, {"tipsseg": damaged}))
    with pytest.raises(VocabularyError, match=f"x.fit: not a vocabulary that tipsseg fit wrote: .*{re.escape(reason)}"):
        FittedVocabulary.load(file)


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
@pytest.mark.parametrize("name", ["vectors", "biases"])
def test_a_fit_with_numbers_that_no_fit_gives_is_refused(
    fitted: FittedVocabulary, tmp_path: Path, name: str, value: float
) -> None:
    numbers = getattr(fitted, name).copy()
    numbers.flat[1] = value
    replace(fitted, **{name: numbers}).save(tmp_path / "x.fit")
    with pytest.raises(VocabularyError, match="not a vocabulary that tipsseg fit wrote"):
        FittedVocabulary.load(tmp_path / "x.fit")


def test_shares_of_cells_count_pixels_and_leave_out_what_does_not_count() -> None:
    mask = np.array([[1, 1, 2, 2], [1, 2, 255, 255], [0, 0, 0, 0], [0, 0, 0, 0]], np.uint8)
    groups = np.full(256, -1)
    groups[[1, 2]] = [0, 1]
    (window,) = make_windows(torch.zeros(1, 1, 1, 3), WindowPlan((4, 4), 4, ((0, 0),)), mask, groups)
    assert window.groups.tolist() == [0, 1]
    expected: list[list[list[float]]] = [[[0.75, 0.25], [0.0, 0.5]], [[0.0, 0.0], [0.0, 0.0]]]
    np.testing.assert_allclose(window.shares.numpy(), expected)


@pytest.mark.parametrize("group_of", [[0, 1, 2], [0, 1, 1]], ids=["one phrase each", "synonyms"])
def test_the_solution_is_a_stationary_point_of_the_loss(group_of: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.tensor(sorted(set(group_of)))
    windows = [
        Window(
            torch.randn(3, 4, 5, generator=generator),
            groups,
            torch.softmax(torch.randn(6, 8, len(groups), generator=generator), -1),
        )
        for _ in range(2)
    ]
    members = torch.tensor(group_of)
    strength = torch.tensor([1.0, 2.0, 3.0])
    prior = Prior(torch.randn(3, 5, generator=generator), torch.zeros(3), strength, strength)
    weights, biases = (each.requires_grad_() for each in solve(windows, members, prior, 0))
    loss = 0.5 * (strength[:, None] * (weights - prior.weights) ** 2).sum() + 0.5 * (strength * biases**2).sum()
    for window in windows:
        log_p = torch.log_softmax(cell_logits(window.patches, weights, biases), -1)
        grouped = torch.stack([torch.logsumexp(log_p[..., members == group], -1) for group in groups], -1)
        loss = loss - (window.shares * grouped).sum() / 4
    gradients = torch.autograd.grad(loss, (weights, biases))
    assert max(float(each.abs().max()) for each in gradients) < 0.2
    assert float((weights.detach() - prior.weights).abs().max()) > 0.05


def test_pieces_of_many_windows_stand_for_all_of_them() -> None:
    """40 windows of 4 pieces; in the first 8 windows one piece has a rare class."""
    windows = []
    for number in range(40):
        shares = torch.zeros(32, 32, 2)
        shares[..., 0] = 1
        if number < 8:
            shares[:4, :4] = torch.tensor([0.0, 1.0])
        groups = torch.tensor([0, 1])[: 2 if number < 8 else 1]
        windows.append(Window(torch.zeros(16, 16, 3), groups, shares[..., : len(groups)]))
    images = [windows[:20], windows[20:]]
    assert draw_pieces(images, 40 * 256) == images
    found = draw_pieces(images, 40 * 64)
    pieces = [each for image in found for each in image]
    assert 30 < len(pieces) < 50  # about a quarter of 160
    rare = [each for each in pieces if 1 in each.groups]
    assert len(rare) > 4  # of 8, where a quarter would be 2
    total = sum(float(each.shares.sum()) for each in pieces)
    assert total == pytest.approx(40 * 1024, rel=0.15)
    again = [each for image in draw_pieces(images, 40 * 64) for each in image]
    assert all(torch.equal(one.shares, other.shares) for one, other in zip(pieces, again, strict=True))


def test_a_start_leads_to_the_same_solution() -> None:
    generator = torch.Generator().manual_seed(1)
    shares = torch.softmax(torch.randn(16, 16, 2, generator=generator), -1)
    windows = [Window(torch.randn(8, 8, 4, generator=generator), torch.tensor([0, 1]), shares)]
    strength = torch.tensor([1.0, torch.inf])
    prior = Prior(torch.randn(2, 4, generator=generator), torch.zeros(2), strength, strength)
    begun = (torch.randn(2, 4, generator=generator), torch.randn(2, generator=generator))
    one, other = (solve(windows, torch.arange(2), prior, 0.0, start=start) for start in (None, begun))
    torch.testing.assert_close(one[0], other[0], atol=0.02, rtol=0)
    assert torch.equal(other[0][1], prior.weights[1])  # what is held stays, wherever one begins
    assert other[1][1] == 0
