"""`tipsseg label` on images in archives, tables, videos and buckets: the same labels as from files, and the same resuming."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masks import pixels
from PIL import Image
from running import Command
from sources import Site, forget_remote, serving, serving_bucket, write_parquet, write_tar, write_video, write_zip

from tipsseg.images.decoding import ImageInput, ImageReader

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
OPTIONS = ["-c", "panda,tree,sky", "-m", "tiny", "--device", "cpu", "--quiet"]
NAMES = ("desert.png", "meadow/house.webp", "street/turned.jpg")
DATA = {name: (SCENES / name).read_bytes() for name in NAMES}


def masks(out: Path) -> dict[str, object]:
    """The pixels of all masks."""
    return {str(path.relative_to(out / "masks")): pixels(path) for path in sorted((out / "masks").rglob("*.png"))}


def entries(out: Path) -> dict[str, Any]:
    return {entry["image"]: entry for entry in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The masks of the three scenes, from files."""
    from running import run_command

    folder = tmp_path_factory.mktemp("files")
    for name, data in DATA.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    assert run_command("label", folder / "in", "-o", folder / "out", *OPTIONS).code == 0
    return [*masks(folder / "out").values()]


def write_rows(path: Path) -> Path:
    return write_parquet(path, [{"bytes": data, "path": name} for name, data in DATA.items()])


@pytest.mark.parametrize(
    ("name", "write"),
    [("shard.tar", write_tar), ("photos.zip", write_zip), ("train.parquet", lambda path, _: write_rows(path))],
    ids=["tar", "zip", "parquet"],
)
def test_containers_are_like_folders(
    name: str, write: Any, command: Command, tmp_path: Path, expected: list[object]
) -> None:
    (tmp_path / "in").mkdir()
    path, out = write(tmp_path / "in" / name, DATA), tmp_path / "out"
    assert command("label", tmp_path / "in", "-o", out, *OPTIONS, "-f", "png,yolo,hf").code == 0
    stem = path.stem
    assert [*masks(out).values()] == expected
    assert all(image.startswith(f"{stem}/") for image in entries(out))
    assert all(entry["path"].startswith(f"{path}/") for entry in entries(out).values())

    # Resuming reads nothing, and other commands find the images.
    again = command("label", path, "-o", out, *OPTIONS[:-1], "-f", "png,yolo,hf")
    assert (again.code, "3 unchanged" in again.err) == (0, True)
    for arguments in (["check", out], ["convert", out, "-f", "overlay,cutouts"], ["report", out], ["rank", out]):
        ran = command(*arguments)
        assert ran.code == 0, ran.err
    assert "nothing wrong" in command("check", out, "--images", tmp_path / "in").err
    # Links are copies, which tools can open.
    for link in (out / "hf" / "images").rglob("*.*"):
        assert link.read_bytes() in DATA.values()


def test_one_member_by_its_address_has_its_name_in_the_container(command: Command, tmp_path: Path) -> None:
    path, out = write_tar(tmp_path / "shard.tar", DATA), tmp_path / "out"
    assert command("label", path / "meadow/house.webp", "-o", out, *OPTIONS).code == 0
    assert list(entries(out)) == ["shard/meadow/house.webp"]
    listed = command(
        "label", "-", "-o", out, *OPTIONS, stdin=f"{path}/desert.png\n{path}/gone.png\n".encode(), cwd=tmp_path
    )
    assert listed.code == 1
    assert f"{path}/gone.png: no such member of the archive" in listed.err
    assert sorted(entries(out)) == ["shard/desert.png", "shard/meadow/house.webp"]


