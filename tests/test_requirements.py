"""The oldest versions that are tested are those that the package says it works with."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
LOWEST = (REPOSITORY / "tests" / "constraints-lowest.txt").read_text("utf-8")


def required(lines: Sequence[str]) -> Iterator[Requirement]:
    """The requirements on others, on this system; an extra of the package itself stands for its own."""
    for requirement in map(Requirement, lines):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        if requirement.name != PROJECT["name"]:
            yield requirement
        for extra in sorted(requirement.extras) if requirement.name == PROJECT["name"] else ():
            yield from required(PROJECT["optional-dependencies"][extra])


#: What `pip install '.[test]'` installs.
REQUIREMENTS = list(required([*PROJECT["dependencies"], f"{PROJECT['name']}[test]"]))
PINS = {canonicalize_name(name): Version(version) for name, version in re.findall(r"^([\w-]+)==(\S+)$", LOWEST, re.M)}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_the_lowest_version_that_is_tested_is_the_lowest_that_is_admitted(requirement: Requirement) -> None:
    """A release has parts that the range leaves out: opencv-python 4.10 was released as 4.10.0.84."""
    (lowest,) = (Version(each.version) for each in requirement.specifier if each.operator == ">=")
    pinned = PINS[canonicalize_name(requirement.name)]
    assert pinned in requirement.specifier
    assert pinned.release[: len(lowest.release)] == lowest.release


def test_other_pins_give_a_reason() -> None:
    named, _, held_back = LOWEST.partition("# Not named, but held back: ")
    names = re.findall(r"^([\w-]+)==", named, re.MULTILINE)
    assert names == sorted(names)
    assert set(names) == {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}
    assert re.findall(r"^([\w-]+)==", held_back, re.MULTILINE) == ["click"]
