"""Write the labels of one image as a mask, a picture for people, COCO annotations and polygons.

Usage: python write_formats.py IMAGE OUTPUT
"""

import json
import sys
from pathlib import Path

import tipsseg

if len(sys.argv) != 3:
    sys.exit(__doc__)

image, output = map(Path, sys.argv[1:])
result = tipsseg.Labeller(tipsseg.load("tiny"), ["panda", "tree", "sky"]).label(image)

result.save_mask(output / "mask.png")  # pixel values are the ids of the classes
result.overlay(image, title=image.name).save(output / "overlay.png")
(output / "annotations.json").write_text(json.dumps(result.to_coco(image_id=1)))

for each in result.regions(min_area=50):  # pixels
    name = result.classes[each.region.class_id - 1].name
    print(f"{name}: {each.region.area} pixels, score {each.score}, {len(each.outline.rings)} polygons")
