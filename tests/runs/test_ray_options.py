"""What can be seen to be wrong with `--engine ray` before Ray is started, or with a machine of its cluster."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tipsseg import __version__
from tipsseg.errors import TipssegError, UsageError
from tipsseg.runs.engine import ray_actor, ray_engine
from tipsseg.runs.engine.ray_engine import check_ray

WRONG = {
    "no actor": (0, 0.0, "auto", "argument `actors`=0 is too small"),
    "fewer than none": (1, -1.0, "auto", "argument `gpus`=-1 is no number of GPUs"),
    "no number": (1, float("nan"), "auto", "argument `gpus`=nan is no number of GPUs"),
    "without end": (1, float("inf"), "auto", "argument `gpus`=inf is no number of GPUs"),
    "one and a half": (1, 1.5, "auto", "argument `gpus`=1.5 is not possible with Ray"),
    "a GPU that Ray hides": (1, 0.0, "cuda", "argument `device`=cuda with argument `gpus`=0: Ray would hide the GPUs"),
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: object())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("case", WRONG)
def test_numbers_that_cannot_be(case: str) -> None:
    actors, gpus, device, message = WRONG[case]
    with pytest.raises(UsageError) as raised:
        check_ray(actors, gpus, device)
    assert raised.value.message.startswith(message)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("gpus", "device"), [(0.0, "auto"), (0.0, "cpu"), (0.25, "cuda"), (1.0, "auto"), (2.0, "cuda")]
)
def test_numbers_that_can_be(gpus: float, device: str) -> None:
    check_ray(1, gpus, device)


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as raised:
        check_ray(1, 0, "auto")
    assert (raised.value.message, raised.value.hint) == (
        "argument `engine`=ray needs Ray",
        "pip install 'tipsseg[ray]'",
    )


def test_a_machine_of_the_cluster_is_like_the_one_that_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared").mkdir()
    ray_actor.enter(tmp_path / "shared", __version__)
    assert Path.cwd() == tmp_path / "shared"
    with pytest.raises(UsageError, match=r"absent is not on .* of the Ray cluster: No such file"):
        ray_actor.enter(tmp_path / "absent", __version__)
    with pytest.raises(UsageError, match=rf"has tipsseg {__version__}, and this is 9\.9"):
        ray_actor.enter(tmp_path, "9.9")


def test_an_error_travels_with_its_facts() -> None:

    from tipsseg import errors

    kinds: list[TipssegError] = [
        errors.TipssegError("what", "hint"),
        errors.VocabularyError("why", "hint", path=Path("v.toml"), line=3, class_index=1),
        errors.ImageError(Path("a.png"), "why", "hint"),
        errors.OutputError(Path("a.png"), "why", "hint", only_this=True),
        errors.DeviceError("cuda", "what", "hint"),
        errors.CheckpointError(Path("m"), "why", "hint", "proj.weight"),
        errors.DownloadError("r", "1", "f", "why", "hint"),
        errors.IntegrityError(Path("f"), "size", "1", "2", "hint"),
    ]
    back = pickle.loads(pickle.dumps(kinds))  # as Ray carries the answers of actors
    assert [(type(each), vars(each), str(each)) for each in back] == [
        (type(each), vars(each), str(each)) for each in kinds
    ]
