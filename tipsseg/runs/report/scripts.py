"""Encode data as scripts, because a page opened from disk may load scripts but not fetch JSON."""

from __future__ import annotations

import json


def script(kind: str, *values: object) -> bytes:
    """Return an ASCII script that passes values to the page: `tipsseg.<kind>(...)`.

    `<`, `>`, `&` and line separators are escaped, so that no value can end the script or a comment of the page.
    """
    texts = (json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")) for value in values)
    arguments = ",".join(texts)
    for letter in "<>&":
        arguments = arguments.replace(letter, f"\\u{ord(letter):04x}")
    return f"tipsseg.{kind}({arguments});\n".encode("ascii")
