"""Trains the embedded model on drawn scenes: one command, two CPU cores, under two hours.

    python examples/pretrain/train.py --work examples/pretrain/work --out tipsseg/assets/tiny

Two losses: a dense patch-text loss on the truth masks (the value features of every patch against the phrases that compete
in an image), and a small contrastive loss between the two class tokens and two captions. A run that was broken off goes
on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from data import Batch, SceneStore, batches, open_store
from numpy.typing import NDArray
from torch import Tensor, nn
from vocabulary_file import train_tokenizer
from world import CLOSED_LIST, leaf_ids

from tipsseg.model.checkpoint import Tipsv2, save_weights
from tipsseg.model.config import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelConfig,
    TextConfig,
    VisionConfig,
    nested_config,
)
from tipsseg.model.tokenizer import Tokenizer
from tipsseg.model.vision import Block
from tipsseg.templates import PROTOCOL_TEMPLATES

SEED = 20260412
TEMPERATURE = 0.04
WIDTH = 192
TRAIN_SEEDS, CHECK_SEEDS = 10_000_000, 20_000_000  # apart from those of the examples and of the evaluation
CONTRASTIVE_WEIGHT = 0.1
WARM_UP = 300

Images = NDArray[np.uint8]


def tiny_config(vocab_size: int, image_size: int = 224) -> ModelConfig:
    """3.7 million parameters: at 224 pixels a grid of 16 x 16, 7.4 MB in half precision."""
    return ModelConfig(
        vision=VisionConfig(
            hidden_size=WIDTH,
            num_hidden_layers=6,
            num_attention_heads=3,
            mlp_hidden_size=4 * WIDTH,
            image_size=image_size,
        ),
        text=TextConfig(
            vocab_size=vocab_size,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=3,
        ),
        temperature=TEMPERATURE,
    )


def make_optimiser(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.AdamW:
    """AdamW; biases, gains and tokens do not decay."""
    trained = list(parameters)
    decayed, others = ([each for each in trained if (each.ndim > 1) is matrix] for matrix in (True, False))
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )


def set_rate(optimiser: torch.optim.Optimizer, highest: float, step: int, steps: int, warm_up: int) -> None:
    """The learning rate of a step: a linear rise, then half a cosine."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = highest * min((step + 1) / warm_up, 1.0) * (0.01 + 0.99 * cosine)


def write_model(folder: Path, model: Tipsv2, tokenizer_file: Path) -> None:
    """Write a model in the hub layout, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS_FILE, model, torch.float16)
    (folder / CONFIG_FILE).write_text(json.dumps(nested_config(model.config), indent=2) + "\n")
    (folder / TOKENIZER_FILE).write_bytes(tokenizer_file.read_bytes())


def initialise(model: Tipsv2) -> None:
    """Small normal weights, zero biases, LayerScale at 1: the habits of ViT training."""
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "mask_token")):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            torch.nn.init.trunc_normal_(parameter, std=0.02)
    # The text tower multiplies its embeddings by sqrt(width); this keeps them in proportion to the positions.
    torch.nn.init.normal_(model.text_encoder.token_embedding.weight, std=WIDTH**-0.5)


def encode_texts(model: Tipsv2, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Unit vectors of the texts, [P, D]; padding is cut to the longest of them."""
    tokens = tokenizer(texts)
    longest = max(int(tokens.lengths.max()), 1)
    return F.normalize(model.text_encoder(tokens.ids[:, :longest], tokens.lengths).float(), dim=-1)


def losses(model: Tipsv2, tokenizer: Tokenizer, batch: Batch) -> tuple[Tensor, Tensor]:
    """The dense loss and the contrastive loss of one batch."""
    pixels = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float() / 255  # [B, 3, H, W]
    vision = model.vision_encoder
    with torch.autocast("cpu", dtype=torch.bfloat16):
        text = encode_texts(model, tokenizer, [*batch.phrases, *batch.captions])
        hidden = vision.last_block_input(pixels)  # [B, N, D]
        last = cast(Block, vision.blocks[-1])
        prefix = vision.config.num_prefix_tokens
        values = vision.norm(last.value_features(hidden[:, prefix:]))  # [B, h * w, D]
        classes = vision.norm(last(hidden)[:, :prefix])  # [B, 2, D]
    phrases, captions = text[: len(batch.phrases)], text[len(batch.phrases) :]
    return dense_loss(values.float(), phrases, batch), contrastive_loss(classes.float(), captions)


