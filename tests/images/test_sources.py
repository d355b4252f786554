"""Images that are not files of their own: members of archives, rows of tables, frames of videos, files behind URLs."""

from __future__ import annotations

import base64
import io
import pickle
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sources import Site, forget_remote, picture, serving, write_parquet, write_tar, write_video, write_zip

from tipsseg.address import address_text, as_address, is_url, url_of
from tipsseg.errors import ImageError, InputError, TipssegError, UsageError
from tipsseg.images import remote
from tipsseg.images.access import (
    below,
    exists,
    hold,
    identify,
    list_members,
    matches,
    name_below,
    open_source,
    release,
    stamp_source,
)
from tipsseg.images.decoding import ImageReader
from tipsseg.options.values import Every, parse_every
from tipsseg.types import ImageRef
from tipsseg.util.files import describe_error

PICTURES = {f"{folder}{name}.png": picture(shade) for shade, (folder, name) in enumerate([("", "a"), ("b/", "c")], 60)}


def listed(path: Path, every: Every | None = None) -> dict[str, str]:
    return {member.name: member.fault for member in list_members(path, every)}


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(params=["tar", "zip"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    write = write_tar if request.param == "tar" else write_zip

    def make(members: dict[str, bytes], name: str = "shard") -> Path:
        return write(tmp_path / f"{name}.{request.param}", members)

    return make


def test_members_of_an_archive_are_read_in_any_order(archive: Any) -> None:
    path = archive({**PICTURES, "notes.txt": b"text"})
    assert listed(path) == {"a.png": "", "b/c.png": "", "notes.txt": ""}
    for name in ("b/c.png", "a.png", "b/c.png"):
        address = path / name
        assert open_source(address).read() == PICTURES[name]
        assert (ImageReader().pixels(address) == pixels_of(PICTURES[name])).all()
        assert exists(address)
        found = identify(address)[0]
        assert (found.size, found.mtime_ns) == (len(PICTURES[name]), path.stat().st_mtime_ns)
        assert matches(found, address)
    assert not exists(path / "gone.png")
    with pytest.raises(ImageError, match="no such member"):
        ImageReader().pixels(path / "gone.png")


def test_an_archive_that_changed_is_read_anew(archive: Any) -> None:
    path = archive(PICTURES)
    before = {name: identify(path / name)[0] for name in PICTURES}
    archive({"a.png": PICTURES["a.png"], "b/c.png": picture(200), "new.png": picture(7)})
    assert matches(before["a.png"], path / "a.png")  # the time differs, the content does not
    assert not matches(before["b/c.png"], path / "b/c.png")
    assert exists(path / "new.png")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../up.png", "up.png"),
        ("a/../../up.png", "a/up.png"),
        ("/etc/up.png", "etc/up.png"),
        ("C:/up.png", "C:/up.png"),
        ("./plain.png", None),
        (".hidden/a.png", ""),
        ("__MACOSX/a.png", ""),
    ],
)
def test_names_cannot_leave_the_archive(archive: Any, name: str, safe: str | None) -> None:
    path = archive({name: picture(9), "good.png": picture(8)})
    expected = {"good.png": ""}
    if safe is None:
        expected["plain.png"] = ""
    elif safe:
        expected[safe] = "its name leads out of the archive, or is invalid"
    assert listed(path) == expected
    if safe:
        assert not exists(path / safe)


def test_links_and_special_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert set(listed(path).values()) == {"a link or a special file in the archive"}
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive_:
        info_ = zipfile.ZipInfo("link.png")
        info_.external_attr = 0o120777 << 16
        archive_.writestr(info_, "/etc/passwd")
    assert listed(path) == {"link.png": "a link in the archive"}


def test_a_truncated_archive_gives_what_it_has(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(1), "b.png": bytes(5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 + 512 + 512 + 700])
    members = listed(path)
    assert members["a.png"] == ""
    assert "truncated" in members["b.png"]
    path.write_bytes(b"no archive at all" * 100)
    with pytest.raises(OSError, match="not a readable tar"):
        listed(path)
    for data, name in ((b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2")):
        path.write_bytes(data + bytes(600))
        with pytest.raises(OSError, match=f"compressed with {name}.*decompress it"):
            listed(path)


def test_a_broken_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(range(256)) * 9})
    data = bytearray(path.read_bytes())
    data[50] ^= 255
    path.write_bytes(data)
    with pytest.raises(ImageError, match="broken in the archive"):
        ImageReader().pixels(path / "a.png")
    path.write_bytes(b"PK\x03\x04" + bytes(99))
    with pytest.raises(OSError, match="not a readable zip"):
        listed(path)


