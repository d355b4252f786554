"""Everything that a user can get wrong: what is said, and the exit code."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from running import Command

from tipsseg.images import access, decoding
from tipsseg.weights import fetching


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# name: (arguments, exit code, the point of stderr)
USAGE = {
    "no classes": (["imgs"], 2, 'no classes given\nHint: Pass the classes, for example: --classes="panda leg,tree"'),
    "unknown model": (["imgs", "-c", "a", "-m", "l15"], 2, "unknown model 'l15'\nHint: Did you mean 'l14'?"),
    "folder without a model": (["imgs", "-c", "a", "-m", "imgs"], 1, "imgs/config.json: no such file\n"),
    "unknown format": (["imgs", "-c", "a", "-f", "png,cocoo"], 2, "unknown format 'cocoo'\nHint: Did you mean 'coco'?"),
    "format twice": (["imgs", "-c", "a", "-f", "png,png"], 2, "duplicate format: png, png\n"),
    "confidence": (["imgs", "-c", "a", "--min-confidence", "55"], 2, "not 55.0\nHint: Write 0.6 for 60 %."),
    "jobs": (["imgs", "-c", "a", "--jobs", "0"], 2, "--jobs=0 is too small; the minimum is 1\n"),
    "dash among paths": (
        ["imgs", "-", "-c", "a"],
        2,
        "- reads a list from stdin and cannot be combined with other paths",
    ),
    "-0 without paths on either side": (
        ["imgs", "-0", "--jsonl", "-c", "a"],
        2,
        "-0 separates paths, but --jsonl prints no",
    ),
    "output is a file": (["imgs", "-c", "a", "-o", "imgs/a.png"], 1, "cannot write imgs/a.png: imgs/a.png is a file\n"),
    "empty model": (["imgs", "-c", "a", "-m", ""], 2, "the model name is empty\n"),
    "a file of background": (
        ["imgs", "-c", "a", "--background", "stuff.TXT"],
        2,
        "--background takes phrases, but stuff.TXT",
    ),
    "classes twice": (["imgs", "-c", "a", "--vocab", "voc20"], 2, "--classes and --vocab exclude each other\n"),
    "no address of Ray": (
        ["imgs", "-c", "a", "--ray", "4x0.5"],
        2,
        "--ray=4x0.5 is not the address of a Ray cluster\n",
    ),
    "no images": (["-c", "a"], 2, "no images given\nHint: Pass images or folders, or - to read a list from stdin."),
    "address": (["ftp://example.org/a.jpg", "-c", "a"], 1, "ftp:// URLs are not supported\nHint: Download the file."),
    "input among outputs": (
        ["labels/masks", "-c", "a"],
        1,
        "labels/masks/a.png: an input in labels/masks, which this run",
    ),
}


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """All these must be said before weights are touched."""

    def never(spec: object, *, quiet: bool = False) -> Path:
        raise AssertionError("weights were fetched")

    monkeypatch.setattr(fetching, "fetch", never)


def make_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 60), (10, 200, 30)).save(path)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage(command: Command, tmp_path: Path, case: str) -> None:
    make_image(tmp_path / "imgs" / "a.png")
    make_image(tmp_path / "labels" / "masks" / "a.png")
    arguments, code, part = USAGE[case]
    ran = command("label", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("Error: ")
    assert part in ran.err


@pytest.mark.usefixtures("no_weights")
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_asked_and_absent(command: Command, tmp_path: Path) -> None:
    make_image(tmp_path / "imgs" / "a.png")
    ran = command("label", "imgs", "-c", "a", "--device", "cuda")
    assert ran.code == 1
    assert ran.err.startswith("Error: device 'cuda' is not available: ")
    assert ran.err.endswith("\nHint: Use device auto to select an available device, or device cpu.\n")


def png_of_size(width: int, height: int) -> bytes:
    """A PNG header that claims a size, with hardly any data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def jpeg() -> bytes:
    data = io.BytesIO()
    Image.effect_noise((80, 80), 60).convert("RGB").save(data, "JPEG")
    return data.getvalue()


def endless() -> bytes:
    """JPEG 2000 that says that each of its many tiles has as many layers as there can be; no decoder comes to its end."""
    data = io.BytesIO()
    Image.new("RGB", (512, 512), 128).save(data, "JPEG2000", tile_size=(4, 4), no_jp2=True)
    style = data.getvalue().index(b"\xff\x52")
    return data.getvalue()[: style + 6] + b"\xff\xff" + data.getvalue()[style + 8 :]


