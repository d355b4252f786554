"""Label many images. They are read one by one, encoded in batches, and returned in order.

Usage: python label_many.py FOLDER OUTPUT
"""

import sys
from pathlib import Path

import tipsseg

if len(sys.argv) != 3:
    sys.exit(__doc__)

folder, output = map(Path, sys.argv[1:])
paths = sorted(folder.glob("*.png"))
labeller = tipsseg.load("tiny").labeller(["tree", "sky", "water"])

for path, result in zip(paths, labeller.label_many(paths), strict=True):
    result.save_mask(output / path.name)
    print(output / path.name)
