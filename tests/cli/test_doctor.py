from __future__ import annotations

from pathlib import Path

import pytest
from running import Command

from tipsseg.labelling import golden
from tipsseg.runs.doctor import report as doctor
from tipsseg.runs.doctor.installation import Diagnostic


def test_all_is_well(process: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    ran = process("doctor", "--device", "cpu")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[-1] == "All checks passed."
    assert {line[:6] for line in lines[:-1]} == {"ok    ", "note  ", "      "}
    assert any(line.startswith("ok    recorded numbers: cpu in float32 differs from them by up to") for line in lines)
    assert not (tmp_path / "cache").exists()


def test_something_is_wrong(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "RECORDED", (0.5,) * 10)
    ran = command("doctor")
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == "1 check failed."
    (line,) = [line for line in ran.out.splitlines() if line.startswith("FAIL")]
    assert line.startswith("FAIL  recorded numbers: ")


def test_a_device_that_is_none(command: Command) -> None:
    ran = command("doctor", "--device", "tpu")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "Error: unknown device 'tpu'\nHint: Use auto, cpu, cuda, cuda:N or mps.\n"


def test_options_and_hints_are_passed_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def examine(*arguments: object) -> list[Diagnostic]:
        asked.append(arguments)
        return [
            Diagnostic("fail", "cpu", "it is slow with argument `dtype`=float16", "Buy another."),
            Diagnostic("note", "cuda", "absent", "Use argument `device`=cpu."),
        ]

    monkeypatch.setattr(doctor, "examine", examine)
    ran = command("doctor", "--device", "cpu", "--dtype", "float16")
    assert asked == [("cpu", "float16", None)]
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.splitlines() == [
        "FAIL  cpu: it is slow with --dtype float16",
        "      Buy another.",
        "note  cuda: absent",
        "      Use --device cpu.",
        "1 check failed.",
    ]