def hostile_tars() -> dict[str, bytes]:
    """Archives whose headers are made to exhaust the reader."""

    def header(name: str, size: int, kind: bytes) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        return info.tobuf(tarfile.GNU_FORMAT)

    return {
        "headers without end": header("x", 0, tarfile.XHDTYPE) * 3000,
        "a name of 8 GB": header("././@LongLink", 8 << 30, tarfile.GNUTYPE_LONGNAME) + bytes(1024),
        "a sparse file": header("a.png", 5, tarfile.GNUTYPE_SPARSE) + bytes(1024),
    }


@pytest.mark.parametrize("name", hostile_tars())
def test_hostile_tars(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(hostile_tars()[name])
    faults: list[str] = []
    with suppress(OSError):  # an archive without any member
        faults += listed(path).values()
    assert "" not in faults


def test_a_zip_that_declares_too_little(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(1 << 20)})
    data = path.read_bytes().replace((1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(OSError, match="broken in the archive"):
        open_source(path / "a.png")


def test_a_member_that_expands_too_far_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tipsseg.images.containers._UNPACKED_MAX", 100_000)
    packed = write_zip(tmp_path / "packed.zip", {"bomb.png": bytes(200_000), "small.png": bytes(90_000)})
    assert listed(packed)["small.png"] == ""
    assert listed(packed)["bomb.png"].endswith("would unpack to 200,000, too many for an image")
    monkeypatch.setattr("tipsseg.images.containers.MAX_BYTES", 1000)
    for path in (
        write_zip(tmp_path / "a.zip", {"a.png": bytes(1001)}),
        write_tar(tmp_path / "a.tar", {"a.png": bytes(1001)}),
    ):
        assert listed(path) == {"a.png": "1,001 bytes, more than the limit of 1,000"}
    path = write_parquet(tmp_path / "a.parquet", [bytes(1001)])
    with pytest.raises(OSError, match="more than the limit"):
        open_source(path / "000000")


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([{"bytes": data, "path": f"x/{number}.png"} for number, data in enumerate(PICTURES.values())], "png"),
        ([{"bytes": data, "path": None} for data in PICTURES.values()], ""),
        (list(PICTURES.values()), ""),
    ],
    ids=["structs", "without paths", "bytes"],
)
def test_rows_of_a_table(tmp_path: Path, rows: list[Any], names: str) -> None:
    path = write_parquet(tmp_path / "train.parquet", rows * 3)
    members = listed(path)
    assert list(members) == [f"{row:06d}{names and '.' + names}" for row in range(6)]
    for row, name in enumerate(members):
        data = list(PICTURES.values())[row % 2]
        assert open_source(path / name).read() == data
        assert stamp_source(path / name).size is None
        assert matches(identify(path / name)[0], path / name)
    assert not exists(path / "000006")
    assert not exists(path / "a")


@pytest.mark.parametrize(
    ("rows", "column", "error"),
    [
        (
            [{"bytes": None, "path": "/etc/passwd"}, {"bytes": b"x", "path": None}],
            "image",
            "only the path of an image, which is not read",
        ),
        ([{"bytes": None, "path": None}, {"bytes": b"", "path": None}], "image", "this row is empty"),
        (["text"], "image", "no column of images"),
    ],
)
def test_rows_without_an_image(tmp_path: Path, rows: list[Any], column: str, error: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", rows, column)
    with pytest.raises(OSError, match=error):
        open_source(path / "000000")


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + bytes(99))
    with pytest.raises(OSError, match="not a readable Parquet file"):
        listed(path)


def test_frames_are_counted_by_decoding(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 50)
    assert list(listed(path)) == [f"{number:06d}" for number in range(50)]
    assert list(listed(path, Every(frames=20))) == ["000000", "000020", "000040"]
    assert list(listed(path, Every(seconds=1.5))) == ["000000", "000015", "000030", "000045"]
    shades = {number: int(np.median(ImageReader().pixels(path / f"{number:06d}"))) for number in (0, 40, 13, 14, 49)}
    assert all(abs(shade - 2 * number) <= 6 for number, shade in shades.items())
    again = open_source(path / "000013").read()
    assert open_source(path / "000013").read() == again
    with pytest.raises(ImageError, match="only 50 readable frames"):
        ImageReader().pixels(path / "000050")
    assert not exists(path / "frame")


