"""Label a folder into index masks and COCO annotations, then score the masks; a second call goes on where the first one ended.

Usage: python label_folder.py FOLDER OUTPUT TRUTHS
"""

import sys
from pathlib import Path

import tipsseg

if len(sys.argv) != 4:
    sys.exit(__doc__)

folder, output, truths = sys.argv[1:]
classes = tipsseg.read_vocabulary(Path(__file__).parents[1] / "leaves.txt", "none")

for result in tipsseg.label_folder(folder, classes, output=output, formats=("png", "coco"), model="tiny"):
    if isinstance(result, tipsseg.Failed):
        print(f"{result.name}: {result.error.reason}")
    else:
        print(f"{result.ref.name}: {result.entry.files['png']}")

evaluation = tipsseg.score_masks(output, truths)
print(f"mean IoU {evaluation.scores.mean_iou:.3f} over {evaluation.scored} images")
