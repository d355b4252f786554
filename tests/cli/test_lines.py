"""The command line of what is asked (`Ask.command`): pasted into a shell, it asks the same."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tipsseg import ask
from tipsseg.ask import Ask, Verb, verb_of
from tipsseg.cli.main import functions_of, listed_commands
from tipsseg.cli.verbs import commands_of
from tipsseg.options.signature import OptionSignature

PATHS = ["a b", "it's", "./-x", "a,b", "ä/$HOME", "s3://bucket/a?b=1"]
NAMES = [["tree"], ["salt, pepper", "tree"], ["a b", "c"], ["-x"]]

#: Values of options, where the type alone does not tell any.
VALUES: Mapping[str, list[Any]] = {
    "background": ["sky,a wall", "none"], "bands": [(3, 2, 1), (1,)], "batch_size": [3], "classes": NAMES,
    "device": ["cpu", 1], "dtype": ["bfloat16"], "every": ["1s", "10"], "feature_dtype": ["int8"], "folders": [["a b", "./-x"]],
    "extra": [["a.b=c d", "a.e="]],
    "formats": [["png", "coco"], "png"], "drop": [["coco"]], "ground_resolution": [0.5, 1e-5], "host": ["127.0.0.1"],
    "images": [["a b", "./-x"]], "instances": ["class"], "layout": ["voc20"], "min_area": [40, "0.1%"], "min_confidence": [0.6],
    "mode": ["whole"], "model": ["tiny", "a b"], "models": [["l14", "tiny"]], "name": ["voc20", "a b"], "names": ["full"],
    "predicted": ["a b"],
    "ray": ["head:6379"], "refine": ["pamr"], "regions_margin": [1.5], "remove": [["a, b.png"], ["a.png", "b"]],
    "scales": [(1.0, 1.75), 2], "shard": ["3/8"], "shard_size": ["2GB"], "simplify": [1.5], "source_format": ["cvat"],
    "stretch": [(2, 98)], "templates": ["plain"], "undo": [["a, b.png"], ["a.png", "b"]], "val_fraction": [0.5],
    "vocab": ["farm.toml", "a b"], "emptied": [True, False], "only": [], "sample": [2], "short_side": [112],
}  # fmt: skip

#: Options that another option needs.
NEEDS: Mapping[str, Mapping[str, Any]] = {
    "regions_only": {"regions": "r"},
    "regions_margin": {"regions": "r", "refine": "pamr"},
    "shard_size": {"to": "set"},
}

VERBS = [each for name in listed_commands() for each in functions_of(name)]


def values_of(verb: Verb, name: str) -> list[Any]:
    if name in VALUES and (name != "images" or verb.options[name].about.argument):
        return VALUES[name]
    kind = verb.options[name].kind
    if name == "output" and kind is not Path:  # several
        return [[path] for path in PATHS[:5]]
    known: Mapping[object, list[Any]] = {bool: [True], int: [7], Path: PATHS[:5]}
    return known[kind]


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values whose paths are paths, and whose lists are tuples."""
    paths, found = ("images", "folders", "output"), dict[str, Any]()
    for key, value in values.items():
        if isinstance(value, list | tuple):
            found[key] = tuple(map(Path, value) if key in paths else value)
        else:
            found[key] = Path(value) if key == "to" and value is not None else value
    return found


@pytest.mark.parametrize("function", VERBS, ids=lambda function: verb_of(function).name)
def test_the_line_of_what_is_asked_asks_the_same(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    verb, signature = verb_of(function), OptionSignature(inspect.unwrap(function), hidden=1)
    got = dict[str, Any]()

    def stub(**values: Any) -> int:
        got.update(values)
        return 0

    stub.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    monkeypatch.setitem(ask._VERBS, stub, verb)
    command = commands_of("", stub)
    required = {
        key: each
        for key, each in verb.options.items()
        if each.about.required or each.default is inspect.Parameter.empty
    }
    offered = [name for name, each in verb.options.items() if each.about.role != "library"]
    for name in offered:
        overwrites = {"to": "set"} if name == "overwrite" and "to" in verb.options else {}
        for value in values_of(verb, name):
            given = {key: values_of(verb, key)[0] for key in required} | {
                **NEEDS.get(name, {}),
                **overwrites,
                name: value,
            }
            bound = signature.bind((), given)
            names = frozenset(bound.arguments)
            signature.take(bound)
            line = Ask(name=verb.name, options=verb.options, values=dict(bound.arguments), given=names).command()
            words = shlex.split(line)
            assert words[: len(verb.name.split()) + 1] == ["tipsseg", *verb.name.split()]
            got.clear()
            ran = CliRunner().invoke(command, words[len(verb.name.split()) + 1 :], catch_exceptions=False)
            assert ran.exit_code == 0, (line, ran.output)
            again = signature.bind((), {key: each for key, each in got.items() if key in offered})
            signature.take(again)
            asked, pasted = ({key: each.arguments[key] for key in offered} for each in (bound, again))
            assert plain(pasted) == plain(asked), line