#: WebM of 12 frames, 6 at 30 per second and 6 at 2.5. OpenCV estimates 67 frames.
VARIABLE_RATE = base64.b64decode(
    "GkXfo59ChoEBQveBAULygQRC84EIQoKEd2VibUKHgQJChYECGFOAZwEAAAAAAAMfEU2bdLpNu4tTq4QVSalmU6yBoU27i1OrhBZUrmtTrIHYTbuMU6uEElTD"
    "Z1OsggEbTbuMU6uEHFO7a1OsggL47AEAAAAAAABZAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAVSalmsirXsYMPQkBNgI1MYXZmNjIuMTIuMTAyV0GNTGF2ZjYyLjEyLjEwMkSJiEChbgAAAAAAFlSua76u"
    "AQAAAAAAADXXgQFzxYieJK5aMF1S4ZyBACK1nIN1bmSIgQCGhVZfVlA4g4EBI+ODhAH8oFXghrCBMLqBIBJUw2fYc3OgY8CAZ8iaRaOHRU5DT0RFUkSHjUxh"
    "dmY2Mi4xMi4xMDJzc7JjwItjxYieJK5aMF1S4WfIoUWjiERVUkFUSU9ORIeTMDA6MDA6MDIuMjMxMDAwMDAwAB9DtnVBeueBAKOlgQAAgFACAJ0BKjAAIAAA"
    "RwiFhYiFhIgCAgAHDKBpnAD+/6tQgKOhgQAhALEBAAUQrAAYADAoL/QAICD+20sxxGvZYo9iXHAAo6GBAEIAsQEABRCsABgAMCgv9AAgIP7bSzHEa9lij2Jc"
    "cACjnoEAYwDxAQAFEKwAGAAkS//0ALfqFKD+3T5213TgAKOkgQCEgFACAJ0BKjAAIAAEBwiFhYiFhIgVggAHDKBpnAD+7GcAo5qBAKUA8QEAEBCsABgAHEP3"
    "9ABg8owg/tsQAKOagQDGAPEBABAQrAAYABxD9/QAYPKMIP7bEACjmoECVgDxAQAQEKwAGAAcQ/f0AGDyjCD+2xAAo5qBA+YA8QEAEBCsABgAHEP39ABg8owg"
    "/tsQAKOagQV2APEBABAQrAAYABxD9/QAYPKMIP7dEACjmoEHBgDxAQAQEKwAGAAcQ/f0AGDyjCD+2xAAo5qBCJYA8QEAEBAQFGAAcQ/f0AGAhLsA/vFpABxT"
    "u2uiu4+zgQC3iveBAfGCAXjwgQO7j7OBhLeK94EB8YIBePCBkA=="
)


def test_a_video_of_variable_rate_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.webm"
    path.write_bytes(VARIABLE_RATE)
    assert listed(path, Every(frames=1)) == {f"{number:06d}": "" for number in range(12)}
    assert list(listed(path, Every(seconds=1))) == ["000000", "000009", "000011"]


def test_a_video_that_ends_early(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 60, codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *frames, last = listed(path, Every(frames=1)).items()
    assert 10 < len(frames) < 40
    assert "truncated or broken" in last[1] or last[1] == ""
    path.write_bytes(b"no video")
    with pytest.raises(OSError, match="not a video that OpenCV can read"):
        listed(path, Every(frames=1))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.mp4", b"ffconcat version 1.0\nfile 'other.bin'\n"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nother.bin\n"),
        ("dash.mp4", b"G<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'>" + b" " * 400),
        ("concat:other.bin|other.bin.mp4", b"junk"),
        ("file:other.mp4", b"junk"),
    ],
)
def test_a_video_opens_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    write_video(tmp_path / "other.mp4", 3)
    (tmp_path / "other.bin").write_bytes((tmp_path / "other.mp4").read_bytes())
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="not a video that OpenCV can read"):
        listed(Path(name), Every(frames=1))


