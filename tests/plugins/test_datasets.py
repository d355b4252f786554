"""`tipsseg convert --to`: data sets that training libraries load, whole, written once, without merging shards."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from mask_codes import decode_rle
from numpy.typing import NDArray
from PIL import Image
from resuming import correct
from running import Command, Ran, run_command
from sources import serving_bucket

import tipsseg
from tipsseg.errors import UsageError
from tipsseg.images.decoding import ImageReader

# WebDataset, and the client of a bucket, leave the closing of their files and sockets to the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

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
def test_the_parts_of_a_run_give_the_bytes_of_one_run(here: Path, command: Command, name: str) -> None:
    """In one folder, in several, and joined from folders that have some of the shards each."""
    words = (*OPTIONS, "-f", "png,coco")
    assert convert(command, name, "whole").code == 0
    for part in "123":
        ran = convert(command, name, "set", outputs=("parts",))
        assert (ran.code, Path("set").exists()) == (1, False)
        assert command("label", "imgs", *words, "--shard", f"{part}/3", "-o", "parts").code == 0
        folder = "own" if part == "1" else "others"
        assert command("label", "imgs", *words, "--shard", f"{part}/3", "-o", folder).code == 0
    assert convert(command, name, "set", outputs=("parts",)).code == 0
    assert shards(here / "set") == shards(here / "whole")

    assert "the run was interrupted" in convert(command, name, "more", outputs=("own", "others")).err
    ran = command("merge", "own", "others", "-o", "joined")
    assert (ran.code, "some images are not labelled: own, others" in ran.err) == (0, True)
    assert convert(command, name, "more", outputs=("joined",)).code == 0
    assert shards(here / "more") == shards(here / "whole")

    images = [sorted(Path("imgs").iterdir())[:3], sorted(Path("imgs").iterdir())[3:]]
    for folder, paths in zip(("first", "second"), images, strict=True):
        assert command("label", *paths, *words, "-o", folder).code == 0
    assert convert(command, name, "two", outputs=("first", "second")).code == 0
    assert shards(here / "two") == shards(here / "whole")


def read_rows(place: Path) -> list[dict[str, Any]]:
    """The rows of all shards of a data set."""
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(path) for path in sorted((place / "data").iterdir())]
    return [row for table in tables for row in table.to_pylist()]


def contents(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_the_same_labels_give_the_same_bytes(here: Path, command: Command, name: str) -> None:
    for place in ("set", "again/set"):
        assert convert(command, name, place, "--shard-size", "800kB").code == 0
    assert len(shards(here / "set")) > 1
    assert contents(here / "set") == contents(here / "again/set")


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_a_shard_has_at_least_one_image(here: Path, command: Command, name: str) -> None:
    assert convert(command, name, "set", "--shard-size", "1").code == 0
    suffix = "parquet" if name == "parquet" else "tar"
    assert [*shards(here / "set")] == [f"train-{number:05}.{suffix}" for number in range(12)]


def test_a_place_with_files_is_refused(here: Path, command: Command) -> None:
    assert convert(command, "parquet", "set").code == 0
    before = contents(here / "set")
    ran = convert(command, "webdataset", "set")
    assert (ran.code, "cannot write set: it is not empty" in ran.err, "--overwrite" in ran.err) == (1, True, True)
    assert contents(here / "set") == before


def test_overwriting_replaces_all_of_an_earlier_data_set(here: Path, command: Command) -> None:
    convert(command, "webdataset", "set", "--shard-size", "300kB", "--val-fraction", "0.3")
    assert convert(command, "parquet", "set", "--overwrite").code == 0
    assert convert(command, "parquet", "new/set").code == 0
    assert contents(here / "set") == contents(here / "new/set")


@pytest.mark.parametrize(
    "name", ["notes.txt", "README.md", "data/mine.parquet", "data/more/train-00000.tar", "train-00000.tar", "data"]
)
def test_other_files_are_not_touched(here: Path, command: Command, name: str) -> None:
    if name != "data":
        convert(command, "parquet", "set")
    Path("set", name).parent.mkdir(parents=True, exist_ok=True)
    Path("set", name).write_text("mine")
    before = contents(here / "set")
    ran = convert(command, "webdataset", "set", "--overwrite")
    assert (ran.code, f"set/{name}: it is not a file of a data set of tipsseg" in ran.err) == (1, True)
    assert contents(here / "set") == before


def test_no_shard_is_written_through_a_link_out_of_the_place(here: Path, command: Command) -> None:
    Path("elsewhere").mkdir()
    Path("set").mkdir()
    Path("set/data").symlink_to("../elsewhere")
    ran = convert(command, "webdataset", "set", "--overwrite")
    assert (ran.code, "set/data: it is not a file" in ran.err, list(Path("elsewhere").iterdir())) == (1, True, [])


def test_a_command_that_broke_is_seen(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card comes last; the place is refused until the data set is replaced."""
    write = LocalFileOpener.write

    def full(self: LocalFileOpener, data: bytes, *more: Any) -> Any:
        if "00001" in self.path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data, *more)

    with monkeypatch.context() as patched:
        patched.setattr(LocalFileOpener, "write", full)
        ran = convert(command, "webdataset", "set", "--shard-size", "300kB")
    assert (ran.code, "set/data/train-00001.tar: no space left on the device" in ran.err) == (1, True)
    assert not Path("set/README.md").exists()
    assert convert(command, "webdataset", "set").code == 1
    assert convert(command, "webdataset", "set", "--overwrite").code == 0
    assert [*contents(here / "set")] == ["README.md", "data/train-00000.tar"]


