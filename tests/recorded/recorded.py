"""Label the examples in many ways, and hold the digests of all files against those kept beside this script.

    python tests/recorded/recorded.py                     compare this tree with digests.txt
    python tests/recorded/recorded.py --update            write digests.txt
    python tests/recorded/recorded.py --keep DIR          keep the labelled folders, to compare them file by file
    python tests/recorded/recorded.py --against REVISION  compare this tree with a revision of git, both run here

A change that only moves code changes no digest. Of masks the labels count. The last digits of scores depend on the instructions of
torch's own kernels, of oneDNN and of MKL, and on the number of threads. So commands run with AVX2 and one thread, also on CPUs
with AVX-512. If this machine has other instructions or another torch than digests.txt names, use `--against`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
DIGESTS = Path(__file__).with_name("digests.txt")

#: Files with a clock, versions or paths in them. Hidden folders hold tipsseg's own records.
_NOT_LABELS = {"run.json", "manifest.jsonl"}

#: The instructions of ATen, oneDNN and MKL, and the threads. MKL can be limited to AVX2 on Intel's processors alone.
_ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
}

#: The files of each of these have one digest together.
_FOLDERS = {"beach", "lake", "meadow", "street"}

_MODEL = "--model tiny --device cpu --dtype float32"
_CLASSES = "--classes 'panda leg,tree'"
_OBJECTS = "coco,coco-polygon,coco-results,panoptic,instances,yolo,yolo-boxes,yolo-obb,labelme,cvat,label-studio,csv"
_EVERY = f"png,png-palette,{_OBJECTS},hf,npz,overlay,confidence,binary,cutouts"

#: Each case labels into the folder of its name; what a case writes, a later case may read.
CASES = {
    "formats": [f"label scenes {_MODEL} {_CLASSES} -f {_EVERY} -o OUT"],
    "options": [
        f"label scenes {_MODEL} {_CLASSES} -f {_OBJECTS},png --min-confidence 0.5 --instances class --min-area 0.1% "
        "--simplify 2 --names full --val-fraction 0.3 -o OUT"
    ],
    "published": [f"label scenes {_MODEL} --vocab leaves.txt --background none -f png,npz,confidence -o OUT"],
    "whole": [f"label scenes {_MODEL} {_CLASSES} --mode whole --short-side 300 -f png,confidence -o OUT"],
    "scales": [f"label scenes {_MODEL} {_CLASSES} --scales 1,1.75 -f png,confidence,coco -o OUT"],
    "refined": [f"label scenes {_MODEL} {_CLASSES} --refine pamr -f png,confidence,coco -o OUT"],
    "parts": [f"label scenes {_MODEL} -c 'panda/head,panda/leg,tree' -f png,{_OBJECTS},npz,binary -o OUT"],
    "regions": [f"label scenes {_MODEL} -c panda,tree,boat --regions truth -f png,{_OBJECTS},npz -o OUT"],
    "onto": [f"label scenes {_MODEL} -c sun,cloud --onto truth -f png,{_OBJECTS},npz -o OUT"],
    "features": [
        f"encode scenes {_MODEL} -o OUT/store",
        f"label scenes {_MODEL} {_CLASSES} --features OUT/store -f png,confidence,coco -o OUT/labels",
    ],
    "raster": [
        f"label scene.tif {_MODEL} -c car,house -f geotiff,geojson,gpkg -o OUT/blocks",
        f"label scene.tif {_MODEL} -c car,house -f geojson --ground-resolution 0.5 -o OUT/coarse",
    ],
    "archives": [
        f"label scenes.tar {_MODEL} {_CLASSES} -f png,coco,overlay -o OUT/tar",
        f"label scenes.zip {_MODEL} {_CLASSES} -f png,coco,overlay -o OUT/zip",
    ],
    "shards": [
        f"label scenes {_MODEL} {_CLASSES} -f png,coco,yolo,overlay --shard {part}/3 -o OUT" for part in (1, 2, 3)
    ],
    "corrected": [
        f"label scenes/meadow {_MODEL} --vocab leaves.txt --background none -f png,coco -o OUT",
        "correct OUT --from truth/meadow",
        f"convert OUT -f {_OBJECTS},hf,overlay,binary,cutouts",
    ],
    "learnt": [
        "fit corrected -o OUT/meadow.fit",
        f"label scenes/lake {_MODEL} --vocab OUT/meadow.fit -f png,confidence,coco -o OUT/labels",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all, if none is named")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--against")
    given = parser.parse_args()
    cases = given.cases or list(CASES)
    os.environ.update(_ENVIRONMENT)  # before torch is imported, here and in the commands
    with tempfile.TemporaryDirectory() as temporary:
        here = record(REPOSITORY, cases, given.keep or Path(temporary, "here"))
        if given.update:
            DIGESTS.write_text("".join(f"{line}\n" for line in [computed_with(), *written(here)]), "utf-8")
            return
        before = of_revision(given.against, cases, Path(temporary)) if given.against else kept(cases)
    different = sorted(set(written(before)) ^ set(written(here)))
    for line in different:
        print("-" if line in written(before) else "+", line)
    print(
        f"{len(here)} digests, {len({line.rpartition(chr(9))[0] for line in different})} of them differ",
        file=sys.stderr,
    )
    sys.exit(bool(different))


def record(tree: Path, cases: list[str], folder: Path) -> dict[str, str]:
    """Run the cases with the code of a tree.

    Returns:
        The digests, by case and top level entry of its folder: one for a file, or for all files of a folder.
    """
    draw_inputs(folder)
    for case in cases:
        for command in CASES[case]:
            subprocess.run(
                f'"{sys.executable}" -m tipsseg {command.replace("OUT", case)} --quiet',
                shell=True,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(tree), "TIPSSEG_CACHE": str(folder / "cache")},
                stdout=subprocess.DEVNULL,
                check=True,
            )
    return {name: digest for case in cases for name, digest in digests(folder, case)}


def draw_inputs(folder: Path) -> None:
    """Copy the examples, and make a raster and archives of them."""
    for name in ("scenes", "truth"):
        shutil.copytree(REPOSITORY / "examples" / name, folder / name)
    shutil.copy(REPOSITORY / "examples/leaves.txt", folder)
    subprocess.run(
        [sys.executable, str(REPOSITORY / "examples/raster/make_scene.py"), "scene.tif"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    with tarfile.open(folder / "scenes.tar", "w") as tar, zipfile.ZipFile(folder / "scenes.zip", "w") as archive:
        for path in sorted((folder / "scenes").rglob("*.*")):
            tar.add(path, path.relative_to(folder))
            archive.write(path, path.relative_to(folder))


def digests(folder: Path, case: str) -> Iterator[tuple[str, str]]:
    sums: defaultdict[str, hashlib._Hash] = defaultdict(hashlib.sha256)
    counts: defaultdict[str, int] = defaultdict(int)
    for path in sorted((folder / case).rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and path.name not in _NOT_LABELS and not any(part.startswith(".") for part in inside.parts):
            entry = "/".join(takewhile(lambda part: part not in _FOLDERS, inside.parts))
            sums[entry].update(f"{inside}\0".encode() + _content(path))
            counts[entry] += 1
    for entry, digest in sums.items():
        yield f"{entry}\t{counts[entry]}", digest.hexdigest()[:16]


def _content(path: Path) -> bytes:
    """The bytes of a file; of a mask, which says what it is too, the labels."""
    if "masks" not in path.parts:
        return path.read_bytes()
    if path.suffix == ".tif":
        import rasterio

        with rasterio.open(path) as mask:
            labels = mask.read(1)
    else:
        with Image.open(path) as picture:
            labels = np.array(picture)
    return repr((labels.shape, str(labels.dtype))).encode() + labels.tobytes()


def written(found: dict[str, str]) -> list[str]:
    return [f"{name}\t{digest}" for name, digest in found.items()]


def kept(cases: list[str]) -> dict[str, str]:
    lines = DIGESTS.read_text("utf-8").splitlines()
    if lines[0] != computed_with():
        print(f"digests.txt: {lines[0]}; here: {computed_with()}; see --against", file=sys.stderr)
    found = dict(line.rsplit("\t", 1) for line in lines[1:])
    return {name: digest for name, digest in found.items() if name.partition("/")[0] in cases}


def of_revision(revision: str, cases: list[str], folder: Path) -> dict[str, str]:
    tree = folder / "tree"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), revision], cwd=REPOSITORY, check=True)
    try:
        return record(tree, cases, folder / "before")
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=REPOSITORY, check=True)


def computed_with() -> str:
    import torch

    return f"instructions {torch.backends.cpu.get_cpu_capability()}\ttorch {torch.__version__.partition('+')[0]}"


if __name__ == "__main__":
    main()
