"""Write the address of any image as a Path: of a file, a URL, or a file and the name of an image in it.

    photos/a.jpg    s3:/bucket/a.jpg    shard-000.tar/a.jpg    train.parquet/000012.jpg    clip.mp4/000120

A Path joins the two slashes of a URL into one; `printable_path` restores them, and `tipsseg.address` keeps the secrets of URLs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from tipsseg.address import is_url, without_query
from tipsseg.util.record_paths import actual_path

ARCHIVES = frozenset({".tar", ".zip"})
TABLES = frozenset({".parquet"})
VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts", ".m2ts", ".3gp"})

#: Suffixes of files with images in them.
CONTAINERS = ARCHIVES | TABLES | VIDEOS


def absolute(path: Path) -> Path:
    """Return an absolute path without resolving links, which would change names; a URL is returned as it is."""
    return path if is_url(path) else Path(os.path.abspath(path))  # noqa: PTH100


def real_path(path: Path) -> str:
    """Return the path of a file with links resolved; a URL is returned as it is."""
    return str(path) if is_url(path) else os.path.realpath(path)


def suffix_of(path: PurePath) -> str:
    """Return the suffix of an address in lower case, without the query of a URL."""
    name = path.name.split("?")[0] if is_url(path) else path.name
    return PurePath(name).suffix.lower()


#: A container in the middle of an address.
_INSIDE = re.compile(rf"({'|'.join(map(re.escape, sorted(CONTAINERS)))})[/\\\\]", re.IGNORECASE)


def container_of(path: Path) -> Path | None:
    """Return the file that an image is in, such as an archive; None if the address is that of a file itself."""
    if _INSIDE.search(str(path)) is None:  # nearly all images, at a fraction of the time
        return None
    for parent in path.parents:
        if parent.suffix.lower() in CONTAINERS and (is_url(parent) or os.path.isfile(parent)):  # noqa: PTH113
            return parent
    return None


def name_below(path: Path, root: Path) -> PurePosixPath | None:
    """Return the name of an image below the folder `root`; None if it is outside.

    The name of a container loses its suffix. That of a URL loses its query, and its escapes are decoded.
    """
    whole = absolute(path)
    if not whole.is_relative_to(root):
        return None
    inside = container_of(whole)
    if inside is None or not inside.is_relative_to(root) or inside == root:
        return plain_name(whole.relative_to(root), whole)
    outer = plain_name(inside.relative_to(root), whole).with_suffix("")
    return outer / PurePosixPath(*whole.relative_to(inside).parts)


def plain_name(relative: PurePath, address: Path) -> PurePosixPath:
    """Return the end of an address as a name, without the query of a URL. Escapes of the web are decoded, except of separators."""
    if is_web(address):
        return PurePosixPath(*map(_decode, relative.parts))
    return PurePosixPath(without_query(relative.as_posix()) if is_url(address) else relative)


def _decode(part: str) -> str:
    plain = part.split("?", maxsplit=1)[0]
    decoded = unquote(plain)
    return plain if decoded in (".", "..") or {"/", "\\", "\0"} & set(decoded) else decoded


def is_web(path: PurePath) -> bool:
    """Return True for a URL of a web server."""
    return is_url(path) and path.parts[0] in ("http:", "https:")


def below(root: Path, name: str, recorded: str = "") -> Path:
    """Return the address of the image called `name` in records, below the folder `root`: the reverse of `name_below`.

    An image that is not there has the address that was `recorded`, unless that does not exist either.
    """
    literal = actual_path(root, name)
    if not is_url(root):
        if os.path.lexists(literal):
            return literal
        for folder in literal.parents:
            if folder == root:
                break
            for suffix in sorted(CONTAINERS):
                if os.path.isfile(container := folder.with_name(folder.name + suffix)):  # noqa: PTH113
                    return container / literal.relative_to(folder)
    noted = actual_path(Path(), recorded)
    return noted if recorded and (is_url(noted) or os.path.lexists(noted) or container_of(noted)) else literal
