"""`tipsseg convert --to`: data sets that training libraries load, whole and without merging shards."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mask_codes import decode_rle
from numpy.typing import NDArray
from PIL import Image
from resuming import correct
from running import Command, Ran, run_command
from sources import serving_bucket

import tipsseg
from tipsseg.commands import dataset
from tipsseg.errors import UsageError
from tipsseg.formats.dataset import DATASETS, Dataset, Parquet
from tipsseg.images.decoding import ImageReader
from tipsseg.util.files import temporary_path

SCENES = Path(__file__).resolve().parents[2] / "examples" / "scenes"
OPTIONS = ("-c", "panda/leg,tree", "-m", "tiny", "--device", "cpu", "-q")
IDS = {"panda/leg": 1, "tree": 2, "panda": 3}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes and their labels."""
    folder = tmp_path_factory.mktemp("labelled")
    shutil.copytree(SCENES, folder / "imgs")
    assert run_command("label", folder / "imgs", *OPTIONS, "-f", "png,coco", "-o", folder / "out").code == 0
    return folder


@pytest.fixture
def here(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(labelled / "out", tmp_path / "out")
    (tmp_path / "imgs").symlink_to(labelled / "imgs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(command: Command, name: str, to: object, *more: object, outputs: tuple[object, ...] = ("out",)) -> Ran:
    return command("convert", *outputs, "-f", name, "--to", to, *more)


def mask_of(name: str) -> NDArray[np.uint8]:
    with Image.open(Path("out/masks", name).with_suffix(".png")) as picture:
        return np.array(picture)


def shards(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((place / "data").iterdir())}


def test_datasets_loads_parquet(here: Path, command: Command) -> None:
    from datasets import load_dataset

    ran = convert(command, "parquet", "set", "--shard-size", "800kB")
    assert (ran.code, "Wrote 4 pictures as PNG" in ran.err) == (0, True)
    assert len(shards(here / "set")) > 1
    rows = load_dataset("set", split="train", cache_dir=here / "cache")
    assert len(rows) == 12
    assert rows.features["objects"].feature["category"].names == ["background", *IDS]
    annotations = json.loads(Path("out/annotations.json").read_text())
    for row in rows:
        name, labels = row["file_name"], np.array(row["mask"])
        assert np.array_equal(labels, mask_of(name))
        assert np.array_equal(np.array(row["image"].convert("RGB")), ImageReader().pixels(here / "imgs" / name))
        assert {IDS[each] for each in row["names"]} == {*np.unique(labels)} - {0} | ({3} if 1 in labels else set())
        number = next(each["id"] for each in annotations["images"] if each["file_name"] == name)
        expected = [each for each in annotations["annotations"] if each["image_id"] == number]
        assert [each["rle"] for each in row["objects"]] == [each["segmentation"]["counts"] for each in expected]
        assert [each["bbox"] for each in row["objects"]] == [each["bbox"] for each in expected]
        for each in row["objects"]:
            if each["category"] == 1:  # a leg is in its panda
                whole = row["objects"][each["part_of"]]
                part, panda = (decode_rle(own["rle"], labels.shape) for own in (each, whole))
                assert whole["category"] == 3
                assert not (part & ~panda).any()


#: WebDataset leaves the closing of its files to the interpreter.
LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@LEAVES_FILES_OPEN
def test_webdataset_loads_tars(here: Path, command: Command) -> None:
    import webdataset

    assert convert(command, "webdataset", "set").code == 0
    read = webdataset.handle_extension("mask.png", lambda data: np.array(Image.open(io.BytesIO(data))))
    data = webdataset.WebDataset("set/data/train-00000.tar", shardshuffle=False).decode(read, "pil")
    found = 0
    for image, labels, facts in data.to_tuple("jpg;png;webp", "mask.png", "json"):
        assert np.array_equal(labels, mask_of(facts["file_name"]))
        assert np.array_equal(np.array(image), ImageReader().pixels(here / "imgs" / facts["file_name"]))
        assert image.size == (facts["width"], facts["height"])
        found += 1
    assert found == 12


def test_duckdb_queries_parquet(here: Path, command: Command) -> None:
    import duckdb

    assert convert(command, "parquet", "set", "--link-images").code == 0
    found = (
        duckdb.connect()
        .execute(
            "SELECT file_name, image.path FROM 'set/data/*.parquet' WHERE list_contains(names, 'tree') ORDER BY file_name"
        )
        .fetchall()
    )
    assert [name for name, _ in found] == sorted(
        str(path.relative_to("imgs"))
        for path in Path("imgs").rglob("*.*")
        if 2 in mask_of(str(path.relative_to("imgs")))
    )
    assert {Path(path) for _, path in found} <= {*Path(here.resolve() / "imgs").resolve().rglob("*.*")}


@LEAVES_FILES_OPEN
def test_a_key_has_no_dots(here: Path, command: Command) -> None:
    import webdataset

    Path("more").mkdir()
    for name in ("a.b.png", "a_b.png", "a%2Eb.png"):
        shutil.copy(SCENES / "desert.png", Path("more", name))
    assert command("label", "more", *OPTIONS, "-f", "png", "-o", "dots").code == 0
    assert convert(command, "webdataset", "set", outputs=("dots",)).code == 0
    found = [each["__key__"] for each in webdataset.WebDataset("set/data/train-00000.tar", shardshuffle=False)]
    assert len({*found}) == 3


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_shards_of_a_run_need_no_merging(here: Path, command: Command, name: str) -> None:
    for part in "123":
        words = ("imgs", *OPTIONS, "-f", "png,coco", "--shard", f"{part}/3", "-o", "own" if part == "1" else "parts")
        assert command("label", *words).code == 0
    ran = convert(command, name, "set", outputs=("parts",))
    assert (ran.code, "missing: 1" in ran.err) == (1, True)
    assert convert(command, name, "set", outputs=("parts", "own")).code == 0
    assert convert(command, name, "whole").code == 0
    assert shards(here / "set") == shards(here / "whole")


class Interrupting(Parquet):
    """Interrupts the command in its second shard."""

    def write(self, path: Path, samples: Iterator[Any], classes: Any) -> None:  # type: ignore[override]
        super().write(path, samples, classes)
        if len(list(Path("set/data").glob("train-*"))) == 1:
            raise KeyboardInterrupt


def test_an_interrupted_command_goes_on(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--shard-size", "300kB")
    assert convert(command, "parquet", "whole", *words).code == 0
    with monkeypatch.context() as patched:
        patched.setattr(dataset, "DATASETS", {"parquet": Interrupting()})
        assert convert(command, "parquet", "set", *words).code == 130
    assert [*shards(here / "set")] == ["train-00000.parquet"]
    ran = convert(command, "parquet", "set", *words)
    assert ran.out.splitlines()[0] == "set/data/train-00001.parquet"
    assert shards(here / "set") == shards(here / "whole")
    assert "; 0 shards written" in convert(command, "parquet", "set", *words).err


def test_a_correction_changes_one_shard(here: Path, command: Command) -> None:
    words = ("--shard-size", "300kB")
    convert(command, "parquet", "set", *words)
    before = shards(here / "set")
    correct(Path("out/masks/desert.png"))
    ran = convert(command, "parquet", "set", *words)
    assert "; 1 shard written" in ran.err
    changed = [name for name, data in shards(here / "set").items() if before[name] != data]
    (row,) = [
        row for name in changed for row in read_rows(here / "set/data" / name) if row["file_name"] == "desert.png"
    ]
    assert row["corrected"] is True
    assert np.array_equal(np.array(Image.open(io.BytesIO(row["mask"]["bytes"]))), mask_of("desert.png"))
    Path("set/data", changed[0]).unlink()
    assert convert(command, "parquet", "set", *words, "-q").out == f"set/data/{changed[0]}\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def test_a_loader_sees_a_correction(here: Path, command: Command) -> None:
    """`datasets` caches by the card, not by the content."""
    from datasets import load_dataset

    convert(command, "parquet", "set")
    assert not any(load_dataset("set", split="train", cache_dir=here / "cache")["corrected"])
    card = Path("set/README.md").read_text()
    Path("set/README.md").write_text(card + "My licence.\n")
    correct(Path("out/masks/desert.png"))
    assert "Kept README.md" in convert(command, "parquet", "set").err
    assert sum(load_dataset("set", split="train", cache_dir=here / "cache")["corrected"]) == 1
    changed = Path("set/README.md").read_text().splitlines()
    assert [line for line in changed if line not in card.splitlines()] == [changed[3], "My licence."]


def test_a_set_grows_and_is_cut_anew(here: Path, command: Command) -> None:
    words = ("-f", "png", "-o", "grown")
    command("label", "imgs", *OPTIONS, *words, "--sample", "6")
    for size in ("1MB", "300kB", "500kB"):
        convert(command, "parquet", "set", "--shard-size", size, outputs=("grown",))
        rows = [row["file_name"] for path in Path("set/data").iterdir() for row in read_rows(path)]
        assert len(rows) == len({*rows}) == 6
    command("label", "imgs", *OPTIONS, *words)
    convert(command, "parquet", "set", "--shard-size", "500kB", outputs=("grown",))
    convert(command, "parquet", "whole", "--shard-size", "500kB", outputs=("grown",))
    assert shards(here / "set") == shards(here / "whole")
    Path("list.txt").write_text("desert.png\n")
    ran = convert(command, "parquet", "set", "--only", "list.txt", outputs=("grown",))
    assert "had 12 images before, and has 1 now" in ran.err
    assert [row["file_name"] for path in Path("set/data").iterdir() for row in read_rows(path)] == ["desert.png"]


def test_a_set_of_other_classes_is_not_replaced(here: Path, command: Command) -> None:
    convert(command, "parquet", "set")
    before = shards(here / "set")
    command("label", "imgs/desert.png", *OPTIONS[2:], "-c", "tree,sky", "-f", "png", "-o", "other")
    ran = convert(command, "parquet", "set", outputs=("other",))
    assert (ran.code, "a data set with the classes panda/leg, tree, panda" in ran.err) == (1, True)
    assert shards(here / "set") == before


def test_fewer_images_leave_no_shards_behind(here: Path, command: Command) -> None:
    convert(command, "parquet", "set", "--shard-size", "300kB")
    assert convert(command, "parquet", "set", "--shard-size", "500MB").code == 0
    assert [*shards(here / "set")] == ["train-00000.parquet"]
    assert [*json.loads(Path("set/tipsseg.json").read_text())["shards"]] == ["data/train-00000.parquet"]


def test_other_files_are_not_touched(here: Path, command: Command) -> None:
    Path("set/data").mkdir(parents=True)
    Path("set/README.md").write_text("mine")
    Path("set/data/notes.txt").write_text("mine")
    assert "Kept README.md" in convert(command, "parquet", "set").err
    assert (Path("set/README.md").read_text(), Path("set/data/notes.txt").read_text()) == ("mine", "mine")
    shutil.move("set/tipsseg.json", "elsewhere.json")
    before = shards(here / "set")
    ran = convert(command, "parquet", "set")
    assert (ran.code, "train-00000.parquet: it was changed, or tipsseg did not write it" in ran.err) == (1, True)
    assert shards(here / "set") == before
    shutil.move("elsewhere.json", "set/tipsseg.json")
    shutil.copy("set/data/train-00000.parquet", "set/data/train-00007.parquet")
    ran = convert(command, "parquet", "set")
    assert (ran.code, "train-00007.parquet: it was changed, or tipsseg did not write it" in ran.err) == (1, True)
    Path("set/data/train-00007.parquet").unlink()
    ran = convert(command, "webdataset", "set")
    assert (ran.code, "the format parquet" in ran.err) == (1, True)


def test_an_image_that_changed_is_left_out(here: Path, command: Command) -> None:
    before = Path("imgs").resolve()
    Path("imgs").unlink()
    shutil.copytree(before, "imgs")
    shutil.move("imgs/sea.gif", "sea.gif")
    Image.new("RGB", (9, 9)).save("imgs/desert.png")
    ran = convert(command, "parquet", "set", "--images", "imgs")
    assert ran.code == 1
    assert "desert.png: changed since it was labelled" in ran.err
    assert "sea.gif: no such file" in ran.err
    assert len(read_rows(here / "set/data/train-00000.parquet")) == 10
    shutil.copy(SCENES / "desert.png", "imgs/desert.png")
    shutil.move("sea.gif", "imgs/sea.gif")
    assert convert(command, "parquet", "set", "--images", "imgs").code == 0
    assert len(read_rows(here / "set/data/train-00000.parquet")) == 12


def test_a_fraction_is_for_validation(here: Path, command: Command) -> None:
    from datasets import load_dataset

    assert convert(command, "parquet", "none", "--val-fraction", "0.01").code == 0  # none of 12 images
    assert len(load_dataset("none", split="train", cache_dir=here / "cache")) == 12
    assert convert(command, "parquet", "set", "--val-fraction", "0.3").code == 0
    found = load_dataset("set", cache_dir=here / "cache")
    assert {name: len(rows) for name, rows in found.items()} == {"train": 9, "validation": 3}


def test_a_list_selects_images(here: Path, command: Command) -> None:
    Path("list.txt").write_text("imgs/desert.png\nstreet/car.jpg\n")
    assert convert(command, "parquet", "set", "--only", "list.txt", "--images", "imgs").code == 0
    assert [row["file_name"] for row in read_rows(here / "set/data/train-00000.parquet")] == [
        "desert.png",
        "street/car.jpg",
    ]
    Path("list.txt").write_text("imgs/none.png\n")
    ran = convert(command, "parquet", "set", "--only", "list.txt")
    assert (ran.code, "imgs/none.png: not labelled in out" in ran.err) == (1, True)


def test_a_bucket(here: Path, command: Command, bucket: str) -> None:
    import fsspec

    words = ("--shard-size", "300kB")
    assert convert(command, "parquet", "set", *words).code == 0
    ran = convert(command, "parquet", f"{bucket}/set", *words)
    assert (ran.code, ran.out.splitlines()[0]) == (0, f"{bucket}/set/data/train-00000.parquet")
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    there = {name.rpartition("/")[2]: files.cat_file(name) for name in files.find(f"{bucket}/set/data")}
    assert there == shards(here / "set")
    assert "; 0 shards written" in convert(command, "parquet", f"{bucket}/set", *words).err
    files.rm_file(f"{bucket}/set/data/train-00001.parquet")
    again = convert(command, "parquet", f"{bucket}/set", *words, "-q")
    assert again.out == f"{bucket}/set/data/train-00001.parquet\n"
    ran = convert(command, "parquet", "s3://nobody/set")
    assert (ran.code, ran.err.splitlines()[0]) == (
        1,
        "Error: cannot write s3://nobody/set/tipsseg.json: cannot be reached (NoSuchBucket)",
    )


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket of a server on this machine."""
    with serving_bucket(monkeypatch):
        yield "s3://bucket"


def test_a_damaged_upload_is_found(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def damage(self: MemoryFileSystem, source: str, target: str, **options: object) -> None:
        data = Path(source).read_bytes()
        self.pipe_file(target, data[:-1] + bytes([data[-1] ^ 1]) if target.endswith(".parquet") else data)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put_file", damage)
        ran = convert(command, "parquet", "memory://damaged")
    assert (ran.code, "the upload differs from the file" in ran.err) == (1, True)
    assert convert(command, "parquet", "memory://damaged").code == 0
    assert MemoryFileSystem().cat_file("/damaged/data/train-00000.parquet")[-4:] == b"PAR1"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-f", "parquet"), "tipsseg convert OUT -f parquet --to DIR"),
        (("-f", "yolo", "--to", "set"), "Use one of parquet, webdataset. Or remove --to"),
        (("-f", "parquet,webdataset", "--to", "set"), "--to requires exactly one format"),
        (("-f", "parquet", "--to", "https://example.com/set"), "cannot be written to a web server"),
        (("-f", "parquet", "--to", "unknown://bucket/set"), "unknown://bucket/set cannot be opened"),
        (("-f", "parquet", "--to", "s3://bucket/set?token=SECRET"), "cannot be written to a URL with a query"),
        (("-f", "parquet", "--to", "out/sub"), "is in the output folder out"),
        (("-f", "parquet", "--to", "set", "--val-fraction", "2"), "--val-fraction must be"),
        (("-f", "parquet", "--to", "set", "--shard-size", "-1"), "is not a size"),
        (
            ("-f", "webdataset", "--to", "set", "--link-images"),
            "--link-images: webdataset stores the images themselves",
        ),
        (("-f", "png", "--shard-size", "1GB"), "require --to"),
    ],
)
def test_mistakes(here: Path, command: Command, words: tuple[str, ...], expected: str) -> None:
    ran = command("convert", "out", *words)
    assert ran.code == 2
    assert expected in " ".join(ran.err.split())
    assert "SECRET" not in ran.err
    assert not Path("set").exists()


@pytest.mark.parametrize(
    "text", ["not JSON", "[]", '{"tool": "other"}', '{"tool": "tipsseg", "format": "parquet", "shards": 1}']
)
def test_a_damaged_list_stops_the_command(here: Path, command: Command, text: str) -> None:
    Path("set").mkdir()
    Path("set/tipsseg.json").write_text(text)
    ran = convert(command, "parquet", "set")
    assert (ran.code, "set/tipsseg.json: not a list of shards" in ran.err) == (1, True)


def test_a_list_of_other_files_removes_none(here: Path, command: Command) -> None:
    convert(command, "parquet", "set")
    Path("set/notes.txt").write_text("mine")
    record = json.loads(Path("set/tipsseg.json").read_text())
    (shard,) = record["shards"].values()
    record["shards"]["notes.txt"] = shard
    Path("set/tipsseg.json").write_text(json.dumps(record))
    ran = convert(command, "parquet", "set")
    assert (ran.code, "a shard has another name" in ran.err) == (1, True)
    assert Path("set/notes.txt").read_text() == "mine"


def test_two_commands_into_one_folder(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    second = list[Ran]()

    class Overtaken(Parquet):
        def write(self, path: Path, samples: Iterator[Any], classes: Any) -> None:  # type: ignore[override]
            super().write(path, samples, classes)
            if not second:
                second.append(Ran(-1, "", ""))
                second[0] = convert(command, "parquet", "set", "--val-fraction", "0.3")

    monkeypatch.setattr(dataset, "DATASETS", {"parquet": Overtaken()})
    assert convert(command, "parquet", "set").code == 0
    assert (second[0].code, "another tipsseg process is using it" in second[0].err) == (1, True)
    assert [*shards(here / "set")] == ["train-00000.parquet"]


@pytest.mark.parametrize("last", ["train-00000.parquet", "README.md"])
def test_two_commands_into_one_bucket(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    """The second one runs before or after the first has put this file."""
    from fsspec.implementations.memory import MemoryFileSystem

    place, put, second = f"memory://two-{last}", MemoryFileSystem.put_file, list[int]()

    def overtaken(self: MemoryFileSystem, source: str, target: str, **options: object) -> None:
        is_last = target.endswith(last) and not second
        if is_last and last == "README.md":
            put(self, source, target)
        if is_last:
            second.append(-1)
            second[0] = convert(command, "parquet", place, "--val-fraction", "0.3").code
        put(self, source, target, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", overtaken)
    assert [convert(command, "parquet", place).code, *second] == [1, 0]


class Correcting(Parquet):
    """A person corrects a mask of a later shard while the first one is written."""

    def write(self, path: Path, samples: Iterator[Any], classes: Any) -> None:  # type: ignore[override]
        super().write(path, samples, classes)
        if not Path("set/data").exists() or not any(Path("set/data").iterdir()):
            correct(Path("out/masks/street/turned.png"))


def test_labels_that_change_meanwhile_stop_the_command(
    here: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(dataset, "DATASETS", {"parquet": Correcting()})
        ran = convert(command, "parquet", "set", "--shard-size", "300kB")
    assert (ran.code, "its labels changed meanwhile" in ran.err) == (1, True)
    assert convert(command, "parquet", "set", "--shard-size", "300kB").code == 0
    rows = [row for path in Path("set/data").iterdir() for row in read_rows(path)]
    assert [row["file_name"] for row in rows if row["corrected"]] == ["street/turned.jpg"]


def add_sky(command: Command) -> None:
    """Add a class, and label a part of the desert with it."""
    Path("more/masks").mkdir(parents=True)
    labels = mask_of("desert.png")
    labels[:40] = 4
    Image.fromarray(labels).save("more/masks/desert.png")
    names = [{"id": number, "name": name} for name, number in {**IDS, "sky": 4}.items()]
    Path("more/classes.json").write_text(json.dumps({"classes": names}))
    ran = command("correct", "out", "--from", "more", "--add-classes", "--replace-edited")
    assert ran.code == 0, ran.err


def test_classes_can_be_added(here: Path, command: Command) -> None:
    convert(command, "parquet", "set")
    add_sky(command)
    assert convert(command, "parquet", "set").code == 0
    assert "sky" in {name for row in read_rows(here / "set/data/train-00000.parquet") for name in row["names"]}


def test_stretched_images_are_stored_as_the_model_saw_them(here: Path, command: Command) -> None:
    words = ("imgs/desert.png", *OPTIONS, "-f", "png", "-o", "stretched", "--stretch", "20,60")
    assert command("label", *words).code == 0
    convert(command, "parquet", "set", outputs=("stretched",))
    (row,) = read_rows(here / "set/data/train-00000.parquet")
    stored = np.array(Image.open(io.BytesIO(row["image"]["bytes"])))
    assert np.array_equal(stored, ImageReader(stretch=(20, 60)).pixels(SCENES / "desert.png"))
    assert not np.array_equal(stored, ImageReader().pixels(SCENES / "desert.png"))


def test_the_same_command_leaves_the_same_files(here: Path, command: Command) -> None:
    convert(command, "webdataset", "set")
    before = {path: path.read_bytes() for path in Path("set").rglob("*.*")}
    process = subprocess.Popen(["true"])
    process.wait()
    left = Path("set", temporary_path(Path("set/x")).name.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
    left.write_bytes(b"of a killed process")
    convert(command, "webdataset", "set")
    assert {path: path.read_bytes() for path in Path("set").rglob("*.*")} == before


def test_images_of_two_runs_with_one_key_are_refused(here: Path, command: Command) -> None:
    for number, name in enumerate(("x.png", "x.jpg")):
        Path(f"in{number}").mkdir()
        Image.open(SCENES / "desert.png").save(f"in{number}/{name}")
        assert command("label", f"in{number}", *OPTIONS, "-f", "png", "-o", f"run{number}").code == 0
    ran = convert(command, "webdataset", "set", outputs=("run0", "run1"))
    assert (ran.code, "x.png" in ran.err) == (1, True)


def test_a_whole_shard_outlives_images_that_are_gone(here: Path, command: Command) -> None:
    shutil.copytree(Path("imgs").resolve(), "own")
    convert(command, "parquet", "set", "--images", "own")
    before = shards(here / "set")
    correct(Path("out/masks/desert.png"))
    Path("own/sea.gif").unlink()
    ran = convert(command, "parquet", "set", "--images", "own")
    assert (ran.code, "Kept the earlier set/data/train-00000.parquet" in ran.err) == (1, True)
    shutil.rmtree("own")
    Path("own").mkdir()
    ran = convert(command, "parquet", "set", "--images", "own")
    assert (ran.code, ran.err.count("Error")) == (1, 1)
    assert shards(here / "set") == before


@pytest.mark.parametrize("change", ["a correction", "fewer shards"])
def test_a_shard_that_a_person_changed_is_kept(here: Path, command: Command, change: str) -> None:
    convert(command, "parquet", "set", "--shard-size", "300kB")
    name = min(name for name, data in shards(here / "set").items() if b"turned.jpg" in data)
    Path("set/data", name).write_bytes(b"mine")
    if change == "a correction":
        correct(Path("out/masks/street/turned.png"))
        words = list[str]()
    else:
        words = ["--shard-size", "500MB"]
    ran = convert(command, "parquet", "set", *words)
    assert (ran.code, f"{name}: it was changed, or tipsseg did not write it" in ran.err) == (1, True)
    assert Path("set/data", name).read_bytes() == b"mine"
    Path("set/data", name).unlink()
    assert convert(command, "parquet", "set", *words).code == 0
    assert len([row for path in Path("set/data").iterdir() for row in read_rows(path)]) == 12


def test_no_shard_is_written_through_a_link_out_of_the_set(here: Path, command: Command) -> None:
    Path("elsewhere").mkdir()
    Path("set").mkdir()
    Path("set/data").symlink_to("../elsewhere")
    ran = convert(command, "webdataset", "set")
    assert (ran.code, "a link leads out" in ran.err, list(Path("elsewhere").iterdir())) == (1, True, [])


def test_the_size_of_shards_is_remembered(here: Path, command: Command) -> None:
    convert(command, "parquet", "set", "--shard-size", "300kB")
    before = shards(here / "set")
    assert len(before) > 1
    assert "; 0 shards written" in convert(command, "parquet", "set").err
    assert shards(here / "set") == before


def interrupt(patched: pytest.MonkeyPatch, number: int, *, before: bool) -> None:
    """Interrupt a command before or after it gives a file in the set its name for that time."""
    replace, left = Path.replace, iter(range(number - 1, -100, -1))

    def interrupted(path: Path, target: Path) -> Path:
        is_last = "set" in target.parts and next(left) == 0
        if not (is_last and before):
            replace(path, target)
        if is_last:
            raise KeyboardInterrupt
        return target

    patched.setattr(Path, "replace", interrupted)


@pytest.mark.parametrize("before", [True, False])
def test_a_command_that_is_interrupted_anywhere_goes_on(
    here: Path, command: Command, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    convert(command, "parquet", "first", "--shard-size", "300kB", "--val-fraction", "0.3")
    correct(Path("out/masks/desert.png"))
    add_sky(command)
    words = ("--shard-size", "500MB", "--val-fraction", "0")
    convert(command, "parquet", "whole/set", *words)
    for number in range(1, 20):
        shutil.rmtree("set", ignore_errors=True)
        shutil.copytree("first", "set")
        with monkeypatch.context() as patched:
            interrupt(patched, number, before=before)
            code = convert(command, "parquet", "set", *words).code
        ran = convert(command, "parquet", "set", *words)
        assert (ran.code, "Kept" in ran.err) == (0, False)
        assert shards(here / "set") == shards(here / "whole/set")
        assert Path("set/README.md").read_bytes() == Path("whole/set/README.md").read_bytes()
        if code == 0:
            break
    assert number > 4


def test_a_file_under_a_name_that_was_announced_is_kept(
    here: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt(patched, 2, before=True)
        assert convert(command, "parquet", "set").code == 130
    assert shards(here / "set") == {}
    Path("set/data/train-00000.parquet").write_bytes(b"mine")
    assert convert(command, "parquet", "set").code == 1
    assert Path("set/data/train-00000.parquet").read_bytes() == b"mine"


def test_the_list_is_not_written_for_each_small_shard(
    here: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(Parquet):
        def write(self, path: Path, samples: Iterator[Any], classes: Any) -> None:  # type: ignore[override]
            path.write_text("".join(sample.name for sample in samples))

    written, replace = list[str](), Path.replace
    monkeypatch.setattr(dataset, "DATASETS", {"parquet": Small()})

    def counting(path: Path, target: Path) -> Path:
        written.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", counting)
    assert convert(command, "parquet", "set", "--shard-size", "1").code == 0
    assert (written.count("train-00011.parquet"), written.count("tipsseg.json") < 5) == (1, True)


def test_a_temporary_file_that_cannot_be_removed_stays(
    here: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith(".tipsseg-") and path.name != ".tipsseg-lock":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    assert convert(command, "parquet", "set").code == 0


def test_links_follow_the_images(here: Path, command: Command) -> None:
    shutil.copytree(Path("imgs").resolve(), "own")
    for folder in ("imgs", "own"):
        assert convert(command, "parquet", "set", "--link-images", "--images", folder).code == 0
        rows = read_rows(here / "set/data/train-00000.parquet")
        assert {row["image"]["path"] for row in rows} == {
            str(here / folder / path.relative_to("own")) for path in Path("own").rglob("*.*")
        }


def test_places_with_odd_names(here: Path, command: Command) -> None:
    for place in ("run:1", "bad\udcff/x", f"file://{here}/url"):
        assert convert(command, "parquet", place).code == 0
        assert convert(command, "webdataset", f"{place}-tars").code == 0
    assert [path.name for path in (here / "url/data").iterdir()] == ["train-00000.parquet"]


def test_images_of_a_data_set_are_not_labelled_again(here: Path, command: Command) -> None:
    shutil.copytree(Path("imgs").resolve(), "own")
    assert convert(command, "webdataset", "own/set").code == 0
    ran = command("label", "own", *OPTIONS[:-1], "-f", "png", "-o", "again")
    assert "12 images labelled" in ran.err
    assert "Skipped output folders: own/set/data" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": ""},
        {"to": None},
        {"val_fraction": -3},
        {"jobs": -1},
        {"output": []},
        {"format": ["parquet"]},
        {"shard_size": "x"},
    ],
    ids=str,
)
def test_wrong_arguments_of_the_library(here: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        tipsseg.write_dataset(**{"output": "out", "to": "set", **arguments})


def test_from_python(here: Path) -> None:
    done = tipsseg.write_dataset("out", "set", format="webdataset", shard_size="1MB")
    assert (done.images, done.failed, len(done.shards)) == (12, (), done.written)
    assert tipsseg.write_dataset("out", "set", format="webdataset", shard_size="1MB").written == 0


def test_the_card_names_the_fields_of_objects(here: Path, command: Command) -> None:
    convert(command, "parquet", "set")
    convert(command, "webdataset", "tars")
    with tarfile.open("tars/data/train-00000.tar") as archive:
        facts = next(json.load(archive.extractfile(each)) for each in archive if each.name.endswith(".json"))  # type: ignore[arg-type]
    for folder, row in (("set", read_rows(here / "set/data/train-00000.parquet")[0]), ("tars", facts)):
        text = " ".join(Path(folder, "README.md").read_text().split()).partition("`objects` lists")[2]
        named = {each for each in text.split("`") if each.isidentifier()} - {"corrected"}
        assert named <= row["objects"][0].keys() | {"part_of"}
        assert {"bbox", "area", "score", "part_of"} < named


def test_every_format_says_how_to_load_it() -> None:
    assert all(isinstance(form, Dataset) and form.example for form in DATASETS.values())
