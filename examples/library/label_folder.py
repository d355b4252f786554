"""Label a folder, write index masks and COCO annotations, and score the masks. A second call resumes.

Usage: python label_folder.py FOLDER OUTPUT TRUTHS
"""

import sys
from pathlib import Path

import tipsseg

if len(sys.argv) != 4:
    sys.exit(__doc__)

folder, output, truths = sys.argv[1:]
classes = tipsseg.read_vocabulary(Path(__file__).parents[1] / "leaves.txt", "none")

run = tipsseg.label_folder(folder, classes, output=output, formats=["png", "coco"], model="tiny")
print(run)
for image in run:
    print(f"{image.path}: {image.error or image.files['png']}")

evaluation = tipsseg.review.score_masks(output, truths)
print(f"mean IoU {evaluation.scores.mean_iou:.3f} over {evaluation.scored} images")
