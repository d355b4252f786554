"""A format is one class and one line of the registry: a format that is made here goes through every command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from output_folders import tree
from PIL import Image
from typer.testing import CliRunner

from tipsseg.cli.main import app
from tipsseg.formats import FORMATS
from tipsseg.formats.base import Format, ImageLabels, Rows, RunFacts
from tipsseg.util.json import json_bytes


class Toy(Format):
    """The scores of objects: a text file per image, and a line per image in one file."""

    name = "toy"
    description = "scores of objects: toys/<image>.txt and toys.jsonl"
    folder = "toys"
    suffix = ".txt"
    files = ("toys.jsonl",)
    needs = frozenset({"objects"})

    def encode(self, image: ImageLabels, run: RunFacts) -> bytes:
        return "".join(f"{each.region.class_id} {each.score}\n" for each in image.objects).encode()

    def image_rows(self, image: ImageLabels, run: RunFacts) -> Rows:
        return (json_bytes({"image": image.ref.name, "scores": [each.score for each in image.objects]}),)

    def run_file(self, name: str, run: RunFacts, images: Sequence[str], rows: Callable[[str], Rows]) -> Iterator[bytes]:
        for image in images:
            yield rows(image)[0] + b"\n"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry with one line more."""
    monkeypatch.setitem(FORMATS, Toy.name, Toy())


def tipsseg(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; returns what it says on stderr."""
    ran = CliRunner().invoke(app, list(map(str, arguments)))
    assert ran.exit_code == code, ran.output
    return ran.stderr


def save_images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(coarse).resize((50, 40), Image.Resampling.NEAREST).save(folder / name)


def label(images: Path, output: Path, formats: str) -> None:
    tipsseg("label", images, "-c", "red ball,tree", "-m", "tiny", "--device", "cpu", "-o", output, "-f", formats)


def own(output: Path) -> dict[str, bytes]:
    """The files of the toy format."""
    return {name: data for name, data in tree(output).items() if name.startswith("toys")}


@pytest.mark.usefixtures("toy")
def test_a_format_of_one_class_goes_through_every_command(tmp_path: Path) -> None:
    save_images(tmp_path / "imgs/one", "a.png", "sub/b.png")
    save_images(tmp_path / "imgs/two", "c.png")
    labelled, converted, joined = (tmp_path / name for name in ("labelled", "converted", "joined"))
    label(tmp_path / "imgs", labelled, "png,toy")
    assert sorted(own(labelled)) == ["toys.jsonl", "toys/one/a.txt", "toys/one/sub/b.txt", "toys/two/c.txt"]
    lines = [json.loads(line) for line in own(labelled)["toys.jsonl"].splitlines()]
    assert [line["image"] for line in lines] == ["one/a.png", "one/sub/b.png", "two/c.png"]
    assert all(0 <= score <= 1 for line in lines for score in line["scores"])
    assert any(line["scores"] for line in lines)

    label(tmp_path / "imgs", converted, "png")
    tipsseg("convert", converted, "-f", "toy")
    assert own(converted) == own(labelled)

    shards = ["1/2", "2/2"]
    for shard in shards:
        tipsseg(
            "label", tmp_path / "imgs", "-c", "red ball,tree", "-m", "tiny", "--device", "cpu",
            "-o", tmp_path / "shards", "-f", "png,toy", "--shard", shard,
        )  # fmt: skip
    assert own(tmp_path / "shards") == own(labelled)
    tipsseg("merge", tmp_path / "shards", "-o", joined)
    assert own(joined) == own(labelled)

    for output in (labelled, converted, joined, tmp_path / "shards"):
        assert "nothing wrong" in tipsseg("check", output)
        tipsseg("convert", output, "--drop", "toy")
        assert own(output) == {}


CHANGES: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "a per-image file that a person changed": (
        lambda out: (out / "toys/a.txt").write_bytes(b"1 0.5\n"), 0, "toys/a.txt: changed by hand"
    ),
    "a per-image file that is gone": (lambda out: (out / "toys/a.txt").unlink(), 1, "toys/a.txt: missing"),
    "a per-image file of no image": (
        lambda out: (out / "toys/z.txt").touch(), 0, "toys/z.txt"
    ),
    "a file of the run that a person changed": (
        lambda out: (out / "toys.jsonl").write_bytes(b"{}\n"), 0, "toys.jsonl: changed by hand"
    ),
    "a file of the run that is gone": (lambda out: (out / "toys.jsonl").unlink(), 1, "toys.jsonl: missing"),
}  # fmt: skip


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("case", CHANGES)
def test_check_finds_changed_files(tmp_path: Path, case: str) -> None:
    change, code, says = CHANGES[case]
    save_images(tmp_path / "imgs", "a.png")
    label(tmp_path / "imgs", tmp_path / "out", "png,toy")
    change(tmp_path / "out")
    ran = CliRunner().invoke(app, ["check", str(tmp_path / "out")])
    assert (ran.exit_code, f"{tmp_path}/out/{says}" in ran.output) == (code, True), ran.output