BAD_IMAGES = {
    "zero bytes": (b"", "empty file (0 bytes)"),
    "text": (b"this is no picture\n", "not an image"),
    "truncated": (jpeg()[:700], "truncated"),
    "bomb": (png_of_size(40_000, 30_000), "pixels"),
    "endless": (endless(), "decoding takes more than 1 seconds"),
    "unreadable": (jpeg(), "no read permission"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_costs_one_line_and_the_others_are_done(
    command: Command, mlp_checkpoint: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, reason = BAD_IMAGES[case]
    for name in ("a.png", "z.png"):
        make_image(tmp_path / "imgs" / name)
    bad = tmp_path / "imgs" / "m.jpg"
    bad.write_bytes(content)
    monkeypatch.setattr("tipsseg.images.decoding.DECODE_SECONDS", 1)
    if case == "unreadable":
        real_open = access.open_source

        def deny(path: Path) -> object:
            # Permissions do not stop a test that runs as root.
            if path.name == bad.name:
                raise PermissionError(13, "Permission denied", str(path))
            return real_open(path)

        monkeypatch.setattr(decoding, "open_source", deny)
    ran = command("label", "imgs", "-c", "a", "-m", mlp_checkpoint, "-f", "png,coco", "--quiet")
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("Error: imgs/m.jpg: ")
    assert reason in ran.err
    assert ran.out.splitlines() == [
        f"labels/{n}" for n in ("masks/a.png", "masks/z.png", "annotations.json", "classes.json")
    ]
    (record,) = [json.loads(line) for line in (tmp_path / "labels/errors.jsonl").read_text().splitlines()]
    assert record["image"] == "m.jpg"
    assert reason in record["reason"]
    images = json.loads((tmp_path / "labels/annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["a.png", "z.png"]
    assert json.loads((tmp_path / "labels/run.json").read_text())["counts"] == {
        "labelled": 2,
        "unchanged": 0,
        "failed": 1,
        "edited": 0,
    }

    bad.unlink()
    assert command("label", "imgs", "-c", "a", "-m", mlp_checkpoint).code == 0
    assert not (tmp_path / "labels/errors.jsonl").exists()


def test_a_bad_image_in_a_real_process(process: Command, mlp_checkpoint: Path, tmp_path: Path) -> None:
    make_image(tmp_path / "imgs" / "a.png")
    (tmp_path / "imgs" / "b.jpg").write_bytes(b"")
    ran = process("label", "imgs", "-c", "tree", "-m", mlp_checkpoint, cwd=tmp_path)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "labels/masks/a.png",
        "labels/overlays/a.jpg",
        "labels/annotations.json",
        "labels/classes.json",
    ]
    assert "Error: imgs/b.jpg: empty file (0 bytes)" in ran.err
    assert "1 image labelled, 1 failed" in ran.err
    assert not list((tmp_path / "labels").glob(".tipsseg-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "code", "error"),
    [
        (">&-", 0, "1 image labelled"),
        ("2>&-", 0, ""),
        (">/dev/full", 1, "Error: cannot write standard output: no space left on the device"),
    ],
)
def test_closed_and_full_streams(mlp_checkpoint: Path, tmp_path: Path, redirection: str, code: int, error: str) -> None:
    make_image(tmp_path / "imgs" / "a.png")
    line = f"'{sys.executable}' -m tipsseg label imgs -c tree -m '{mlp_checkpoint}' -f png {redirection}"
    ran = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == code, ran.stderr
    assert error in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "labels/masks/a.png").exists()
    if redirection == "2>&-":
        assert ran.stdout.splitlines() == ["labels/masks/a.png", "labels/classes.json"]


LONG = "x" * 300

# (arguments, exit code, what stderr says)
LONG_NAMES = {
    "model": (["label", "imgs", "-c", "a", "-m", LONG], 2, "Error: unknown model 'xxx"),
    "output": (["label", "imgs", "-c", "a", "-m", "tiny", "-q", "-o", LONG], 1, "the name is too long"),
    "class": (["label", "imgs", "-c", f"{LONG}.txt", "-m", "tine"], 2, "Error: --classes takes names, but 'xxx"),
    "vocabulary": (["label", "imgs", "--vocab", LONG], 2, "is neither a file nor a preset"),
    "templates": (["vocab", "show", "voc20", "--templates", LONG], 2, "is neither a file nor one of protocol, plain"),
    "truth": (["eval", "imgs", "--gt", LONG, "-c", "a"], 1, f"Error: {LONG}: no such folder"),
    "masks": (["eval", LONG, "--gt", "imgs"], 1, f"Error: {LONG}: no such folder"),
}


@pytest.mark.parametrize("case", LONG_NAMES)
def test_names_that_are_too_long_for_the_system(command: Command, tmp_path: Path, case: str) -> None:
    make_image(tmp_path / "imgs" / "a.png")
    arguments, code, message = LONG_NAMES[case]
    ran = command(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
