"""Encode an image once, and ask about it more than once: each question costs a few milliseconds.

Usage: python features.py IMAGE
"""

import sys

import tipsseg

if len(sys.argv) != 2:
    sys.exit(__doc__)

model = tipsseg.load("tiny")
features = model.encode(sys.argv[1])
print(f"patches {list(features.patches.shape)}, class tokens {list(features.class_tokens.shape)}")

questions = (["panda", "tree"], ["sky", "cloud"], [tipsseg.ClassSpec("water", synonyms=("sea", "river"))])
for classes in questions:
    result = tipsseg.Labeller(model, classes).label(features)
    shares = {each.name: float((result.labels == each.id).mean()) for each in result.classes}
    print(", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
