"""Every link of a page leads to a file that exists, and to a heading that the file has. Nothing here has network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

#: Folders that hold pages of others: environments, caches, and what builds leave.
FOREIGN = {"build", "dist", "node_modules", "site-packages", "work"}

_FENCE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_HEADING = re.compile(r"^#{1,6} +(.*?)(?: +#+)? *$", re.MULTILINE)
_LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?[^)]*\)"  # [text](target "title") and ![text](target)
    r"|^ {0,3}\[[^]\n]+\]: *(\S+)"  # [name]: target
    r"|<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"",
    re.MULTILINE,
)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def pages() -> Iterator[Path]:
    """The Markdown pages of the repository."""
    for path in sorted(REPOSITORY.rglob("*.md")):
        folders = path.relative_to(REPOSITORY).parts[:-1]
        if not any(name.startswith(".") or name in FOREIGN for name in folders):
            yield path


def links(text: str) -> Iterator[str]:
    """The targets of the links in a page, but for what stands in code."""
    for found in _LINK.finditer(_CODE.sub("", _FENCE.sub("", text))):
        yield found[1] or found[2] or found[3]


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings have on GitHub: the second of the same name ends in -1."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        shown = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def broken(page: Path, top: Path) -> list[str]:
    """The links of a page that lead to nothing below the folder `top`."""
    return [target for target in links(page.read_text("utf-8")) if not leads(page, target, top)]


def leads(page: Path, target: str, top: Path) -> bool:
    """Whether a link leads to something, or out of the repository by a scheme such as https."""
    if _ELSEWHERE.match(target):
        return True
    path, _, anchor = target.partition("#")
    there = page.parent / path if path else page
    if not there.resolve().is_relative_to(top) or not there.exists():
        return False
    return not anchor or (there.suffix == ".md" and anchor in anchors(there.read_text("utf-8")))


@pytest.mark.parametrize("page", list(pages()), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_to_something(page: Path) -> None:
    assert broken(page, REPOSITORY) == []


def test_the_pages_of_all_folders_are_found() -> None:
    found = {str(page.relative_to(REPOSITORY)) for page in pages()}
    assert found >= {"README.md", "CHANGELOG.md", "examples/README.md", "tipsseg/assets/tiny/README.md"}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](other.md)", []),
        ("[a](gone.md)", ["gone.md"]),
        ("[a](../outside.md)", ["../outside.md"]),
        ("# One\n# One\n# One\n[a](#one-2) [b](#one-3)", ["#one-3"]),
        ("## `tipsseg label`, in *short*\n[a](#tipsseg-label-in-short)", []),
        ("[a](other.md#gone)", ["other.md#gone"]),
        ("```sh\n# no heading\n```\n[a](#no-heading)", ["#no-heading"]),
        ('<a href="gone.md"><img width="1" src="other.md"></a>', ["gone.md"]),
    ],
)
def test_broken_links_are_found(text: str, wrong: list[str], tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text("")
    folder = tmp_path / "pages"
    (folder / "folder").mkdir(parents=True)
    (folder / "other.md").write_text("# Its heading\n")
    (folder / "page.md").write_text(text)
    assert broken(folder / "page.md", folder) == wrong
