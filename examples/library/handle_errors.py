"""Skip images that cannot be read. Every expected error is a TipssegError with a message and a hint.

Usage: python handle_errors.py IMAGE...
"""

import sys

import tipsseg

if not sys.argv[1:]:
    sys.exit(__doc__)

labeller = tipsseg.load("tiny").labeller(["tree", "sky"], min_confidence=0.3)
for path, result in zip(sys.argv[1:], labeller.label_many(sys.argv[1:], errors="yield"), strict=True):
    if isinstance(result, tipsseg.TipssegError):
        print(f"{result.message}. {result.hint}")
    else:
        print(f"{path}: {result.mask(result.ignore).mean():.1%} below the minimum confidence")
