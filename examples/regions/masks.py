"""Stand in for a tool that cuts out objects: write the connected regions of the truth masks as SAM writes its masks.

    python examples/regions/masks.py

Write out/sam/<image>.json, a list of masks without classes for each scene.
"""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

EXAMPLES = Path(__file__).resolve().parents[1]

for path in sorted((EXAMPLES / "truth").rglob("*.png")):
    truth = np.asarray(Image.open(path))
    masks = []
    for label in np.unique(truth[truth != 255]):
        number, regions = cv2.connectedComponents((truth == label).astype(np.uint8))
        for region in range(1, number):
            code = coco_mask.encode(np.asfortranarray(regions == region, np.uint8))
            box = coco_mask.toBbox(code).tolist()
            code["counts"] = code["counts"].decode()
            masks.append({"segmentation": code, "area": int((regions == region).sum()), "bbox": box})
    target = Path("out/sam") / path.relative_to(EXAMPLES / "truth").with_suffix(".json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(masks))
