"""Go on where an image cannot be read: whatever tipsseg raises on purpose is a TipssegError with a message and a hint.

Usage: python handle_errors.py IMAGE...
"""

import sys

import tipsseg

if not sys.argv[1:]:
    sys.exit(__doc__)

labeller = tipsseg.Labeller(tipsseg.load("tiny"), ["tree", "sky"], tipsseg.LabelOptions(min_confidence=0.3))
for path in sys.argv[1:]:
    try:
        result = labeller.label(path)
    except tipsseg.ImageError as error:
        print(f"{error.path}: {error.reason}. {error.hint}")
    else:
        print(f"{path}: {(result.labels == result.ignore).mean():.1%} unsure")
