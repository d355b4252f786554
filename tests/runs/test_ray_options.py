"""What can be seen to be wrong with `--ray` before Ray is started, or with a machine of its cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tipsseg import __version__
from tipsseg.errors import UsageError
from tipsseg.options.run import Ray, parse_ray
from tipsseg.runs.engine import ray_actor, ray_engine
from tipsseg.runs.engine.ray_engine import check_ray

WRONG = {
    "no number": ("many", "auto", "argument `ray`=many is not a valid number of actors"),
    "one and a half": ("1x1.5", "auto", "argument `ray`=1x1.5: an actor uses a fraction of one GPU, or whole GPUs"),
    "a GPU that Ray hides": ("1", "cuda", "argument `device`=cuda with argument `ray`=1: Ray would hide the GPUs"),
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: object())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("case", WRONG)
def test_numbers_that_cannot_be(case: str) -> None:
    ray, device, message = WRONG[case]
    with pytest.raises(UsageError) as raised:
        check_ray(parse_ray(ray), device)
    assert raised.value.message.startswith(message)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("ray", "device"),
    [("1", "auto"), (4, "cpu"), ("2x0.25", "cuda"), ("2x.5", "cuda"), ("1x1", "auto"), ("1x2", "cuda")],
)
def test_numbers_that_can_be(ray: object, device: str) -> None:
    check_ray(parse_ray(ray), device)
    assert parse_ray(str(parse_ray(ray))) == parse_ray(ray)


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as raised:
        check_ray(Ray(1), "auto")
    assert (raised.value.message, raised.value.hint) == (
        "argument `ray` needs Ray",
        "Install it: pip install 'tipsseg[ray]'",
    )


def test_a_machine_of_the_cluster_is_like_the_one_that_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shared").mkdir()
    ray_actor.change_directory(tmp_path / "shared", __version__)
    assert Path.cwd() == tmp_path / "shared"
    with pytest.raises(UsageError, match=r"of the Ray cluster cannot open .*absent: No such file"):
        ray_actor.change_directory(tmp_path / "absent", __version__)
    with pytest.raises(UsageError, match=rf"has tipsseg {__version__}, but this machine has 9\.9"):
        ray_actor.change_directory(tmp_path, "9.9")