def test_a_loader_sees_a_correction(here: Path, command: Command) -> None:
    """`datasets` caches by the card, not by the content."""
    from datasets import load_dataset

    convert(command, "parquet", "set")
    assert not any(load_dataset("set", split="train", cache_dir=here / "cache")["corrected"])
    correct(Path("out/masks/desert.png"))
    convert(command, "parquet", "set", "--overwrite")
    rows = load_dataset("set", split="train", cache_dir=here / "cache")
    (row,) = [row for row in rows if row["corrected"]]
    assert row["file_name"] == "desert.png"
    assert np.array_equal(np.array(row["mask"]), mask_of("desert.png"))


def test_an_image_that_changed_is_left_out(here: Path, command: Command) -> None:
    before = Path("imgs").resolve()
    Path("imgs").unlink()
    shutil.copytree(before, "imgs")
    Path("imgs/sea.gif").unlink()
    Image.new("RGB", (9, 9)).save("imgs/desert.png")
    ran = convert(command, "parquet", "set", "--images", "imgs")
    assert ran.code == 1
    assert "desert.png: changed since it was labelled" in ran.err
    assert "sea.gif: no such file" in ran.err
    assert "10 images in 1 shard" in ran.err
    assert "; 2 images failed." in ran.err
    assert len(read_rows(here / "set")) == 10