def test_a_rotated_video_is_turned_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 3)
    identity, turned = (
        b"".join(value.to_bytes(4, "big", signed=True) for value in (*matrix, 0, 0, 1 << 30))
        for matrix in ((65536, 0, 0, 0, 65536, 0), (0, 65536, 0, -65536, 0, 0))
    )
    header, track, rest = path.read_bytes().rpartition(b"tkhd")  # the matrix of the track, as phones write it
    assert identity in rest
    path.write_bytes(header + track + rest.replace(identity, turned, 1))
    assert ImageReader().pixels(path / "000000").shape == (96, 64, 3)


@pytest.mark.parametrize(
    ("text", "every"), [("1s", Every(seconds=1)), (".5s", Every(seconds=0.5)), ("10", Every(frames=10))]
)
def test_intervals_of_frames(text: str, every: Every) -> None:
    assert parse_every(text) == every
    assert parse_every(str(every)) == every


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1m", "s", "1e3", "nan", "1s2"])
def test_invalid_intervals(text: str) -> None:
    with pytest.raises(UsageError, match="every"):
        parse_every(text)


def test_addresses_of_images() -> None:
    assert is_url(Path("s3://bucket/a.jpg"))
    assert not is_url("/data/s3:/a.jpg")
    assert address_text(Path("https://user:word@host/a.jpg?sig=1")) == "https://host/a.jpg"
    assert address_text("photos/a.jpg?x") == "photos/a.jpg?x"
    assert name_below(as_address("https://host/d/a%20b.jpg?a/b"), Path("https:/host")) == PurePosixPath("d/a b.jpg")
    assert name_below(Path("https:/host/d/a%2Fb.jpg"), Path("https:/host/d")) == PurePosixPath("a%2Fb.jpg")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("https://me:SECRET@host/a.jpg?sig=SECRET/x#y", "https://host/a.jpg"),
        ("HTTP://me:SECRET@host:80/a.jpg", "http://host:80/a.jpg"),
        ("s3://KEY:SECRET@bucket/a.jpg?X-Amz-Signature=SECRET", "s3://bucket/a.jpg"),
        ("ftp://me:SECRET@host/a.jpg", "ftp://host/a.jpg"),
        ("http://me:SECRET/x@host/a.jpg", "http://_"),
    ],
)
def test_the_address_of_a_url_has_none_of_its_secrets(typed: str, told: str) -> None:
    address = as_address(typed)
    refs = [ImageRef(address, PurePosixPath("a.jpg")), ImageRef(as_address(address) / "..", PurePosixPath("a.jpg"))]
    assert address_text(address) == address_text(typed) == told
    assert "SECRET" not in f"{address!r} {refs} {TipssegError(f'{typed}: bad', typed).message}"
    assert url_of(address).startswith(typed.split("#", maxsplit=1)[0].replace("HTTP", "http"))
    assert url_of(pickle.loads(pickle.dumps(refs[0])).path).startswith(url_of(address))


def test_a_hostile_text_is_searched_for_secrets_in_linear_time() -> None:
    """With time in proportion to the square, this would take minutes."""
    name = "a." * 100_000 + "://x"
    assert TipssegError(name).message == name


