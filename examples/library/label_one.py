"""Label one image: what is where, and how sure the model is.

Usage: python label_one.py IMAGE
"""

import sys

import tipsseg

if len(sys.argv) != 2:
    sys.exit(__doc__)

model = tipsseg.load("tiny")  # "l14" for real work; "tiny" needs no download
labeller = tipsseg.Labeller(model, ["panda", "tree", "sky"])
result = labeller.label(sys.argv[1])

height, width = result.size
print(f"{height} x {width} (height x width) pixels")
for each in result.classes:
    pixels = result.labels == each.id  # [H, W] bool
    if pixels.any():
        print(f"{each.name}: {pixels.mean():.1%}, confidence {result.confidence[pixels].mean():.2f}")
