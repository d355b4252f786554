"""List what plugins bring, by names: the only module of the plugins that the rest of tipsseg imports.

A plugin brings commands, formats and more (see `PluginKind`). Help, completion and lists show the names of these without importing
the plugin, which is loaded when one of them is used. What our plugins bring stands in the tables below. A package of somebody else
declares it as entry points:

    [project.entry-points."tipsseg.plugins"]
    "format.toy" = "tipsseg_toy:Toy"

`importlib.metadata` would take half of the time that the help of all commands takes, so the files of entry points are read here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

#: What a plugin can bring. README.md says what each is; a name that tipsseg has itself stays what it is.
PluginKind = Literal["verb", "format", "reader", "suffix", "container", "backbone", "target", "scheme", "engine"]

_GROUP = "tipsseg.plugins"

#: What our plugins bring, by kind and name.
_OURS: Mapping[str, str] = {
    "verb.audit": "tipsseg.plugins.audit.verb:audit",
    "verb.report": "tipsseg.plugins.page.verb:report_folder",
    "reader.report": "tipsseg.plugins.page.corrections:PageCorrections",
    "verb.serve": "tipsseg.plugins.serve.verb:serve",
    "target.parquet": "tipsseg.plugins.datasets.verb:write_dataset",
    "target.webdataset": "tipsseg.plugins.datasets.verb:write_dataset",
    "engine.ray": "tipsseg.plugins.cloud.ray:ray_engine_maker",
    **dict.fromkeys(
        ("scheme.s3", "scheme.gs", "scheme.http", "scheme.https", "scheme.hf", "scheme.memory"),
        "tipsseg.plugins.cloud.fetching:FsspecFiles",
    ),
    "container.parquet": "tipsseg.plugins.datasets.table:ParquetTable",
    "format.geotiff": "tipsseg.plugins.geo.formats:GeoTiff",
    "format.geojson": "tipsseg.plugins.geo.formats:GeoJson",
    "format.gpkg": "tipsseg.plugins.geo.formats:GeoPackage",
    **dict.fromkeys(("suffix.tif", "suffix.tiff", "suffix.jp2"), "tipsseg.plugins.geo.pictures:preferred_format"),
}


class ListedCommand(NamedTuple):
    """A command in the list of all commands: the command that it follows there, and a summary."""

    after: str
    summary: str


#: The commands of our plugins in the list of all commands. Commands of somebody else come last.
LISTED: Mapping[str, ListedCommand] = {
    "report": ListedCommand("rank", "Write a web page to review and correct labels."),
    "audit": ListedCommand("eval", "Find likely errors in existing labels."),
    "serve": ListedCommand("audit", "Run a Label Studio backend: predictions and training."),
}


#: What errors of the core advise where one of our plugins helps.
ADVICE: Mapping[str, str] = {
    "large image": "label it as a raster with format geotiff",
    "unreadable TIFF": "Label it as a raster, with the format geotiff, {bands} and {stretch}",
}


def names(kind: PluginKind) -> tuple[str, ...]:
    """Return the names of what plugins bring: ours in the order of the table, then the names of somebody else."""
    return tuple(name for own, name in _brought() if own == kind)


def load_plugin(kind: PluginKind, name: str) -> Any:
    """Return what a plugin brings.

    Raises:
        PluginError: A package of somebody else cannot be imported, or lacks what it declares.
    """
    place = _brought()[kind, name]
    try:
        return _imported(place)
    except Exception as error:
        if f"{kind}.{name}" in _OURS:
            raise
        from tipsseg.errors import PluginError

        raise PluginError(f"{kind} {name}", place, f"{type(error).__name__}: {error}") from error


def _imported(place: str) -> Any:
    """Return a module, or "module:attribute"."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute) if attribute else import_module(module)


@cache
def _brought() -> dict[tuple[str, str], str]:
    """Return the places of what plugins bring, "module:attribute", by kind and name. Nobody replaces what is ours."""
    found = dict[tuple[str, str], str]()
    for key, place in (*_OURS.items(), *sorted(_declared())):
        kind, _, name = key.partition(".")
        found.setdefault((kind, name), place)
    return found


def _declared() -> Iterator[tuple[str, str]]:
    """Yield the entry points of installed packages in our group."""
    for folder in dict.fromkeys(sys.path):
        with suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    with suppress(OSError, UnicodeDecodeError):
                        yield from _entries(Path(entry.path, "entry_points.txt").read_text("utf-8"))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and the places of our group in a file of entry points."""
    group = ""
    for line in map(str.strip, text.splitlines() if _GROUP in text else ()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group == _GROUP and "=" in line and not line.startswith(("#", ";")):
            name, _, place = line.partition("=")
            yield name.strip(), place.partition("[")[0].strip()
