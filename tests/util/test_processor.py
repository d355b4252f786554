"""The name of the processor, as far as the system gives it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from tipsseg.util.processor import processor_name


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    processor_name.cache_clear()
    yield
    processor_name.cache_clear()


@pytest.mark.parametrize(
    ("text", "processor", "name"),
    [
        pytest.param("processor\t: 0\nmodel name\t: AMD EPYC\n\nmodel name\t: two\n", "x86_64", "AMD EPYC", id="Linux"),
        pytest.param("Processor: 0\nmodel name:\n", "arm", "arm", id="no name"),
        pytest.param(None, "i386", "i386", id="no such file"),
        pytest.param(None, "", "amd64", id="nothing but the architecture"),
    ],
)
def test_name(monkeypatch: pytest.MonkeyPatch, text: str | None, processor: str, name: str) -> None:
    def read(path: Path, **_: object) -> str:
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "amd64")
    assert processor_name() == name
