"""Addresses of images: a path, or a URL as a path, without the secrets of a URL.

A Path joins the two slashes of a URL into one: s3:/bucket/a.jpg. User, password and query stay in this process; a number stands in
their place, as in https:/~1@host/a.jpg?~2, so that no text of an address has them. Only `url_of` returns them.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from tipsseg.plugins import names

#: Schemes of URLs that images are read from.
URL_SCHEMES = names("scheme")

_URL = re.compile(rf"({'|'.join(map(re.escape, URL_SCHEMES))}):[/\\]+(.*)", re.DOTALL)

#: A URL of any scheme, as users type them. Drives of Windows have one letter.
_TYPED_URL = re.compile(r"([a-z][a-z0-9+.:-]*[a-z0-9+.-]):[/\\]+(.*)", re.DOTALL | re.IGNORECASE)

_HOST = re.compile(r"(\[[^]]*\]|[^:\[\]]*)(:\d*)?")

_NUMBERED_USER, _NUMBERED_QUERY = re.compile(r"^~(\d+)@"), re.compile(r"\?~(\d+)$")

#: Secrets of URLs in any text: user and password, even with characters that must be escaped, and the query. Each part has a
#: limit, so that a hostile text takes no time in proportion to the square of its length.
_USER = re.compile(
    r"\b([a-z][a-z0-9+.-]{1,20}+:[/\\]{1,2})([^\s/\\'\"?#]{0,4000}|[^\s/:@]{0,4000}:(?!\d{0,9}[/?#\s'\"])[^\s'\"]{0,4000})@",
    re.IGNORECASE,
)
_QUERY = re.compile(
    r"\b(https?:[/\\]{1,2}[^\s?#'\"]{0,4000}[?#]|[a-z][a-z0-9+.-]{1,20}+:[/\\]{1,2}[^\s?'\"]{0,4000}\?(?=[^\s'\")]{0,4000}=))"
    r"[^\s'\")]*",
    re.IGNORECASE,
)

_numbers: dict[str, int] = {}
_secrets: dict[int, str] = {}


def is_url(address: PurePath | str) -> bool:
    """Return True for a URL that images are read from."""
    return _URL.match(str(address)) is not None


def has_scheme(address: PurePath | str) -> bool:
    """Return True for a URL of any scheme."""
    return _TYPED_URL.match(str(address)) is not None


def is_web(path: PurePath) -> bool:
    """Return True for a URL of a web server."""
    return is_url(path) and path.parts[0] in ("http:", "https:")


def suffix_of(path: PurePath) -> str:
    """Return the suffix of an address in lower case, without the query of a URL."""
    name = path.name.split("?")[0] if is_url(path) else path.name
    return PurePath(name).suffix.lower()


def as_address(text: PurePath | str) -> Path:
    """Return the address of a text that a user typed; a web address loses its fragment."""
    found = _TYPED_URL.match(str(text))
    if found is None:
        return Path(text)
    scheme, rest = found[1].lower(), found[2]
    is_web = scheme in ("http", "https")
    place, mark, query = (rest.split("#")[0] if is_web else rest).partition("?")
    if not is_web and "=" not in query:  # a key of S3 may contain a question mark
        place, mark = place + mark + query, ""
    before, slash, name = place.partition("/")
    user, at, host = before.rpartition("@")
    if not _HOST.fullmatch(host):  # the rest of a password with a slash; `check_address` rejects it
        return Path(f"{scheme}:/{_hide(rest)}@_")
    return Path(f"{scheme}:/{_hide(user) if at else ''}{at}{host}{slash}{name}{mark}{_hide(query) if mark else ''}")


def url_of(path: PurePath) -> str:
    """Return the URL of an address, with its user, password and query."""
    scheme, rest = path.as_posix().split(":/", 1)
    rest = _NUMBERED_USER.sub(lambda found: f"{_secrets[int(found[1])]}@", rest)
    return f"{scheme}://" + _NUMBERED_QUERY.sub(lambda found: f"?{_secrets[int(found[1])]}", rest)


def address_text(address: PurePath | str) -> str:
    """Return an address for people and records: a URL with both slashes, but without user, password and query; else its text."""
    if not has_scheme(address):
        return str(address)
    scheme, rest = str(as_address(address)).split(":/", 1)
    return f"{scheme}://" + without_query(_NUMBERED_USER.sub("", rest))


def without_query(text: str) -> str:
    """Return the text of an address, or of its end, without the number that stands for a query."""
    return _NUMBERED_QUERY.sub("", text)


def without_secrets(text: str) -> str:
    """Return a text with its URLs as `address_text` writes them, as far as they can be told in a text."""
    if ":/" not in text and ":\\" not in text:  # nearly all texts
        return text
    return _QUERY.sub(lambda found: found[1][:-1], _USER.sub(r"\1", text))


def _hide(secret: str) -> str:
    found = re.fullmatch(r"~(\d+)", secret)
    if found and int(found[1]) in _secrets:
        return secret
    number = _numbers.setdefault(secret, len(_numbers) + 1)
    _secrets[number] = secret
    return f"~{number}"