def dense_loss(values: Tensor, phrases: Tensor, batch: Batch) -> Tensor:
    """-log of the probability that the phrases which are right get among those that compete, averaged over pixels.

    values [B, h * w, D], phrases [P, D]; cosines are upsampled before they are compared with the truth, as in labelling.
    """
    count, patches, _ = values.shape
    side = math.isqrt(patches)
    cosine = F.normalize(values, dim=-1) @ phrases.T  # [B, h * w, P]
    cosine = cosine.transpose(1, 2).reshape(count, -1, side, side)  # [B, P, h, w]
    samples = batch.truth.shape[-1]
    cosine = F.interpolate(cosine, size=(samples, samples), mode="bilinear", align_corners=False)
    logits = (cosine / TEMPERATURE).flatten(2)  # [B, P, S]
    logits = logits.masked_fill(~torch.from_numpy(batch.listed)[..., None], -torch.inf)
    truth = torch.from_numpy(batch.truth).flatten(1).long()  # [B, S]
    positive = torch.from_numpy(batch.positive)  # [B, P, 27]
    right = positive.gather(2, truth[:, None].expand(-1, positive.shape[1], -1))  # [B, P, S]
    return (logits.logsumexp(1) - logits.masked_fill(~right, -torch.inf).logsumexp(1)).mean()