def test_faults_in_a_container_are_failed_images(command: Command, tmp_path: Path) -> None:
    members = {
        "good.png": DATA["desert.png"],
        "../../evil.png": DATA["desert.png"],
        "bad.png": b"nothing",
        "a.json": b"{}",
    }
    path, out = write_tar(tmp_path / "shard.tar", members), tmp_path / "out"
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4")
    ran = command("label", path, tmp_path / "broken.zip", "-o", out, *OPTIONS)
    assert ran.code == 1
    assert "its name leads out of the archive" in ran.err
    assert "broken.zip: not a readable zip file" in ran.err
    assert "shard.tar/bad.png: not an image" in ran.err
    assert [*masks(out)] == ["shard/good.png"]
    assert not list(tmp_path.rglob("evil*"))
    failed = [json.loads(line)["image"] for line in (out / "errors.jsonl").read_text().splitlines()]
    assert sorted(failed) == ["broken.zip", "shard/bad.png", "shard/evil.png"]
    write_zip(tmp_path / "broken.zip", {"a.png": DATA["desert.png"]})
    again = command("label", path, tmp_path / "broken.zip", "-o", out, *OPTIONS)
    assert again.code == 1
    assert "broken/a.png" in entries(out)


def test_two_containers_of_one_name_are_refused(command: Command, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", DATA)
    write_zip(tmp_path / "a.zip", DATA)
    ran = command("label", tmp_path, "-o", tmp_path / "out", *OPTIONS)
    assert (ran.code, "would share one output" in ran.err) == (1, True)


def test_frames_of_a_video(command: Command, tmp_path: Path) -> None:
    path, out = write_video(tmp_path / "clip.mp4", 30), tmp_path / "out"
    ran = command("label", path, "-o", out, *OPTIONS)
    assert (ran.code, "requires the interval of its frames" in ran.err, "--every" in ran.err) == (2, True, True)
    skipped = command("label", tmp_path, "-o", out, *OPTIONS)
    assert (skipped.code, "1 .mp4" in skipped.err, "--every" in skipped.err) == (1, True, True)
    assert command("label", path, "--every", "1s", "-o", out, *OPTIONS, "-f", "png,overlay,yolo").code == 0
    assert list(entries(out)) == ["clip/000000", "clip/000010", "clip/000020"]
    assert command("label", path, "--every", 5, "-o", out, *OPTIONS, "-f", "png,overlay,yolo").code == 0
    assert len(entries(out)) == 6
    for image in (out / "yolo" / "images").rglob("*.bmp"):
        assert ImageReader().pixels(image).shape == (64, 96, 3)
    assert len(list((out / "yolo" / "images").rglob("*.bmp"))) == 6
    assert "nothing wrong" in command("check", out).err


# ---- URLs ----


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_remote(monkeypatch)


@pytest.fixture
def site(fresh: None) -> Iterator[Site]:
    with serving(Site(files={f"/in/{name}": data for name, data in DATA.items()})) as site:
        yield site


def test_a_web_folder_beside_local_files(
    site: Site, command: Command, tmp_path: Path, expected: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    site.etags = dict.fromkeys(site.files, '"1"')
    assert command("label", f"{site.url}/in/", "-o", out, *OPTIONS, "-f", "png,label-studio").code == 0
    assert [*masks(out).values()] == expected
    assert set(site.gets.values()) == {1}
    tasks = json.loads((out / "label-studio.json").read_text())
    assert {task["data"]["image"] for task in tasks} == {f"{site.url}/in/{name}" for name in NAMES}

    # Going on compares ETags, and reads nothing.
    forget_remote(monkeypatch)
    before = site.gets.copy()
    again = command("label", f"{site.url}/in/", "-o", out, *OPTIONS[:-1], "-f", "png,label-studio")
    assert "3 unchanged" in again.err
    assert {name: site.gets[name] - before[name] for name in site.files} == dict.fromkeys(site.files, 0)

    (tmp_path / "local.png").write_bytes(DATA["desert.png"])
    lines = f"{tmp_path}/local.png\n{site.url}/in/desert.png\n{site.url}/in/gone.png\n"
    mixed = command("label", "-", "-o", tmp_path / "list", *OPTIONS, stdin=lines.encode(), cwd=tmp_path)
    assert mixed.code == 1
    assert mixed.err.count("gone.png: no such file") == 1
    assert len(entries(tmp_path / "list")) == 2


def test_an_image_of_a_web_folder_has_the_name_of_its_own_address(site: Site, command: Command, tmp_path: Path) -> None:
    site.files = {"/in/b c.png": DATA["desert.png"], "/in/a.png": DATA["desert.png"]}
    folder, out = f"{site.url}/in/", tmp_path / "out"
    assert command("label", folder, "-o", out, *OPTIONS, "-f", "png").code == 0
    assert [*entries(out)] == ["a.png", "b c.png"]
    again = command("label", folder + "b%20c.png", "-o", out, *OPTIONS[:-1], "-f", "png")
    assert "1 unchanged" in again.err, again.err


def test_images_outside_the_folder_of_a_list_are_found_again(site: Site, command: Command, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c d.png").write_bytes(DATA["desert.png"])
    site.files["/in/e f.png"] = DATA["desert.png"]
    lines = f"../../c d.png\n{site.url}/in/e%20f.png?token=secret\n"
    out = tmp_path / "out"
    assert command("label", "-", "-o", out, *OPTIONS, "-f", "png", stdin=lines.encode(), cwd=tmp_path / "a/b").code == 0
    assert sorted(entries(out)) == ["127.0.0.1/in/e f.png", "c d.png"]
    ran = command("convert", out, "-f", "overlay")
    assert ran.code == 0, ran.err
    assert not [path for path in out.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_passwords_of_urls_are_nowhere(site: Site, command: Command, tmp_path: Path) -> None:
    url = site.url.replace("http://", "http://me:SECRET@")
    asked = ("-o", "out", *OPTIONS, "-f", "png")
    for arguments, code in (
        (["label", f"{url}/in", *asked], 0),
        (["label", f"{url}/in", *asked], 0),
        (["label", f"{url}/in", "-c", "car", "-m", "tiny", "-o", "out"], 1),
        (["label", f"{url}/in/desert.png?sig=SECRET", *asked, "--jsonl"], 0),
        (["label", "-", *asked], 1),
        (["check", "out", "--images", f"{url}/gone?sig=SECRET"], 1),
        (["encode", f"{url}/in", "-m", "tiny", "-o", "feats"], 0),
        (["report", "out", "--images", f"{url}/in"], 0),
        ([f"{url}/in", "-c", "tree"], 2),
        (["label", f"{url}/in", "-c", "tree", "-f", f"{url}/x"], 2),
    ):
        lines = f"{url}/in/gone.png\nftp://me:SECRET@host/x.png\nhttp://me:SECRET/x@host/x.png\n"
        ran = command(*arguments, stdin=lines.encode(), cwd=tmp_path)
        assert (ran.code, "SECRET" in ran.out + ran.err) == (code, False), arguments
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if "SECRET" in str(path) or b"SECRET" in path.read_bytes()]
    site.files.clear()
    assert "not found; the password of its URL" in command("convert", "out", "-f", "overlay", cwd=tmp_path).err
    with closing(sqlite3.connect(tmp_path / "out/.tipsseg/cache.db")) as state:
        assert "SECRET" not in "".join(state.iterdump())


@pytest.mark.parametrize("option", ["-o", "-o=", "--features=", "--regions=", "--onto="])
def test_only_images_may_be_urls(command: Command, tmp_path: Path, option: str) -> None:
    ran = command("label", SCENES / "desert.png", *OPTIONS, f"{option}s3://me:SECRET@bucket/x", cwd=tmp_path)
    assert (ran.code, "not a URL" in ran.err, "SECRET" in ran.err) == (2, True, False)
    assert not list(tmp_path.iterdir())


def test_a_list_goes_on_after_bad_addresses(command: Command, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 3)
    lines = f"ftp://host/a.png\n{tmp_path}/clip.mp4\n{SCENES}/desert.png\n{tmp_path}/gone.tar\n"
    ran = command("label", "-", "-o", tmp_path / "out", *OPTIONS, stdin=lines.encode(), cwd=tmp_path)
    assert (ran.code, len(ran.err.splitlines())) == (1, 3)
    for message in ("ftp:// URLs are not supported", "a video requires the interval", "gone.tar: no such file"):
        assert message in ran.err
    assert len(entries(tmp_path / "out")) == 1


def test_libraries_print_no_lines_of_their_own_about_broken_videos(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", 30).read_bytes()
    (tmp_path / "clip.mp4").write_bytes(video[: len(video) // 2])
    (tmp_path / "head.avi").write_bytes(b"RIFF\x00\x00\x10\x00AVI LIST" + bytes(range(256)) * 99)
    names = [str(tmp_path / name) for name in ("clip.mp4", "head.avi", "good.png")]
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(names[-1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    command = [sys.executable, "-m", "tipsseg", "label", *names, "-c", "tree", "-m", "tiny", "-q", "--every", "5"]
    ran = subprocess.run([*command, "-o", tmp_path / "out"], env=environment, capture_output=True, text=True)
    lines = ran.stderr.splitlines()
    assert (ran.returncode, len(lines), all(line.startswith("Error: ") for line in lines)) == (1, 2, True), ran.stderr


def test_a_second_run_of_a_program_looks_at_the_web_again(site: Site, tmp_path: Path) -> None:
    """Files of a web folder have no version in its listing."""
    import tipsseg

    site.etags = dict.fromkeys(site.files, '"1"')
    url, name, out = f"{site.url}/in/", "/in/desert.png", tmp_path / "out"

    def label() -> list[str]:
        run = tipsseg.label_folder(url, ["tree"], output=out, model="tiny", formats=["png"])
        return [image.status for image in run]

    assert label() == ["labelled"] * 3
    assert label() == ["unchanged"] * 3
    assert {site.gets[file] for file in site.files} == {1}
    site.files[name], site.etags[name] = DATA["street/turned.jpg"], '"2"'
    assert sorted(label()) == ["labelled", "unchanged", "unchanged"]
    model = tipsseg.load("tiny", device="cpu")
    size = model.encode(f"{site.url}{name}").size
    site.files[name], site.etags[name] = DATA["meadow/house.webp"], '"3"'
    assert model.encode(f"{site.url}{name}").size != size


def test_an_unreachable_image_costs_one_line_and_no_secret(site: Site, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    site.faults["/in/desert.png"] = [500] * 20
    lines = "".join(f"{site.url}/in/{name}?signature=secret\n" for name in NAMES)
    ran = command("label", "-", "-o", out, *OPTIONS, stdin=lines.encode(), cwd=tmp_path)
    assert ran.code == 1
    assert [line for line in ran.err.splitlines() if "500" in line] == [
        f"Error: {site.url}/in/desert.png: cannot be fetched (HTTP status 500)"
    ]
    assert "secret" not in ran.err + ran.out
    assert not [path for path in out.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_a_bucket(
    fresh: None, command: Command, tmp_path: Path, expected: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_bucket(monkeypatch) as client:
        for name, data in DATA.items():
            client.put_object(Bucket="bucket", Key=f"in/{name}", Body=data)
        client.put_object(Bucket="bucket", Key="shard.tar", Body=write_tar(tmp_path / "a.tar", DATA).read_bytes())
        out = tmp_path / "out"
        assert command("label", "s3://bucket/in", "-o", out, *OPTIONS).code == 0
        assert [*masks(out).values()] == expected
        assert json.loads((out / "run.json").read_text())["image_root"] == "s3://bucket/in"
        again = command("label", "s3://bucket/in", "-o", out, *[word for word in OPTIONS if word != "--quiet"])
        assert (again.code, "relative to" in again.err) == (0, False), again.err
        assert "nothing wrong" in command("check", out).err
        assert command("label", "s3://bucket/shard.tar", "-o", tmp_path / "tar", *OPTIONS).code == 0
        assert [*masks(tmp_path / "tar").values()] == expected
        missing = command("label", "s3://bucket/none", "-o", tmp_path / "none", *OPTIONS)
        assert (missing.code, "s3://bucket/none: no such file at this URL" in missing.err) == (1, True)


def test_an_interrupted_fetch_does_not_keep_the_process(site: Site, tmp_path: Path) -> None:
    fetched = {f"/in/{name}" for name in NAMES}
    site.faults = {path: ["drip"] for path in fetched}
    command = [sys.executable, "-m", "tipsseg", "label", f"{site.url}/in/", "-o", tmp_path / "out", *OPTIONS]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE) as process:
        try:
            while process.poll() is None and not fetched <= site.gets.keys():
                time.sleep(0.05)
            process.terminate()
            assert process.wait(300) == 143  # the images take hours
        finally:
            process.kill()


def test_a_stretched_image_is_that_of_its_grey_values(command: Command, tmp_path: Path) -> None:
    grey = np.asarray(Image.open(SCENES / "meadow/panda-and-tree.jpg").convert("L"))
    (tmp_path / "in").mkdir()
    Image.fromarray(grey.astype(np.uint16) * 9 + 1000).save(tmp_path / "in/a.png")
    (tmp_path / "plain").mkdir()
    low, high = int(grey.min()), int(grey.max())
    Image.fromarray(np.rint((grey - low) * (255 / (high - low))).astype(np.uint8)).save(tmp_path / "plain/a.png")
    formats = ["-f", "png,overlay,cutouts"]
    assert command("label", tmp_path / "plain", "-o", tmp_path / "expected", *OPTIONS, *formats).code == 0
    stretched = ["--stretch", "0,100"]
    assert command("label", tmp_path / "in", "-o", tmp_path / "out", *OPTIONS, *formats, *stretched).code == 0
    files = ["masks/a.png", "overlays/a.jpg"]
    assert [pixels(tmp_path / "out" / name) for name in files] == [
        pixels(tmp_path / "expected" / name) for name in files
    ]
    # Stored features know it, and so do conversions.
    features = tmp_path / "features"
    encode = ["-m", "tiny", "--device", "cpu", "--quiet"]
    assert (
        command("encode", tmp_path / "in", "-o", features, *encode, "--feature-dtype", "float32", *stretched).code == 0
    )
    refused = command("label", tmp_path / "in", "-o", tmp_path / "other", *OPTIONS, "--features", features)
    assert (refused.code, "the stretch is 0,100, not None" in refused.err) == (1, True), refused.err
    kept = ["-o", tmp_path / "kept", *OPTIONS, "-f", "png", *stretched, "--features", features]
    assert command("label", tmp_path / "in", *kept).code == 0
    assert masks(tmp_path / "kept") == masks(tmp_path / "expected")
    assert command("convert", tmp_path / "kept", "-f", "overlay").code == 0
    assert (tmp_path / "kept/overlays/a.jpg").read_bytes() == (tmp_path / "expected/overlays/a.jpg").read_bytes()
    import tipsseg

    model = tipsseg.load("tiny", device="cpu")
    labels = model.label(tmp_path / "in/a.png", ["panda", "tree", "sky"], stretch="0,100").labels
    assert (labels == np.asarray(Image.open(tmp_path / "expected/masks/a.png"))).all()


def test_python_takes_the_same_addresses(tmp_path: Path, expected: list[object]) -> None:
    import tipsseg

    path = write_tar(tmp_path / "shard.tar", DATA)
    model = tipsseg.load("tiny", device="cpu")
    with (SCENES / "desert.png").open("rb") as file:
        inputs: list[ImageInput] = [f"{path}/desert.png", file, SCENES / "desert.png"]
        one, other, third = [labels.labels for labels in model.labeller(["panda", "tree", "sky"]).label_many(inputs)]
    assert (one == third).all()
    assert (other == third).all()
    run = tipsseg.label_folder(
        write_video(tmp_path / "clip.mp4", 20), ["tree"], output=tmp_path / "out", model="tiny", every=10
    )
    assert [image.path for image in run] == [tmp_path / "clip.mp4" / name for name in ("000000", "000010")]
    features = model.encode(f"{path}/desert.png")
    assert features.size == ImageReader().size(SCENES / "desert.png")
    shutil.rmtree(tmp_path / "out")