def test_names_of_members(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = write_tar(tmp_path / "in/shard.0.tar", PICTURES)
    assert name_below(path / "b/c.png", tmp_path) == PurePosixPath("in/shard.0/b/c.png")
    assert below(tmp_path, "in/shard.0/b/c.png") == path / "b/c.png"
    assert below(tmp_path, "in/other/b.png") == tmp_path / "in/other/b.png"
    assert below(tmp_path, "in/other/b.png", "s3://bucket/b.png") == Path("s3:/bucket/b.png")
    (tmp_path / "in/shard.0").mkdir()
    assert below(tmp_path, "in/shard.0/b/c.png") == path / "b/c.png"


# ---- URLs ----


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Any:
    forget_remote(monkeypatch)
    with serving(Site(files={f"/in/{name}": data for name, data in PICTURES.items()})) as site:
        yield site


def test_a_url_is_read_once(site: Site) -> None:
    url = Path(f"{site.url}/in/a.png")
    hold(url)
    for _ in range(3):
        assert (ImageReader().pixels(url) == pixels_of(PICTURES["a.png"])).all()
    release(url)
    assert identify(url)[0].size == len(PICTURES["a.png"])
    assert site.gets["/in/a.png"] == 1


@pytest.mark.parametrize("faults", [[500], ["cut"], [429]])
def test_passing_faults_of_servers_are_tried_again(site: Site, faults: list[int | str]) -> None:
    site.faults["/in/a.png"] = faults[:]
    assert (ImageReader().pixels(Path(f"{site.url}/in/a.png")) == pixels_of(PICTURES["a.png"])).all()
    assert site.gets["/in/a.png"] == len(faults) + 1


@pytest.mark.parametrize(
    ("faults", "reason", "gets"),
    [
        ([403] * 9, "access denied", 1),
        ([404] * 9, "no such file at this URL", 1),
        ([500] * 9, "cannot be fetched (HTTP status 500)", 2),
        ([418] * 9, "cannot be fetched (HTTP status 418)", 1),
        (["cut"] * 9, "cannot be fetched (ClientPayloadError)", 2),
    ],
)
def test_lasting_faults_of_servers_are_reported(site: Site, faults: list[int | str], reason: str, gets: int) -> None:
    site.faults["/in/a.png"] = faults
    with pytest.raises(ImageError) as caught:
        ImageReader().pixels(Path(f"{site.url}/in/a.png?token=secret"))
    assert reason in caught.value.reason
    assert "secret" not in caught.value.message
    assert site.gets["/in/a.png"] == gets


def test_a_url_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_remote(monkeypatch)
    with pytest.raises(ImageError, match="cannot be fetched"):
        ImageReader().pixels(Path("http://127.0.0.1:1/a.png"))


def test_a_changed_etag_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    url = Path(f"{site.url}/in/a.png")
    site.etags["/in/a.png"] = '"1"'
    known = identify(url)[0]
    forget_remote(monkeypatch)
    assert matches(known, url)
    assert site.gets["/in/a.png"] == 1
    forget_remote(monkeypatch)
    site.etags["/in/a.png"] = '"2"'
    assert matches(known, url)  # by its content
    assert site.gets["/in/a.png"] == 2
    forget_remote(monkeypatch)
    site.files["/in/a.png"] = picture(3)
    assert not matches(known, url)


def test_fetched_files_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "KEPT_FILES", 1)
    monkeypatch.setattr(remote, "_folder", lambda: str(tmp_path))  # another test's files may still be referred to
    urls = [Path(f"{site.url}/in/{name}") for name in PICTURES]
    with open_source(urls[0]), open_source(urls[1]):
        assert len(list(tmp_path.iterdir())) == 2  # those in use are kept
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_urls(site: Site) -> None:
    assert remote.is_remote_folder(Path(f"{site.url}/in/"))
    assert not remote.is_remote_folder(Path(f"{site.url}/in/a.png"))
    assert list(remote.list_folder(Path(f"{site.url}/in"))) == ["a.png", "b/c.png"]
    with pytest.raises(FileNotFoundError):
        remote.is_remote_folder(Path(f"{site.url}/gone.png"))


def test_memory_and_unknown_schemes() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/here/a.png", PICTURES["a.png"])
    assert (np.asarray(ImageReader().upright("memory://here/a.png")) == pixels_of(PICTURES["a.png"])).all()
    with pytest.raises(InputError, match="ftp:// URLs are not supported"):
        ImageReader().upright("ftp://host/a.png")


def test_secrets_in_an_invalid_url_are_not_printed() -> None:
    with pytest.raises(InputError, match="not a valid URL") as caught:
        ImageReader().upright("https://user:pass/word@host/a.png")
    assert "word" not in caught.value.message


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    remote._scheme.cache_clear()
    with pytest.raises(InputError) as caught:
        ImageReader().upright("gs://bucket/a.png")
    assert "tipsseg[remote]" in caught.value.hint


def test_open_files(tmp_path: Path) -> None:
    data = PICTURES["a.png"]
    assert (np.asarray(ImageReader().upright(io.BytesIO(data))) == pixels_of(data)).all()
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as file:
        assert ImageReader().upright(file).size == (96, 64)
    with (tmp_path / "a.png").open(encoding="latin-1") as text, pytest.raises(InputError, match="open as text"):
        ImageReader().upright(text)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="not an image"):
        ImageReader().upright(io.BytesIO(b"nothing"))


def test_reasons_are_in_plain_words() -> None:
    assert describe_error(FileNotFoundError("no such row")) == "no such row"
    assert describe_error(FileNotFoundError(2, "No such file or directory")) == "no such file"
