"""Images: which files to label (`find`, `from_list`), and their pixels (`open_image`)."""

from __future__ import annotations

import os
import re
import stat
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tipsseg.errors import ImageError, InputError
from tipsseg.records import ImageRef
from tipsseg.writers import FOLDERS, SUFFIXES, output_path

#: Images of more pixels are refused. Pillow's own limit: twice its Image.MAX_IMAGE_PIXELS.
MAX_PIXELS = 178_956_970

# Formats that Pillow lists and does not decode itself (it calls foreign programs, or has a stub for plug-ins), and page
# descriptions, which have no pixels of their own.
_FOREIGN = frozenset({"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF", "PDF"})


# ---- finding ----


@dataclass(frozen=True, slots=True)
class Found:
    """The images of a run.

    refs     sorted by the parts of their relative paths, in code point order
    skipped  files in the folders that are no images by their extension; hidden files are not counted
    root     the folder that the relative paths begin at
    """

    refs: tuple[ImageRef, ...]
    skipped: int
    root: Path


def find(paths: Sequence[Path], *, output: Path) -> Found:
    """The images that `paths` name: files, whatever their extension, and folders, searched with their sub-folders.

    In folders, files count by the extensions that Pillow can open. Hidden files and folders are left out, links are
    followed. Left out are also the folder `output`, where it lies in a searched folder, and the pictures in `output`
    and in the output folders of other runs. A file that is named twice, or named and in a searched folder, is taken
    once.

    Relative paths begin at the folder where just one is given, otherwise at the common parent folder of all `paths`.
    Raises InputError for a path that does not exist or cannot be listed, and where there is no image at all.
    """
    given = _examine(paths)
    homes = [_absolute(path) if is_folder else _absolute(path).parent for path, is_folder in given]
    root = _common_folder(homes)
    gatherer = _Gatherer(output)
    for path, is_folder in given:
        gatherer.add(path, _relative(path, root), is_folder)
    return gatherer.found(root, "in " + ", ".join(str(path) for path, _ in given) if given else "as no path was given")


def from_list(entries: Iterable[str | bytes], *, output: Path) -> Found:
    """The images that a list names, one path an entry; like `find`, except for the relative paths.

    Those begin at the current folder. Of a path outside of it remain the parts without the anchor and without `..`.
    Blank entries, line ends and a byte order mark are ignored. Raises InputError as `find` does.
    """
    root = Path.cwd()
    gatherer = _Gatherer(output)
    for path, is_folder in _examine(Path(name) for name in _clean_entries(entries)):
        gatherer.add(path, _relative(path, root), is_folder)
    return gatherer.found(root, "in the list")


def check_collisions(refs: Sequence[ImageRef]) -> None:
    """Refuse inputs whose outputs would have one name: outputs are named by the relative path without its suffix.

    Raises InputError that names the first pair in full and counts the others.
    """
    owners: dict[PurePosixPath, ImageRef] = {}
    folders = {folder for ref in refs for folder in ref.relative.parents}
    first: str = ""
    pairs = 0
    for ref in refs:
        # Each suffix that the writers put on may also meet a folder of that name.
        names = [ref.relative.with_suffix(suffix) for suffix in SUFFIXES.values()]
        owner = owners.setdefault(names[0], ref)
        if owner is not ref:
            pairs += 1
            first = first or f"{owner.path} and {ref.path} would share one output, {ref.relative.with_suffix('')}"
        elif clash := [name for name in names if name in folders]:
            pairs += 1
            first = first or f"the output of {ref.path} would have the name of the folder {clash[0]}"
    if pairs:
        more = f" (and {pairs - 1} more such pair{'s' if pairs > 2 else ''})" if pairs > 1 else ""
        raise InputError(first + more, "Rename one of the two, or label them in two runs with an output folder each.")


