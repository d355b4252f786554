"""Shared fixtures: checkpoints with seeded random weights, in the hub layout. Torch is imported only where it is used."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from running import Command, Ran, run_command

# On cores that others use too, an example takes as long as it takes.
settings.register_profile("tipsseg", deadline=None)
settings.load_profile("tipsseg")

# Read when torch is imported, here and in the processes that tests start. The models are small: more threads than one only wait for
# each other, and on busy cores they take most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Ignored in jobs of a background shell, and then in the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

from tipsseg.errors import Words

if TYPE_CHECKING:
    from tipsseg import Model

MakeCheckpoint = Callable[[str, Mapping[str, object]], Path]

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = REPOSITORY / "tipsseg" / "assets" / "tiny"

# Towers that are small in every way but have all their parts; 4 x 4 patches of 14 pixels.
_SMALL_VISION = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 56}
_SMALL_TEXT = {
    "vocab_size": 1200,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

MLP_CONFIG: dict[str, object] = {
    "model_type": "tipsv2",
    "temperature_init_value": 0.02,
    "vision_config": {**_SMALL_VISION, "mlp_ratio": 4},
    "text_config": _SMALL_TEXT,
}
SWIGLU_CONFIG: dict[str, object] = {**MLP_CONFIG, "vision_config": {**_SMALL_VISION, "use_swiglu_ffn": True}}


@pytest.fixture(autouse=True)
def _words_keep_placeholders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an f-string takes in Words, which name options in the library's way alone then."""

    def text_of(text: Words, _: str) -> str:
        if sys._getframe(1).f_globals["__name__"].startswith("tipsseg."):
            raise AssertionError(f"in an f-string: {text.template}")
        return str(text)

    monkeypatch.setattr(Words, "__format__", text_of)


_INSTALL = "Run: pip install '.[test]', or once for all changes: pip install -e '.[test]'"


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test a tipsseg that differs from the tree, here or in the commands that tests run.

    `pytest` imports the installed tipsseg, `python -m pytest` that of the tree, and commands the installed one again.
    """
    if hasattr(config, "workerinput"):
        return  # a worker of xdist imports what its parent does
    find = "import importlib.util; print(importlib.util.find_spec('tipsseg').origin)"
    found = subprocess.run([sys.executable, "-c", find], cwd=REPOSITORY.anchor, capture_output=True, text=True)
    here = importlib.util.find_spec("tipsseg")
    if found.returncode or here is None or here.origin is None:
        raise pytest.UsageError(f"tipsseg is not installed for {sys.executable}. {_INSTALL}")
    for folder in {Path(found.stdout.strip()).parent, Path(here.origin).parent} - {TINY.parents[1]}:
        tree = _contents(TINY.parents[1]) | {"weights.lock": (REPOSITORY / "weights.lock").read_bytes()}
        copy = _contents(folder)
        if different := sorted(name for name in tree | copy if tree.get(name) != copy.get(name)):
            raise pytest.UsageError(
                f"the tests would run {folder}, which differs from the tree in {different[0]}"
                f"{f' and {len(different) - 1} more' if different[1:] else ''}. {_INSTALL}"
            )


def _contents(package: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(package)): path.read_bytes()
        for path in package.rglob("[!.]*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test loses power, and on a busy disk most of the time would go with waiting for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that begins empty: what another version of the code put into the user's must not stand for this one's work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIPSSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `tipsseg` in this process; an error that is not an expected one is raised."""

    def run(*arguments: object, stdin: bytes | None = None, cwd: Path | None = None) -> Ran:
        if cwd is not None:
            monkeypatch.chdir(cwd)
        return run_command(*arguments, stdin=stdin)

    return run


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """(name, content of config.json) -> a folder in the hub layout, with seeded random float32 weights."""
    import torch
    from safetensors.torch import save_file

    from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
    from tipsseg.backbones.tipsv2.config import parse_config

    folders: dict[str, Path] = {}

    def make(name: str, config: Mapping[str, object]) -> Path:
        if name in folders:
            return folders[name]
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.json").write_text(json.dumps(config))
        with torch.random.fork_rng():
            torch.manual_seed(7)  # biases begin at random
            model = Tipsv2(parse_config(config, folder / "config.json"))
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                # Weights keep the size of what passes through them; gains scatter around 1, biases around 0.
                parameter.copy_(noise / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else parameter + noise * 0.1)
            # Pictures must matter more than all that is common to them, or one phrase wins everywhere.
            patches = model.vision_encoder.patch_embed.proj
            patches.weight.mul_(8)
            assert patches.bias is not None
            patches.bias.sub_(0.5 * patches.weight.sum((1, 2, 3)))
        save_file(model.state_dict(), folder / "model.safetensors")
        shutil.copy(TINY / "tokenizer.model", folder)
        folders[name] = folder
        return folder

    return make


@pytest.fixture(scope="session")
def mlp_checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint("mlp", MLP_CONFIG)


@pytest.fixture(scope="session")
def swiglu_checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint("swiglu", SWIGLU_CONFIG)


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    return TINY


@pytest.fixture(scope="module")
def tiny() -> Model:
    """The embedded model."""
    import tipsseg

    return tipsseg.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def random(mlp_checkpoint: Path) -> Model:
    """A model with random weights."""
    import tipsseg

    return tipsseg.load(str(mlp_checkpoint), device="cpu")
