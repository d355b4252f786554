"""A device that is not the CPU, on any machine: it refuses what a GPU refuses, and counts what waits for it.

Its tensors report the device "cuda:0" or "mps:0", and hide their numbers from all but torch's operations. Any operation that mixes
them with tensors of the CPU fails. The device `meta` of torch lets matrix products, linear layers and indexing mix, and has no
numbers, so that nothing runs after the first copy to the host.

A copy that does not wait arrives when somebody waits for it, as on a GPU. Every upload to MPS waits, which nothing can avoid, so
those are not counted.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tipsseg.backbones.devices import MPS_LOCK

_ATEN = torch.ops.aten

#: Operations that MPS has, but not in the oldest torch that a Mac may have.
_NEW_ON_MPS = "_upsample_bilinear2d_aa"


class OtherDevice(TorchFunctionMode):
    """The device. While it is active, torch takes its name for a device that is there.

    Attributes:
        device: Its name, with an index.
        waits: The operations that waited for work of the device, in their order.
        holds: How many bytes a tensor on the device may have; for a larger one the memory runs out.
        largest: How many bytes the largest tensor had so far.
        operations: What it computed so far: the name of each operation but views, and the shapes of its results.
        unguarded: The operations on MPS without its lock while threads of a run were at work.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.device = torch.device(kind, 0)
        self.waits: list[str] = []
        self.holds = 1 << 40
        self.largest = 0
        self.operations: list[tuple[str, list[torch.Size]]] = []
        self.unguarded: list[str] = []
        self._busy = False
        self._under_way: list[tuple[Tensor, Tensor]] = []

    # ---- names of the device, and memory that is pinned ----

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.pin_memory:
            return _pinned(args[0].clone())
        if kwargs.pop("pin_memory", False):
            return _pinned(func(*args, **kwargs))
        if func is torch.device or not any(self._is_meant(each) for each in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        if args and isinstance(args[0], _DeviceTensor):
            args = [each for each in args if not self._is_meant(each)]
            kwargs = {name: each for name, each in kwargs.items() if not self._is_meant(each)}
            return args[0] if func is Tensor.to and len(args) == 1 and not kwargs else func(*args, **kwargs)
        here = [torch.device("cpu") if self._is_meant(each) else each for each in args]
        kwargs = {name: torch.device("cpu") if self._is_meant(each) else each for name, each in kwargs.items()}
        made = func(*here, **kwargs)
        # Numbers of a program are an upload too.
        uploads = bool(args) and isinstance(args[0], Tensor | list | tuple) and func in (Tensor.to, torch.tensor)
        if uploads and not (kwargs.get("non_blocking") and getattr(args[0], "is_pinned_here", False)):
            self._wait(func.__name__, counts=self.device.type == "cuda")
        with torch.inference_mode(False):
            self._take_memory(made)
            return self._put(made.clone())

    def _is_meant(self, value: object) -> bool:
        if isinstance(value, str):
            return value in (self.device.type, str(self.device))
        return isinstance(value, torch.device) and value.type == self.device.type

    # ---- operations ----

    @torch.inference_mode(False)
    def compute(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Do an operation that has a tensor of the device among its arguments."""
        views = all(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        guarded = views or self.device.type != "mps" or MPS_LOCK._is_owned()  # type: ignore[attr-defined]
        if not guarded and any(thread.name.startswith("work") for thread in threading.enumerate()):
            self.unguarded.append(f"{func} in {threading.current_thread().name}")
        if func is _ATEN.copy_.default:
            return self._copy(*args, **kwargs)
        if any(isinstance(each, torch.device) and each.type == "cpu" for each in (*args, *kwargs.values())):
            self._wait(str(func))
            return func(args[0].host, *args[1:], **kwargs).clone()
        tensors = list(_tensors((args, kwargs)))
        for each in tensors:
            if not (isinstance(each, _DeviceTensor) or (each.ndim == 0 and torch.Tag.pointwise in func.tags)):
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, got {self.device} and cpu in {func}"
                )
        args, kwargs = _mapped((args, kwargs), lambda each: each.host if isinstance(each, _DeviceTensor) else each)
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        with _Steps(self):
            made = func(*args, **kwargs)
        if not views:
            self.operations.append((func.name(), [each.shape for each in _tensors(made)]))
        known = {id(each.host): each for each in tensors if isinstance(each, _DeviceTensor)}
        storages = {_storage(each.host) for each in known.values()}
        new = [each for each in _tensors(made) if _storage(each) not in storages]
        for each in new:
            self._take_memory(each)
        self._busy |= func._schema.is_mutable or (bool(new) and "empty" not in func.name())
        return _mapped(made, lambda each: known[id(each)] if id(each) in known else self._put(each))

    def step(self, func: Any, args: Sequence[Any]) -> None:
        """Note one of the operations that an operation consists of."""
        if self.device.type == "mps" and not _is_on_mps(func.name().removeprefix("aten::")):
            raise NotImplementedError(f"The operator {func} is not currently implemented for the MPS device")
        if _asks_for_numbers(func, args):
            self._wait(str(func))

    def _copy(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if not isinstance(target, _DeviceTensor):
            assert isinstance(source, _DeviceTensor)
            if self.device.type == "cuda" and non_blocking and getattr(target, "is_pinned_here", False):
                self._under_way.append((target, source.host.clone()))
                return target
            self._wait("copy_")
            return target.copy_(source.host)
        if not isinstance(source, _DeviceTensor):
            if source.ndim and not (non_blocking and getattr(source, "is_pinned_here", False)):
                self._wait("copy_", counts=self.device.type == "cuda")
            source = self._put(source)
        assert isinstance(source, _DeviceTensor)
        target.host.copy_(source.host)
        self._busy = True
        return target

    @torch.inference_mode(False)
    def _put(self, host: Tensor) -> Tensor:
        if self.device.type == "mps" and host.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return _DeviceTensor(host, self)

    def _take_memory(self, host: Tensor) -> None:
        self.largest = max(self.largest, host.nbytes)
        if host.nbytes > self.holds:
            raise RuntimeError(f"{self.device.type.upper()} out of memory. Tried to allocate {host.nbytes} bytes")

    def _wait(self, name: str, *, counts: bool = True) -> None:
        if self._busy and counts:
            self.waits.append(name)
        self._busy = False

    # ---- what torch says of a GPU ----

    def event(self, **_: object) -> _Event:
        """Stand for torch.cuda.Event."""
        return _Event(self)


class _Steps(TorchDispatchMode):
    """Shows the device what an operation consists of, as inference mode hides it."""

    def __init__(self, owner: OtherDevice) -> None:
        super().__init__()
        self._owner = owner

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip it, torch imports its compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        self._owner.step(func, args)
        return func(*args, **(kwargs or {}))


class _DeviceTensor(Tensor):
    """A tensor on the device. Its views share memory with it."""

    host: Tensor
    owner: OtherDevice

    @staticmethod
    def __new__(cls, host: Tensor, owner: OtherDevice) -> _DeviceTensor:
        # torch's C++ code takes it for a tensor of `meta`: a CPU build cannot index tensors of a GPU.
        made: _DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=torch.device("meta"),
        )
        made.host, made.owner = host, owner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        owner = next(each.owner for each in _tensors((args, kwargs)) if isinstance(each, cls))
        return owner.compute(func, args, dict(kwargs or {}))

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.owner.device

    def __repr__(self) -> str:  # type: ignore[override]
        return f"<{list(self.shape)} on {self.device}>"

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False


class _Event:
    """torch.cuda.Event: what is under way when it is recorded has arrived once somebody waited for it."""

    def __init__(self, owner: OtherDevice) -> None:
        self._owner = owner
        self._copies: list[tuple[Tensor, Tensor]] = []
        self._looks = 0

    def record(self, _: object = None) -> None:
        self._copies, self._owner._under_way, self._looks = self._owner._under_way, [], 0

    def query(self) -> bool:
        """A device comes to an end by itself: at the third look."""
        self._looks += 1
        return not self._owner._busy or self._looks > 2

    def synchronize(self) -> None:
        self._owner._wait("synchronize")
        with torch.inference_mode():
            for target, numbers in self._copies:
                target.copy_(numbers)


@contextmanager
def other_device(kind: str) -> Iterator[OtherDevice]:
    """Let a device of that name, "cuda" or "mps", be there, for this thread and those that begin meanwhile."""
    device = OtherDevice(kind)
    run = threading.Thread.run

    def run_with_device(thread: threading.Thread) -> None:
        with device:
            run(thread)

    with pytest.MonkeyPatch.context() as patch, device:
        patch.setattr(threading.Thread, "run", run_with_device)
        if kind == "mps":
            patch.setattr(torch.backends.mps, "is_available", lambda: True)
            patch.setattr(torch.mps, "empty_cache", lambda: None)
            patch.setattr(torch.mps, "Event", device.event)
        else:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "device_count", lambda: 1)
            patch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
            patch.setattr(torch.cuda, "get_device_name", lambda _: "other device")
            patch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 30, 1 << 30))
            patch.setattr(
                torch.cuda, "get_device_properties", lambda _: SimpleNamespace(name="other device", major=9, minor=0)
            )
            patch.setattr(torch.cuda, "current_stream", lambda _: None)
            patch.setattr(torch.cuda, "Event", device.event)
        yield device


def _asks_for_numbers(func: Any, args: Sequence[Any]) -> bool:
    """Return whether the host cannot go on without numbers of the device: they are the result, or decide its shape."""
    if func in (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default):
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


@cache
def _is_on_mps(name: str) -> bool:
    """Return whether MPS has an operation, by torch's own table of kernels."""
    entry = _table().get(name, "")
    if delegate := re.search(r"structured_delegate: (\S+)", entry):
        entry = _table()[delegate[1]]
    if name.endswith("_for_cpu"):
        return True  # a GPU has another in its place
    there = "dispatch:" not in entry or "MPS" in entry or "Composite" in entry
    return there and not name.startswith(_NEW_ON_MPS)


@cache
def _table() -> Mapping[str, str]:
    file = Path(torch.__file__).parents[1] / "torchgen/packaged/ATen/native/native_functions.yaml"
    return {entry.partition("(")[0]: entry for entry in file.read_text().split("\n- func: ")}


def _tensors(values: object) -> Iterator[Tensor]:
    """Yield the tensors among the arguments or the results of an operation."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list | dict):
        for each in values.values() if isinstance(values, dict) else values:
            yield from _tensors(each)


def _mapped(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Put other tensors in the place of those among the arguments or the results of an operation."""
    if isinstance(values, dict):
        return {name: _mapped(each, change) for name, each in values.items()}
    if isinstance(values, tuple | list):
        return type(values)(_mapped(each, change) for each in values)
    return change(values) if isinstance(values, Tensor) else values


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _pinned(tensor: Tensor) -> Tensor:
    tensor.is_pinned_here = True  # type: ignore[attr-defined]
    return tensor