def check_not_outputs(refs: Sequence[ImageRef], output: Path) -> None:
    """Refuse inputs that the run's own pictures would overwrite; raises InputError that names the first."""
    folder = Path(os.path.realpath(output))
    inputs = {os.path.realpath(ref.path): ref for ref in refs}
    for ref in refs:
        for name in FOLDERS:
            victim = inputs.get(str(output_path(folder, name, ref.relative)))
            if victim:
                raise InputError(
                    f"{victim.path} is an input and would be overwritten by the labels of {ref.path}",
                    "Choose another output folder with -o.",
                )


def image_extensions() -> frozenset[str]:
    """The lower-case extensions, with their dot, of files that `find` takes from folders."""
    formats = set(_formats())
    return frozenset(extension for extension, name in Image.registered_extensions().items() if name in formats)


def _formats() -> tuple[str, ...]:
    # Asked anew each time: programs may register plug-ins, such as one for HEIC, at any time.
    Image.init()
    return tuple(name for name in Image.ID if name not in _FOREIGN)


class _Gatherer:
    """Collects the images of one run."""

    def __init__(self, output: Path) -> None:
        self._refs: list[ImageRef] = []
        self._skipped = 0
        self._extensions = image_extensions()
        self._output = _identity(output)
        self._folders: set[tuple[int, int]] = set()
        self._files: set[str] = set()

    def add(self, path: Path, relative: PurePosixPath, is_folder: bool) -> None:
        """Add a file, or a folder's images; `relative` names it."""
        if is_folder:
            self._walk(path, relative)
        else:
            self._take(path, relative, os.path.realpath(path))

    def found(self, root: Path, where: str) -> Found:
        """What was added; `where` tells in an error where it was looked."""
        if not self._refs:
            skipped = f"; skipped {self._skipped} other file(s)" if self._skipped else ""
            raise InputError(
                f"no images {where}{skipped}",
                "Folders are searched for extensions such as .jpg, .png, .tif and .webp;"
                " a file that is named itself is taken whatever its extension.",
            )
        refs = sorted(self._refs, key=lambda ref: ref.relative.parts)
        return Found(tuple(refs), self._skipped, root)

    def _take(self, path: Path, relative: PurePosixPath, real: str) -> None:
        if real not in self._files:
            self._files.add(real)
            self._refs.append(ImageRef(path, relative))

    def _walk(self, top: Path, relative: PurePosixPath) -> None:
        folders = [(top, relative)]
        # Linked folders come last, so that images go by their names in the tree itself where a link leads back into it.
        links: deque[tuple[Path, PurePosixPath]] = deque()
        while folders or links:
            folder, name = folders.pop() if folders else links.popleft()
            identity = _identity(folder)
            if identity is None or identity in self._folders:
                continue
            self._folders.add(identity)
            real = os.path.realpath(folder)
            ours = FOLDERS if identity == self._output or _is_output(folder) else frozenset[str]()
            for entry in _scan(folder):
                if entry.name.startswith("."):
                    continue
                kind = _kind(entry)
                if kind == "folder":
                    path = folder / entry.name
                    if entry.name not in ours and _identity(path) != self._output:
                        (links if entry.is_symlink() else folders).append((path, name / entry.name))
                elif kind == "other" or PurePath(entry.name).suffix.lower() not in self._extensions:
                    self._skipped += 1
                else:
                    # Two linked files of different names are two images; hence the folder is resolved, not the file.
                    self._take(folder / entry.name, name / entry.name, str(PurePath(real, entry.name)))


def _examine(paths: Iterable[Path]) -> list[tuple[Path, bool]]:
    """Each path with whether it is a folder; InputError for those that are not there."""
    given: list[tuple[Path, bool]] = []
    missing: list[str] = []
    for path in paths:
        try:
            given.append((path, stat.S_ISDIR(path.stat().st_mode)))
        except (FileNotFoundError, NotADirectoryError):
            missing.append(str(path))
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            raise InputError(f"{path}: {_words(error)}", "Check the path and its permissions.") from error
    if missing:
        more = f" (and {len(missing) - 1} more paths of the input)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no such file or folder{more}", "Check the path; inputs are taken as they are.")
    return given


