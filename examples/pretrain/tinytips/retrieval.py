"""Image-text retrieval on held-out scenes: does an image find its own caption among all, and a caption its image?

python -m tinytips.retrieval --model model --work work --scenes 500
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinytips.arguments import positive, told
from tinytips.data.held_out import held_out, middles
from tinytips.data.store import Store
from tinytips.recipe.network import encode_texts
from tipsseg.backbones.tipsv2 import checkpoint
from tipsseg.backbones.tipsv2.checkpoint import Tipsv2
from tipsseg.backbones.tipsv2.text import Tokenizer


def recall_at_1(queries: Tensor, found: Tensor, names: Sequence[str]) -> float:
    """The share of queries [N, D] whose nearest of `found` [N, D], by cosine, has the query's own name.

    Captions may be the same for several images; to find another image with the same caption is right.
    """
    nearest = (F.normalize(queries, dim=-1) @ F.normalize(found, dim=-1).T).argmax(1).tolist()
    return float(np.mean([names[index] == name for index, name in zip(nearest, names, strict=True)]))


@torch.inference_mode()
def measure(model: Tipsv2, tokenizer: Tokenizer, store: Store) -> dict[str, float]:
    """R@1 both ways, of CLS1 with the alt-texts and of CLS2 with medium and long captions, on the images' middles."""
    out = [model.vision_encoder(each) for each in middles(store, model.config.vision).split(20)]
    first, second = (
        torch.cat([each.cls for each in out]),
        torch.cat([each.registers[:, 0] for each in out]),
    )  # each [N, D]
    found = {}
    for granularity, images in (("alt", first), ("medium", second), ("long", second)):
        names = [getattr(record.captions, granularity) for record in store.records]
        texts = torch.cat(
            [encode_texts(model, tokenizer, names[start : start + 64]) for start in range(0, len(names), 64)]
        )
        found[f"{granularity}, image to text"] = recall_at_1(images, texts, names)
        found[f"{granularity}, text to image"] = recall_at_1(texts, images, names)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Measure retrieval on held-out scenes.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a folder in the hub layout")
    parser.add_argument("--work", type=Path, required=True, help="where scenes are kept")
    parser.add_argument("--scenes", type=positive, default=500, help="how many")
    options = parser.parse_args(arguments)
    with told(parser):
        model, tokenizer = checkpoint.load_tipsv2(options.model, torch.device("cpu"), torch.float32)
    store = held_out(options.work, options.scenes, model.config.vision)
    print(json.dumps(measure(model, tokenizer, store), indent=2))


if __name__ == "__main__":
    main()
