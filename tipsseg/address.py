"""Tell URLs from paths. An address is a Path, which joins the two slashes of a URL into one: s3:/bucket/a.jpg."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

#: Schemes of URLs that images are read from.
URL_SCHEMES = ("s3", "gs", "http", "https", "hf", "memory")

_URL = re.compile(rf"({'|'.join(URL_SCHEMES)}):[/\\]+(.*)", re.DOTALL)


def is_url(address: PurePath | str) -> bool:
    """Return True for a URL."""
    return _URL.match(str(address)) is not None


def as_address(text: PurePath | str) -> Path:
    """Return the address of a text that a user typed. A web address loses its fragment; slashes in its query are escaped."""
    found = _URL.match(str(text))
    if found is None or not found[1].startswith("http"):
        return Path(text)
    place, mark, query = str(text).split("#")[0].partition("?")
    return Path(place + mark + query.replace("/", "%2F"))


def address_text(address: PurePath | str) -> str:
    """Return an address for people and records: a URL with both slashes, but without user, password and query; else its text."""
    text = str(address)
    if (found := _URL.match(text)) is None:
        return text
    scheme, rest = found.groups()
    if scheme.startswith("http"):
        rest = re.split("[?#]", rest)[0]
    host, slash, name = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{name}"
