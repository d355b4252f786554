"""Masks of rasters follow them to other names, with what a person changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from entries import read_entries
from rasters import drawn, write_raster
from running import Command

OPTIONS = ("-c", "panda leg,tree", "-m", "tiny", "--device", "cpu", "-f", "geotiff,geojson", "-o", "out")


def read(name: str) -> np.ndarray:
    with rasterio.open(f"out/masks/{name}.tif") as mask:
        return np.asarray(mask.read(1))


def edit(name: str) -> np.ndarray:
    """Change a mask in place, and lose what it says of itself."""
    labels = read(name)
    labels[:, -40:] = 2
    with rasterio.open(f"out/masks/{name}.tif") as mask:
        profile = {**mask.profile, "driver": "GTiff"}
    with rasterio.open(f"out/masks/{name}.tif", "w", **profile) as mask:
        mask.write(labels, 1)
    return labels


def test_masks_follow_rasters_that_have_other_names(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_raster(Path("imgs/a.tif"), drawn(200, 150))
    write_raster(Path("imgs/b.tif"), drawn(150, 200))
    assert command("label", "imgs", *OPTIONS).code == 0
    models, persons = read("a"), edit("b")
    Path("imgs/a.tif").rename("imgs/c.tif")
    Path("imgs/b.tif").rename("imgs/a.tif")
    for _ in range(2):
        ran = command("label", "imgs", *OPTIONS)
        assert (ran.code, "0 images labelled, 2 unchanged" in ran.err) == (0, True), ran.err
        assert (read("c") == models).all()
        assert (read("a") == persons).all()
        for name in "ac":
            with rasterio.open(f"out/masks/{name}.tif") as mask:
                assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        entries = read_entries(Path("out"))
        assert {name: (entry.corrected, entry.mask.formerly) for name, entry in entries.items()} == {
            "a.tif": (True, ("b.tif",)),
            "c.tif": (False, ("a.tif",)),
        }
        assert sorted(path.name for path in Path("out/polygons").iterdir()) == ["a.geojson", "c.geojson"]
        assert "nothing wrong" in command("check", "out").err
        shutil.rmtree("out/.tipsseg")