def test_images_that_moved_leave_the_earlier_data_set(here: Path, command: Command) -> None:
    convert(command, "parquet", "set")
    before = contents(here / "set")
    Path("empty").mkdir()
    ran = convert(command, "parquet", "set", "--overwrite", "--images", "empty")
    assert (ran.code, "none of the first ones is at its place" in ran.err) == (1, True)
    assert contents(here / "set") == before


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
    assert [row["file_name"] for row in read_rows(here / "set")] == [
        "desert.png",
        "street/car.jpg",
    ]
    Path("list.txt").write_text("imgs/none.png\n")
    ran = convert(command, "parquet", "set", "--only", "list.txt")
    assert (ran.code, "imgs/none.png: not labelled in out" in ran.err) == (1, True)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket of a server on this machine."""
    with serving_bucket(monkeypatch):
        yield "s3://bucket"
    gc.collect()  # here, where what is left open is no error


@pytest.mark.parametrize("name", ["parquet", "webdataset"])
def test_a_bucket(here: Path, command: Command, bucket: str, name: str) -> None:
    import fsspec

    assert convert(command, name, "set", "--shard-size", "300kB").code == 0
    place = f"{bucket}/{name}"  # the server keeps its files
    words = (place, "--shard-size", "300kB")
    ran = convert(command, name, *words)
    assert ran.code == 0
    assert ran.out.startswith(f"{place}/data/train-00000.")
    files = fsspec.filesystem("s3")

    def there() -> dict[str, bytes]:
        files.invalidate_cache()
        return {path.removeprefix(f"bucket/{name}/"): files.cat_file(path) for path in files.find(place)}

    assert {**there(), "README.md": b""} == {**contents(here / "set"), "README.md": b""}  # its title is the place's
    assert convert(command, name, *words).code == 1
    assert convert(command, name, place, "--overwrite").code == 0
    assert len(there()) == 2
    ran = convert(command, name, "s3://nobody/set")
    assert (ran.code, ran.err.splitlines()[0]) == (
        1,
        "Error: cannot write s3://nobody/set: The specified bucket does not exist",
    )


def test_a_service_that_fails(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("https://example.com/?token=SECRET")

    monkeypatch.setattr(MemoryFileSystem, "_open", refuse)
    ran = convert(command, "parquet", "memory://fails")
    assert ran.code == 1
    assert "memory://fails/data/train-00000.parquet: cannot be reached (RuntimeError)" in ran.err
    assert "SECRET" not in ran.err


def test_a_folder_without_permission(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(LocalFileSystem, "makedirs", refuse)  # the user of the tests may have all rights
    ran = convert(command, "parquet", "locked/set")
    assert (ran.code, "locked/set/data/train-00000.parquet: no permission" in ran.err) == (1, True)


def test_a_file_in_place_of_the_folder(here: Path, command: Command) -> None:
    Path("file").write_text("mine")
    ran = convert(command, "parquet", "file/set")
    assert (ran.code, "one of its parent folders is a file" in ran.err) == (1, True)
    assert convert(command, "parquet", "file", "--overwrite").code == 1
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(("name", "module"), [("parquet", "pyarrow.parquet"), ("webdataset", "webdataset")])
def test_a_package_that_is_missing(
    here: Path, command: Command, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    ran = convert(command, name, "set")
    assert (ran.code, Path("set").exists()) == (2, False)
    assert f"the format {name} requires {module.partition('.')[0]}" in ran.err
    assert f"Install it: pip install 'tipsseg[{name}]'" in ran.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-f", "parquet"), "tipsseg convert OUT -f parquet --to DIR"),
        (("-f", "yolo", "--to", "set"), "Use one of parquet, webdataset. Or remove --to"),
        (("-f", "parquet,webdataset", "--to", "set"), "--to requires exactly one format"),
        (("-f", "parquet", "--to", "https://example.com/set"), "no data set can be written to a web server"),
        (("-f", "parquet", "--to", "unknown://bucket/set"), "unknown://bucket/set cannot be opened"),
        (("-f", "parquet", "--to", "s3://bucket/set?token=SECRET"), "or to a URL with a query"),
        (("-f", "parquet", "--to", "set", "--val-fraction", "2"), "--val-fraction must be"),
        (("-f", "parquet", "--to", "set", "--shard-size", "-1"), "is not a size"),
        (("-f", "png", "--shard-size", "1GB"), "requires --to"),
        (("-f", "png", "--overwrite"), "requires --to"),
    ],
)
def test_mistakes(here: Path, command: Command, words: tuple[str, ...], expected: str) -> None:
    ran = command("convert", "out", *words)
    assert ran.code == 2
    assert expected in " ".join(ran.err.split())
    assert "SECRET" not in ran.err
    assert not Path("set").exists()


def test_stretched_images_are_stored_as_the_model_saw_them(here: Path, command: Command) -> None:
    words = ("imgs/desert.png", *OPTIONS, "-f", "png", "-o", "stretched", "--stretch", "20,60")
    assert command("label", *words).code == 0
    convert(command, "parquet", "set", outputs=("stretched",))
    (row,) = read_rows(here / "set")
    stored = np.array(Image.open(io.BytesIO(row["image"]["bytes"])))
    assert np.array_equal(stored, ImageReader(stretch=(20, 60)).pixels(SCENES / "desert.png"))
    assert not np.array_equal(stored, ImageReader().pixels(SCENES / "desert.png"))


def test_images_of_two_runs_with_one_key_are_refused(here: Path, command: Command) -> None:
    for number, name in enumerate(("x.png", "x.jpg")):
        Path(f"in{number}").mkdir()
        Image.open(SCENES / "desert.png").save(f"in{number}/{name}")
        assert command("label", f"in{number}", *OPTIONS, "-f", "png", "-o", f"run{number}").code == 0
    ran = convert(command, "webdataset", "set", outputs=("run0", "run1"))
    assert (ran.code, "x.png" in ran.err) == (1, True)


def test_an_image_of_two_runs_is_refused(here: Path, command: Command) -> None:
    shutil.copytree("out", "copy")
    ran = convert(command, "parquet", "set", outputs=("out", "copy"))
    assert (ran.code, "beach/holiday.jpg" in ran.err, Path("set").exists()) == (1, True, False)


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


@pytest.mark.parametrize("arguments", [{"to": ""}, {"jobs": -1}, {"output": []}, {"format": ["parquet"]}], ids=str)
def test_wrong_arguments_of_the_library(here: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        tipsseg.write_dataset(**{"output": "out", "to": "set", **arguments})


def test_from_python(here: Path) -> None:
    done = tipsseg.write_dataset("out", "set", format="webdataset", shard_size="1MB")
    assert (done.images, done.failed, len(done.shards)) == (12, (), len(shards(here / "set")))
