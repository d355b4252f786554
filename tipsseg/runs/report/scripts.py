"""Write data as scripts: a page from the disk may load a script, and may not fetch a file of JSON."""

from __future__ import annotations

import json


def script(kind: str, *values: object) -> bytes:
    """Write a script that hands values to the page, `tipsseg.<kind>(...)`, in ASCII.

    No text in the values can end the script or a comment in a page: `<`, `>` and `&`, and line separators, are escaped.
    """
    texts = (json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")) for value in values)
    arguments = ",".join(texts)
    for letter in "<>&":
        arguments = arguments.replace(letter, f"\\u{ord(letter):04x}")
    return f"tipsseg.{kind}({arguments});\n".encode("ascii")
