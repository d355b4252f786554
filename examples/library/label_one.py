"""Label one image, and print the area and the mean confidence of each class.

Usage: python label_one.py IMAGE
"""

import sys

import tipsseg

if len(sys.argv) != 2:
    sys.exit(__doc__)

model = tipsseg.load("tiny")  # "l14" for photographs; "tiny" needs no download
result = model.label(sys.argv[1], ["panda", "tree", "sky"])
print(result)

for name in result.names.values():
    pixels = result.mask(name)  # [H, W] bool
    if pixels.any():
        print(f"{name}: {pixels.mean():.1%} of the image, confidence {result.confidence[pixels].mean():.2f}")
