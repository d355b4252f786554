"""`tipsseg report` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from output_folders import LABELS, make_run, save_inputs
from PIL import Image
from running import Command

SCENES = Path(__file__).resolve().parents[2] / "examples/scenes"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    save_inputs(tmp_path / "imgs", LABELS)
    make_run(tmp_path / "out", tmp_path / "imgs", formats=("png",))
    return tmp_path / "out"


def facts(page: Path) -> dict[str, object]:
    text = (page / "data/run.js").read_text("ascii")
    found: dict[str, object] = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    return found


def test_a_page(command: Command, out: Path) -> None:
    ran = command("report", out)
    assert (ran.code, ran.out) == (0, f"{out}/report/index.html\n")
    assert facts(out / "report")["truth"] is None
    own = [each["colour"] for each in json.loads((out / "classes.json").read_bytes())["classes"]]
    assert [each["colour"] for each in facts(out / "report")["classes"]] == own  # type: ignore[attr-defined]


def test_other_colours_of_the_vocabulary_draw_the_page_again(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SCENES / "lake", "imgs")
    thumbnails = []
    for colour in ("#0072b2", "#d55e00"):
        Path("classes.toml").write_text(f'[[classes]]\nname = "panda"\ncolour = "{colour}"\n')
        ran = command(
            "label", "imgs", "-m", "tiny", "--device", "cpu", "--vocab", "classes.toml", "-f", "png", "-o", "out"
        )
        assert (ran.code, command("report", "out").code) == (0, 0)
        assert [each["colour"] for each in facts(Path("out/report"))["classes"]] == [colour]  # type: ignore[attr-defined]
        thumbnails.append({path.name: path.read_bytes() for path in Path("out/report/thumbnails").rglob("*.jpg")})
    assert "2 unchanged" in ran.err
    assert thumbnails[0] != thumbnails[1]


def test_a_page_that_was_changed_is_set_aside(command: Command, out: Path) -> None:
    for _ in range(2):
        assert command("report", out).code == 0
    index = out / "report/index.html"
    before = index.read_bytes()
    assert not list(index.parent.glob("*.changed"))
    index.write_text("mine")
    ran = command("report", out)
    assert (ran.code, index.read_bytes(), "index.html.changed" in ran.err) == (0, before, True)
    assert (out / "report/index.html.changed").read_text() == "mine"


def test_no_page_is_written_through_a_link_out_of_the_folder(command: Command, out: Path) -> None:
    (out.parent / "elsewhere").mkdir()
    (out / "report").symlink_to("../elsewhere")
    ran = command("report", out)
    assert (ran.code, "a link leads out" in ran.err, list((out.parent / "elsewhere").iterdir())) == (1, True, [])


def test_scores_on_the_page(command: Command, out: Path) -> None:
    for name, ids in LABELS.items():
        path = (out.parent / "gt" / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(ids == 255, 0, ids).astype(np.uint8)).save(path)
    ran = command("report", out, "--gt", out.parent / "gt")
    assert ran.code == 0, ran.err
    assert facts(out / "report")["truth"] is not None
    assert command("check", out).code == 0
    ran = command("report", out, "--gt", out.parent / "gt", "--layout", "voc20")
    assert (ran.code, "got 20 classes, but the masks" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (
            ["report", "out", "--features", "nowhere"],
            1,
            "Error: nowhere: not a feature store\nHint: Compute features with tipsseg encode",
        ),
    ],
)
def test_wrong_usage(command: Command, out: Path, arguments: list[str], code: int, part: str) -> None:
    ran = command(*arguments, cwd=out.parent)
    assert (ran.code, ran.out) == (code, "")
    assert part in ran.err


def test_report_removes_files_of_a_killed_process(command: Command, out: Path) -> None:
    assert command("report", out).code == 0
    before = {path.relative_to(out) for path in out.rglob("*")}
    for place in ("report/.tipsseg-lock", "report/.tipsseg-0123.html", "report/data/.tipsseg-0123.js"):
        (out / place).touch()
    assert command("report", out).code == 0
    assert {path.relative_to(out) for path in out.rglob("*")} == before
