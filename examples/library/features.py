"""Encode an image once and label it with several lists of classes: each takes a few milliseconds.

Usage: python features.py IMAGE
"""

import sys

import tipsseg

if len(sys.argv) != 2:
    sys.exit(__doc__)

model = tipsseg.load("tiny")
features = model.encode(sys.argv[1])
print(features)

for classes in (["panda", "tree"], ["sky", "cloud"], {"water": ["sea", "river"]}):
    print(model.label(features, classes))
