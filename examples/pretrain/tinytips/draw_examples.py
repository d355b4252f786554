"""Draws examples/scenes/: twelve scenes in several sizes and formats; and examples/truth/, their ground-truth masks.

    python -m tinytips.draw_examples examples

Truth masks are index PNGs, ids as in truth/classes.json; they are apart from the scenes, so that labelling the folder of
scenes does not take them for images. One picture is stored on its side with an EXIF orientation; its truth is upright.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

from tinytips.world.concepts import LEAF_LIST, LEAVES, WHOLES, leaf_ids
from tinytips.world.scenes import draw_scene

# name, seed, (height, width)
SCENES = (
    ("beach/holiday.jpg", 40_000_019, (450, 640)),
    ("beach/tree.tif", 40_000_002, (360, 480)),
    ("desert.png", 40_000_013, (300, 560)),
    ("lake/boat.bmp", 40_000_022, (300, 420)),
    ("lake/grey.png", 40_000_032, (400, 400)),
    ("meadow/house.webp", 40_000_025, (448, 600)),
    ("meadow/panda-and-tree.jpg", 40_000_041, (480, 640)),
    ("meadow/two-pandas.png", 40_000_046, (600, 450)),
    ("sea.gif", 40_000_020, (270, 480)),
    ("street/car.jpg", 40_000_065, (720, 960)),
    ("street/house.png", 40_000_053, (448, 448)),
    ("street/turned.jpg", 40_000_017, (480, 360)),
)
_ROTATED = 6  # EXIF: the top of the scene is at the right of the stored picture


def main(folder: Path) -> None:
    for name, seed, (height, width) in SCENES:
        scene = draw_scene(seed, height, width)
        path = folder / "scenes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(scene.image)
        if name == "street/turned.jpg":
            exif = Image.Exif()
            exif[0x0112] = _ROTATED
            image.transpose(Image.Transpose.ROTATE_90).save(path, quality=92, exif=exif)
        elif name == "lake/grey.png":
            image.convert("L").save(path)
        elif path.suffix in (".jpg", ".webp"):
            image.save(path, quality=92)
        elif path.suffix == ".tif":
            image.save(path, compression="tiff_deflate")
        else:
            image.save(path)
        truth = folder / "truth" / Path(name).with_suffix(".png")
        truth.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene.truth).save(truth, optimize=True)
    classes = {
        "classes": [{"id": number, "name": leaf.name} for number, leaf in enumerate(LEAVES, start=1)],
        "wholes": {whole.name: list(leaf_ids(whole.name)) for whole in WHOLES},
    }
    (folder / "truth" / "classes.json").write_text(json.dumps(classes, indent=2) + "\n")
    lines = ["# The parts of the drawn world, in the order of the ids in examples/truth", *LEAF_LIST]
    (folder / "leaves.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(SCENES)} scenes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
