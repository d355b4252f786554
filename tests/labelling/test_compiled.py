"""Labels by loops that numba compiled, against those of numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import NumbaError

import tipsseg
from tipsseg import Labeller, LabelOptions, Model
from tipsseg.labelling.scoring import assign
from tipsseg.labelling.scoring.assign import Assignment, LabelTable
from tipsseg.labelling.scoring.compiled import match as compiled
from tipsseg.labelling.scoring.compiled.match import match
from tipsseg.labelling.scoring.resample import Values
from tipsseg.labelling.scoring.scores import Scores, WholeScores, WindowScores
from tipsseg.labelling.windows import make_plan
from tipsseg.types import LabelArray, WindowPlan, ignore_id, label_dtype
from tipsseg.util.files import cache_folder

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"


@pytest.fixture(scope="module", autouse=True)
def _with_numba() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(compiled.SWITCH)
        compiled._load.cache_clear()
        assert compiled.load_loops() is not None
        yield
    compiled._load.cache_clear()


@dataclass(frozen=True)
class Case:
    """Cosines [windows, 4, 4, P] of an image, drawn at random or changing slowly, and how the phrases are grouped."""

    size: tuple[int, int]
    groups: tuple[int, ...]
    spread: float = 0.1
    smooth: bool = False
    temperature: float = 0.02
    min_confidence: float = 0.0
    side: int = 56


CASES = {
    "one phrase": Case((90, 70), (1,)),
    "one window": Case((60, 60), (1,) * 5),
    "several windows": Case((90, 200), (1,) * 7),
    "a large image": Case((700, 900), (1,) * 9, smooth=True),
    "more rows than a band": Case((1500, 40), (1,) * 3),
    "a small image": Case((9, 7), (1,) * 4),
    "one pixel": Case((1, 1), (1,) * 4),
    "a strip": Case((3, 400), (1,) * 4),
    "synonyms": Case((130, 170), (1, 3, 2, 1, 4)),
    "slow changes": Case((300, 400), (1,) * 30, smooth=True),
    "close cosines": Case((100, 150), (1,) * 12, spread=0.004),
    "far cosines": Case((100, 150), (1,) * 12, spread=1.0, temperature=0.005),
    "a high temperature": Case((100, 150), (2,) * 9, temperature=0.5),
    "thresholds": Case((130, 170), (1,) * 6, min_confidence=0.6, smooth=True),
    "150 classes": Case((160, 200), (1,) * 150, smooth=True),
    "1,000 classes": Case((120, 120), (1,) * 1000),
    "windows of one patch": Case((40, 90), (1,) * 5, side=14),
}


def cosines_of(case: Case, seed: int = 1) -> tuple[Values, WindowPlan]:
    rng = np.random.default_rng(seed)
    plan = make_plan(case.size, case.side, case.side, 14)
    shape = (len(plan.corners), case.side // 14, case.side // 14, sum(case.groups))
    drawn = rng.normal(0.1, case.spread, shape)
    if case.smooth:
        drawn = (drawn.cumsum(1) + drawn.cumsum(2)) / 4
    return drawn.astype(np.float32), plan


def table_of(case: Case) -> LabelTable:
    ids = np.arange(1, len(case.groups) + 1, dtype=label_dtype(len(case.groups)))
    thresholds = np.full(len(ids) + 1, case.min_confidence, np.float32)
    return LabelTable(case.groups, cast(LabelArray, ids), thresholds, ignore_id(len(ids)))


def both(scores: Scores, size: tuple[int, int], table: LabelTable) -> tuple[Assignment, Assignment]:
    return match(scores, size, table), assign.match(scores, size, table)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes that numpy's `match` is asked for from now on."""
    asked: list[tuple[int, int]] = []
    original = assign.match

    def counted(scores: Scores, size: tuple[int, int], table: LabelTable) -> Assignment:
        asked.append(size)
        return original(scores, size, table)

    monkeypatch.setattr(assign, "match", counted)
    return asked


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_labels_are_those_of_numpy(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    cosines, plan = cosines_of(case)
    scores = WindowScores(cosines, plan, case.temperature)
    expected = assign.match(scores, case.size, table_of(case))
    asked = count_calls(monkeypatch)
    found = match(scores, case.size, table_of(case))
    assert asked == []  # the loops alone
    assert found.labels.dtype == expected.labels.dtype
    difference = np.abs(found.confidence - expected.confidence)
    assert difference.mean() < 4e-4
    assert np.mean(difference > 0.01) < 0.01
    # A threshold is compared with a confidence that may differ.
    decided = np.abs(expected.confidence - case.min_confidence) > 0.02
    assert np.array_equal(found.labels[decided], expected.labels[decided])
    assert decided.mean() > 0.5


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    groups=st.lists(st.integers(1, 3), min_size=1, max_size=12),
    spread=st.sampled_from([1e-6, 1e-3, 0.05, 0.5]),
    smooth=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_labels_are_those_of_numpy_whatever_is_drawn(
    size: tuple[int, int], groups: Sequence[int], spread: float, smooth: bool, seed: int
) -> None:
    case = Case(size, tuple(groups), spread, smooth)
    found, expected = both(WindowScores(*cosines_of(case, seed), 0.02), size, table_of(case))
    assert np.array_equal(found.labels, expected.labels)
    # Of 20,646 drawn cases the worst pixel was off by 0.086, the worst average over 1,000 pixels or more by 0.0001. Over fewer
    # pixels an average says little.
    difference = np.abs(found.confidence - expected.confidence)
    assert difference.max() < 0.2
    assert difference.size < 1000 or difference.mean() < 3e-4


def test_pixels_that_rounding_may_decide_are_scored_as_numpy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phrases whose cosines differ in the last bit at some patches, and not at others."""
    case = Case((80, 120), (1,) * 3, smooth=True)
    cosines, plan = cosines_of(case)
    patches = np.random.default_rng(2).integers(-1, 2, cosines.shape[:3])
    cosines[..., 1] = cosines[..., 0] + patches * np.float32(3e-8)
    cosines[..., 2] = cosines[..., 0] - 0.4  # never wins
    cosines[:, :, :2, 2] += 0.8  # but in the first columns
    monkeypatch.setattr(compiled, "_MOST_UNSURE", 1.0)
    scores = WindowScores(cosines, plan, 0.02)
    expected = assign.match(scores, case.size, table_of(case))
    asked = count_calls(monkeypatch)
    assert np.array_equal(match(scores, case.size, table_of(case)).labels, expected.labels)
    assert asked == []
    assert set(np.unique(expected.labels)) == {1, 2, 3}
    monkeypatch.setattr(compiled, "_rescore_unsure", lambda *_: None)
    assert not np.array_equal(match(scores, case.size, table_of(case)).labels, expected.labels)


@pytest.mark.parametrize(
    "case", [CASES["several windows"], CASES["150 classes"]], ids=["several windows", "150 classes"]
)
def test_scores_at_single_pixels_are_those_of_the_map_bit_by_bit(case: Case) -> None:
    cosines, plan = cosines_of(case)
    everything = slice(0, plan.size[0]), slice(0, plan.size[1]), np.arange(sum(case.groups))
    made = WindowScores(cosines, plan, case.temperature)
    scores = made.values(*everything)
    rng = np.random.default_rng(3)
    rows, columns = (rng.integers(0, length, 300) for length in plan.size)
    assert np.array_equal(made.at(rows, columns), scores[:, rows, columns])
    fresh = WindowScores(cosines, plan, case.temperature)
    assert np.array_equal(fresh.at(rows[:1], columns[:1]), scores[:, rows[:1], columns[:1]])


def test_exp_and_log_are_off_by_little() -> None:
    assert compiled.load_loops() is not None  # numba's cache is set
    from tipsseg.labelling.scoring.compiled.maths import exp, log

    @njit
    def each(values: Values, exps: Values, logs: Values) -> None:
        for index in range(len(values)):
            exps[index] = exp(values[index])
            logs[index] = log(exps[index])

    values = np.linspace(-80, 80, 100_001, dtype=np.float32)
    exps, logs = np.empty_like(values), np.empty_like(values)
    each(values, exps, logs)  # type: ignore[type-var, call-arg]
    np.testing.assert_allclose(exps, np.exp(values.astype(np.float64)), rtol=3e-7)
    np.testing.assert_allclose(logs, np.log(exps.astype(np.float64)), rtol=2e-7, atol=2e-7)


WINDOWS = WindowScores(*cosines_of(CASES["several windows"]), 0.02)
NUMPY_CASES = {
    "other scores": WholeScores(WINDOWS.cosines[0], (90, 200), 0.02),
    "large cosines": WindowScores(WINDOWS.cosines * 100, WINDOWS.plan, 0.02),
    "the same vector twice": WindowScores(WINDOWS.cosines[..., [0] * 7], WINDOWS.plan, 0.02),
}


@pytest.mark.parametrize("scores", NUMPY_CASES.values(), ids=NUMPY_CASES.keys())
def test_numpy_makes_what_the_loops_are_not_for(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_calls(monkeypatch)
    found, expected = both(scores, (90, 200), table_of(CASES["several windows"]))
    assert len(asked) == 2
    assert np.array_equal(found.labels, expected.labels)
    assert np.array_equal(found.confidence, expected.confidence)


@pytest.fixture
def _loaded_again() -> Iterator[None]:
    compiled._load.cache_clear()
    yield
    compiled._load.cache_clear()


@pytest.mark.usefixtures("_loaded_again")
@pytest.mark.parametrize("lacks", ["wanted", "installed", "a cache", "a cache to write to", "an older numba"])
def test_without_numba_there_are_no_loops(lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise NumbaError("Failed in nopython mode pipeline")

    if lacks == "wanted":
        monkeypatch.setenv(compiled.SWITCH, "0")
    elif lacks == "installed":
        monkeypatch.setattr(compiled, "find_spec", lambda _: None)
    elif lacks == "a cache":
        monkeypatch.setattr(compiled, "cache_folder", lambda: None)
    elif lacks == "a cache to write to":
        (tmp_path / "file").touch()
        monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path / "file" / "cache"))
    else:
        monkeypatch.setattr(compiled, "_match", fails)
    assert compiled.load_loops() is None
    assert not compiled.needs_compilation()
    assert not list(Path(compiled.__file__).parent.rglob("*.nb?"))  # numba's own choice, where it cannot write to ours
    scores = WindowScores(*cosines_of(CASES["one window"]), 0.02)
    monkeypatch.undo()
    assert match(scores, (60, 60), table_of(CASES["one window"])).labels.shape == (60, 60)


def test_a_new_cache_is_to_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIPSSEG_CACHE", str(tmp_path))
    assert compiled.needs_compilation()
    assert list(tmp_path.iterdir()) == []


def test_what_is_compiled_is_kept_in_the_cache_of_tipsseg() -> None:
    folder = cache_folder()
    assert folder is not None
    assert not compiled.needs_compilation()
    kept = {path.suffix for path in (folder / "numba").rglob("*") if path.is_file()}
    assert kept == {".nbi", ".nbc"}
    assert not list(Path(compiled.__file__).parent.rglob("*.nb?"))


def test_a_folder_has_the_same_masks_with_numba_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def masks_in(folder: Path) -> dict[str, bytes]:
        tipsseg.label_folder(SCENES, ["panda", "tree", "boat"], output=folder, model="tiny", jobs=3)
        return {path.name: path.read_bytes() for path in (folder / "masks").rglob("*.png")}

    with_numba = masks_in(tmp_path / "with")
    monkeypatch.setattr(compiled, "load_loops", lambda: None)
    assert len(with_numba) > 3
    assert masks_in(tmp_path / "without") == with_numba


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (LabelOptions(), True),
        (LabelOptions(mode="whole"), False),
        (LabelOptions(refine="pamr"), False),
        (LabelOptions(scales=(1, 1.75)), False),
    ],
    ids=["one scale", "whole", "refined", "two scales"],
)
def test_what_the_loops_are_for(tiny: Model, options: LabelOptions, expected: bool) -> None:
    assert Labeller(tiny, ["tree"], options)._patches.uses_numba is expected
