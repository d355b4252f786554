"""Write the labels of one image as a mask, an overlay and COCO annotations, and list its objects.

Usage: python write_formats.py IMAGE OUTPUT
"""

import json
import sys
from pathlib import Path

import tipsseg

if len(sys.argv) != 3:
    sys.exit(__doc__)

image, output = map(Path, sys.argv[1:])
result = tipsseg.load("tiny").label(image, ["panda", "tree", "sky"])

result.save_mask(output / "mask.png")  # pixel values are the class ids
result.save_overlay(output / "overlay.png", title=image.name)
(output / "annotations.json").write_text(json.dumps(result.to_coco(image_id=1)))

for entry in result.find_objects(min_area=50):  # pixels
    print(f"{entry.name}: {entry.area} pixels, score {entry.score}, box {entry.xyxy}, {len(entry.polygons)} polygons")