def contrastive_loss(classes: Tensor, captions: Tensor) -> Tensor:
    """Symmetric InfoNCE, averaged over (CLS1, short caption) and (CLS2, long caption); classes [B, 2, D], captions [2 B, D]."""
    count = classes.shape[0]
    target = torch.arange(count)
    total = classes.new_zeros(())
    for index, text in enumerate(captions.split(count)):
        logits = F.normalize(classes[:, index], dim=-1) @ text.T / 0.1  # [B, B]
        total = total + (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 4
    return total


@torch.no_grad()
def check(model: Tipsv2, tokenizer: Tokenizer, images: Images, truths: Images) -> dict[str, float]:
    """IoU of the closed list on windows [M, 224, 224, 3] with truths [M, 224, 224]; a quick look, not the evaluation."""
    vectors = torch.stack(
        [
            F.normalize(encode_texts(model, tokenizer, [t.format(name) for t in PROTOCOL_TEMPLATES]).mean(0), dim=0)
            for name in CLOSED_LIST
        ]
    )
    table = np.zeros(256, np.int64)
    for index, name in enumerate(CLOSED_LIST):
        table[list(leaf_ids(name))] = index
    size = len(CLOSED_LIST)
    confusion = np.zeros((size, size), np.int64)
    for start in range(0, len(images), 16):
        pixels = torch.from_numpy(images[start : start + 16]).permute(0, 3, 1, 2).float() / 255
        values = F.normalize(model.vision_encoder.value_features(pixels), dim=-1)  # [B, h, w, D]
        cosine = torch.einsum("bhwd,pd->bphw", values, vectors)
        guess = F.interpolate(cosine, size=pixels.shape[-2:], mode="bilinear").argmax(1).numpy()
        confusion += np.bincount((table[truths[start : start + 16]] * size + guess).ravel(), minlength=size**2).reshape(
            size, size
        )
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    return {name: float(np.diag(confusion)[k] / union[k]) for k, name in enumerate(CLOSED_LIST) if union[k]}


class Training:
    """A run: what is trained, its optimiser, the moving average of the weights, and how far it has come."""

    def __init__(self, options: argparse.Namespace) -> None:
        options.work.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(SEED)
        self.options = options
        self.tokenizer_path = options.work / TOKENIZER_FILE
        if not self.tokenizer_path.exists():
            train_tokenizer(self.tokenizer_path)
        self.tokenizer = Tokenizer(self.tokenizer_path, 64)
        self.model = Tipsv2(tiny_config(self.tokenizer.vocab_size))
        initialise(self.model)
        self.optimiser = make_optimiser(self.model.parameters(), options.learning_rate)
        self.averaged = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.done, spent = 0, 0.0
        self.state_path = options.work / "state.pt"
        if self.state_path.exists():
            state = torch.load(self.state_path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.averaged, self.done, spent = state["averaged"], state["step"], state["seconds"]
        self._began = time.monotonic() - spent

    def seconds(self) -> float:
        """Time that the run took so far, over all its parts."""
        return time.monotonic() - self._began

    def step(self, batch: Batch) -> tuple[float, float]:
        """One update; the dense and the contrastive loss before it."""
        set_rate(self.optimiser, self.options.learning_rate, self.done, self.options.steps, WARM_UP)
        dense, contrastive = losses(self.model, self.tokenizer, batch)
        self.optimiser.zero_grad(set_to_none=True)
        (dense + CONTRASTIVE_WEIGHT * contrastive).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            keep = min(0.999, (1 + self.done) / (10 + self.done))
            for name, tensor in self.model.state_dict().items():
                self.averaged[name].lerp_(tensor, 1 - keep)
        self.done += 1
        return dense.item(), contrastive.item()

    def save(self) -> None:
        """The state to go on from."""
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "averaged": self.averaged}
        torch.save({**state, "step": self.done, "seconds": self.seconds()}, self.state_path)

    def export(self, folder: Path) -> Tipsv2:
        """Write the averaged weights in the hub layout, in half precision, and return them as a model."""
        model = Tipsv2(self.model.config)
        model.load_state_dict(self.averaged)
        write_model(folder, model, self.tokenizer_path)
        return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model on drawn scenes.")
    parser.add_argument("--work", type=Path, required=True, help="scenes, checkpoints and the log")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--check-scenes", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()

    run = Training(options)
    store = open_store(options.work / "scenes", options.scenes, TRAIN_SEEDS)
    held_out = check_windows(open_store(options.work / "scenes", options.check_scenes, CHECK_SEEDS))
    recent: list[tuple[float, float]] = []
    with (options.work / "log.jsonl").open("a") as log:
        for batch in batches(store, SEED, run.done, options.steps, options.batch_size):
            recent.append(run.step(batch))
            if run.done % 50 and run.done < options.steps:
                continue
            dense, contrastive = np.mean(recent, axis=0)
            recent.clear()
            line = {"step": run.done, "dense": round(float(dense), 4), "contrastive": round(float(contrastive), 4)}
            line["seconds"] = round(run.seconds())
            if run.done % 500 == 0 or run.done == options.steps:
                scores = check(run.export(options.work / "model"), run.tokenizer, *held_out)
                line["miou"] = round(float(np.mean(list(scores.values()))), 4)
                line |= {name: round(scores[name], 3) for name in ("tree", "panda leg", "car wheel") if name in scores}
                run.save()
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
    run.export(options.out)


def check_windows(store: SceneStore) -> tuple[Images, Images]:
    """The left square of each landscape scene at 224 x 224: images [M, 224, 224, 3], truths [M, 224, 224]."""
    side = store.images.shape[1]
    at = ((np.arange(224) + 0.5) * side / 224).astype(int)
    images = [
        cv2.resize(image[:, :side], (224, 224), interpolation=cv2.INTER_AREA)
        for image in _landscape(store.images, store)
    ]
    return np.stack(images).astype(np.uint8), _landscape(store.truths, store)[:, at][:, :, at]


def _landscape(scenes: Images, store: SceneStore) -> Images:
    return np.ascontiguousarray(scenes[~store.portrait])


if __name__ == "__main__":
    main()