def _clean_entries(entries: Iterable[str | bytes]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        text = os.fsdecode(entry).rstrip("\r\n")
        if number == 0:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield text


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot list the folder {folder}: {_words(error)}", "Check its permissions.") from error


def _kind(entry: os.DirEntry[str]) -> str:
    """Returns "folder", "file" or "other" (pipes, sockets, devices); a broken link is a file, which fails by name."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or entry.is_symlink() else "other"
    except OSError:  # a link to itself, for one
        return "file"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _is_output(folder: Path) -> bool:
    """Whether a run of tipsseg wrote into the folder."""
    try:
        with (folder / "run.json").open(encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 20)
    except OSError:
        return False
    return re.search(r'"tool"\s*:\s*"tipsseg"', text) is not None


def _absolute(path: Path) -> Path:
    # Not Path.resolve: that follows links, and names should be those that were given.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _common_folder(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # none at all, or drives that have nothing in common
        return Path.cwd()


def _relative(path: Path, root: Path) -> PurePosixPath:
    """`path` relative to `root`; for a path outside of it, the path without its anchor and `..`."""
    absolute = _absolute(path)
    if absolute.is_relative_to(root):
        return PurePosixPath(*absolute.relative_to(root).parts)
    plain = Path(os.path.normpath(path))
    parts = plain.relative_to(plain.anchor).parts if plain.anchor else plain.parts
    return PurePosixPath(*(part for part in parts if part != ".."))


# ---- opening ----


def open_image(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file, upright: [H, W, 3] uint8 RGB, C-contiguous and writable.

    Takes every format and mode that Pillow decodes. The EXIF orientation is applied; of animations, the first frame is
    taken; an alpha channel is dropped and the stored colours used; colour profiles are ignored. 16-bit values are
    scaled by v / 257, floats from [0, 1] by 255; floats up to 255 are taken as they are.

    Raises ImageError for whatever is wrong with the file. May be called from several threads.
    """
    _hush_pillow()
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(path, "a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(path, "not a regular file", "Save the image to a file first.")
        if status.st_size == 0:
            raise ImageError(path, "empty file (0 bytes)", "Fetch the image again, or remove it.")
        # Pillow gets the open file and not its name: by name it maps some formats into memory, and then a file that
        # another program cuts short kills the process.
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise ImageError(path, _words(error)) from error
    with file:
        try:
            return _decode(path, file)
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise _not_an_image(path, file) from error
        except Image.DecompressionBombError as error:
            # Pillow looked before the size was known here; its message has the number of pixels.
            pixels = re.search(r"\d+", str(error))
            raise _too_large(path, f"{int(pixels[0]):,} pixels" if pixels else "the image") from error
        except MemoryError as error:
            raise ImageError(path, "not enough memory to decode it", "Use fewer jobs, or a smaller image.") from error
        except Exception as error:
            # On broken data decoders raise nearly anything: OSError, SyntaxError, ValueError, struct.error, EOFError,
            # IndexError, KeyError, TypeError, zlib.error, ... No file may take down a run, so all are taken here.
            raise ImageError(path, _broken(error), "Fetch the image again, or remove it.") from error


def _decode(path: Path, file: BinaryIO) -> NDArray[np.uint8]:
    with Image.open(file, formats=_formats()) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(path, f"{height} x {width} (height x width) = {width * height:,} pixels")
        try:
            return upright_rgb(image)
        except InputError as error:
            raise ImageError(path, error.message, error.hint) from error


def upright_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a Pillow image as `open_image` gives them: upright, [H, W, 3] uint8 RGB.

    Raises InputError for an image without pixels and for numbers that have no 8-bit meaning.
    """
    image.load()
    if 0 in image.size:
        raise InputError("an image without pixels")
    pixels = _to_rgb(image)
    # After `load`: PNG may keep the EXIF data behind the pixels, and TIFF turns the image by itself while loading.
    return np.ascontiguousarray(_upright(pixels, _orientation(image)))


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return _grey(_EIGHT_BIT[np.asarray(image)])
    if image.mode == "I":
        # Pillow's name for 32-bit integers, which also stands for 16-bit data of some formats and versions.
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise InputError(f"integer pixels from {low} to {high}, where 0 to 65535 is understood", _RESCALE)
        return _grey(_EIGHT_BIT[values])
    if image.mode == "F":
        return _grey(_from_float(np.asarray(image)))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


# v / 257, rounded to the nearest: 65535 / 257 = 255. Cutting off the low byte, or clipping, would darken or flatten.
_EIGHT_BIT: NDArray[np.uint8] = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)

_RESCALE = "Save it with 8 or 16 bits a channel."


def _from_float(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # false for NaN too
        reason = f"float pixels from {low:g} to {high:g}, where 0 to 1 or 0 to 255 is understood"
        raise InputError(reason, _RESCALE)
    scaled = values * np.float32(255) if high <= 1 else values
    return np.rint(scaled).astype(np.uint8)


def _grey(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(values[:, :, np.newaxis], 3, axis=2)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF beside sound pixels raises as many kinds as damaged pixels do
        return 1
    return value if isinstance(value, int) else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation, 1..8; other values change nothing."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels


_quiet = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_quiet_lock = threading.Lock()


def _hush_pillow() -> None:
    """Silence what Pillow's own modules warn of: large images, odd metadata, doubtful palettes.

    The limit on pixels here is MAX_PIXELS, and a file that can be read is a good file. `warnings.catch_warnings` would
    end with the call, but it swaps the filters of the whole process, and threads that overlap in it leave the wrong
    ones behind. A filter that is put in once and stays is safe. It is put in again only where others were put before
    it, as test runners do; a thread that finds it in front needs no lock, and the others wait for it.
    """
    if tuple(warnings.filters[:1]) == (_quiet,):
        return
    with _quiet_lock:
        if tuple(warnings.filters[:1]) != (_quiet,):
            warnings.filterwarnings("ignore", module=r"PIL\.")


# ---- complaints ----

# What often lies where an image should, told by how it begins.
_LOOKALIKES = (
    (
        re.compile(rb"(?s)\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*|RIFF....WEBP|BM"),
        "broken image file: its header is damaged or cut off",
        "Fetch the image again, or remove it.",
    ),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the image", "Run `git lfs pull` in its folder."),
    (re.compile(rb"(?i)\s*<(!doctype )?html"), "a web page, not an image", "Its download failed; fetch it again."),
    (re.compile(rb"(?i)\s*<(\?xml|svg)"), "XML or SVG text, not a pixel image", "Convert it to PNG first."),
    (re.compile(rb"%PDF|%!PS"), "a PDF or PostScript page, not a pixel image", "Convert it to PNG first."),
    (re.compile(rb"(?s)....ftyp(hei|hev|mif|msf)"), "a HEIC image, which Pillow cannot read", "Convert it to JPEG."),
)


def _not_an_image(path: Path, file: BinaryIO) -> ImageError:
    try:
        file.seek(0)
        head = file.read(64)
    except (OSError, ValueError):
        head = b""
    for pattern, reason, hint in _LOOKALIKES:
        if pattern.match(head):
            return ImageError(path, reason, hint)
    return ImageError(path, "not an image in a format that Pillow reads", "Convert it to PNG or JPEG, or remove it.")


def _too_large(path: Path, size: str) -> ImageError:
    return ImageError(path, f"too large: {size}; the limit is {MAX_PIXELS:,}", "Scale it down, or cut it into tiles.")


def _broken(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {_words(error)}"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated file ({text or 'it ends early'})"
    # A KeyError's text alone is a number; its type tells at least what kind of fault it is.
    detail = text if isinstance(error, (OSError, SyntaxError)) and text else f"{type(error).__name__}: {text}"
    return f"broken image data ({detail})"


def _words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
