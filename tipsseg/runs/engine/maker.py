"""Choose the engine of a run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tipsseg.options.run import EngineOptions
from tipsseg.run.spec import RunInfo
from tipsseg.runs.engine.engine import Engine, LocalEngine

#: A function that makes an engine from a run, a function that prints notes, and the option `quiet`.
EngineMaker = Callable[[RunInfo, Callable[[str], None], bool], AbstractContextManager[Engine]]


def engine_maker(options: EngineOptions, device: str) -> EngineMaker:
    """Return a function that makes the engine of a run. Raises UsageError if Ray is not installed, or cannot use the device."""
    if options.ray is None:
        return lambda info, note, quiet: nullcontext(LocalEngine(info, note=note, quiet=quiet))
    from tipsseg.runs.engine.ray_engine import RayEngine, check_ray

    ray = options.ray
    check_ray(ray, device)
    return lambda info, note, quiet: RayEngine(info, ray)
