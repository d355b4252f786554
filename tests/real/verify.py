"""Measure the released weights on this machine, and print one Markdown table: for whoever has a network, and perhaps a GPU.

    pip install '.[test]' && python tests/real/verify.py --models b14,l14 --device cuda --ade20k ADEChallengeData2016

Downloads the models at the revisions in weights.lock, compares both towers with transformers' TIPSv2 and with the numbers that
transformers publishes, labels pictures, measures the encoder, and scores labels by the published protocol if there is a data set. A
step that fails is a row of the table, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Tipsv2Model

import tipsseg
from tipsseg.backbones.tipsv2.backbone import Tipsv2Backbone
from tipsseg.weights import fetching
from tipsseg.weights.lock import get_model

REPOSITORY = Path(__file__).resolve().parents[2]

#: The authors' zero-shot mIoU on ADE20K in %, by model and mode; arXiv 2604.12012, and the notebook for sliding windows of l14.
PUBLISHED = {
    ("l14", "whole"): 24.7,
    ("l14", "slide"): 25.06,
    ("b14", "whole"): 17.4,
    ("so400m14", "whole"): 23.3,
    ("g14", "whole"): 17.8,
}

PHRASES = ["two cats on a sofa", "panda leg", "a tree"]


@dataclass(frozen=True)
class Row:
    """A row of the table: what was measured, the result, and what it is compared with."""

    step: str
    result: str
    expected: str = ""
    failed: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="l14", help="ids of weights.lock, with commas")
    parser.add_argument("--device", default="cpu", help='"cpu", "cuda" or "mps"')
    parser.add_argument("--images", type=Path, default=REPOSITORY / "examples/scenes", help="pictures to label")
    parser.add_argument("--ade20k", type=Path, metavar="DIR", help="ADEChallengeData2016")
    parser.add_argument(
        "--pascal-parts", type=Path, metavar="DIR", help="images/, masks/, and masks/classes.json with part names"
    )
    parser.add_argument(
        "--skip-encoder", action="store_true", help="leave out the encoder's table, which takes minutes"
    )
    options = parser.parse_args()
    rows: list[Row] = []
    for model in options.models.split(","):
        for step in steps(model, options):
            try:
                found = step()
            except Exception as error:  # a step may fail in any way; the others go on
                name = getattr(step, "__name__", "step").replace("_", " ")
                found = [Row(f"{model}: {name}", f"failed: {' '.join(str(error).split())[:200]}", failed=True)]
            rows += found
            for row in found:
                print(f"{row.step}: {row.result}", file=sys.stderr, flush=True)
    print(f"\n{machine(options.device)}\n\n| step | result | expected |\n|---|---|---|")
    for row in rows:
        print(f"| {row.step} | {row.result} | {row.expected} |")
    return int(any(row.failed for row in rows))


def steps(model: str, options: argparse.Namespace) -> Iterator[Callable[[], list[Row]]]:
    """Yield the steps for a model."""

    def download() -> list[Row]:
        began = time.monotonic()
        folder = fetching.fetch(get_model(model), quiet=False)
        size = sum(path.stat().st_size for path in folder.iterdir())
        return [
            Row(
                f"{model}: download, verified by hash",
                f"{size / 1e9:.2f} GB in {time.monotonic() - began:.0f} s",
            )
        ]

    def towers() -> list[Row]:
        return compare_towers(model)

    def published_numbers() -> list[Row]:
        return [run_tests(f"{model}: numbers that transformers publishes", "tests/parity/test_published.py")]

    def label() -> list[Row]:
        return label_pictures(model, options.device, options.images)

    def encoder() -> list[Row]:
        ran = run("tests/benchmarks/encoder.py", "--model", model, "--device", options.device)
        return [
            Row(f"{model}: encoder", line.strip("| ").replace("|", ","))
            for line in ran.splitlines()
            if line.startswith("| ")
        ]

    def ade20k() -> list[Row]:
        return [score_ade20k(model, options.device, options.ade20k, mode) for mode in ("whole", "slide")]

    def parts() -> list[Row]:
        return [score_parts(model, options.device, options.pascal_parts)]

    def gpu_tests() -> list[Row]:
        return [run_tests("tests on the GPU", "tests/gpu")]

    yield from (download, towers, label)
    if model == "b14":
        yield published_numbers
    if options.device == "cuda":
        yield gpu_tests
    if not options.skip_encoder:
        yield encoder
    if options.ade20k is not None:
        yield ade20k
    if options.pascal_parts is not None:
        yield parts


def machine(device: str) -> str:
    """Return the card or the processor, and the versions."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    card = f"{torch.cuda.get_device_name()}, " if device == "cuda" else ""
    return (
        f"{card}{name}, {os.cpu_count()} cores; tipsseg {tipsseg.__version__}, torch {torch.__version__}, on {device}"
    )


@torch.inference_mode()
def compare_towers(model: str) -> list[Row]:
    """Compare both towers with transformers' own, in float32 on the CPU."""
    folder = fetching.fetch(get_model(model), quiet=True)
    theirs = Tipsv2Model.from_pretrained(folder).float().eval()
    ours = Tipsv2Backbone(folder, "cpu", "float32")
    tokens = [ours._checkpoint.tokenizer.encode(phrase) for phrase in PHRASES]
    pooled = [theirs.text_model(input_ids=torch.tensor([each]), return_dict=True).pooler_output for each in tokens]
    text = difference(ours.encode_text(PHRASES, ["{}"]), F.normalize(torch.cat(pooled), dim=-1))
    pixels = torch.rand(1, 3, ours.native_size, ours.native_size, generator=torch.Generator().manual_seed(1))
    expected = theirs.vision_model(pixel_values=pixels, return_dict=True).last_hidden_state  # [1, N, D]
    prefix = ours.vision_encoder.config.num_prefix_tokens
    vision = difference(ours.vision_encoder(pixels).patches.flatten(1, 2), expected[:, prefix:])
    return [
        Row(f"{model}: text tower, largest difference from transformers", f"{text:.1e}", "below 1e-4", text >= 1e-4),
        Row(f"{model}: vision tower, the same", f"{vision:.1e}", "below 1e-4", vision >= 1e-4),
    ]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def label_pictures(model: str, device: str, images: Path) -> list[Row]:
    """Label pictures, and measure seconds and memory."""
    began = time.monotonic()
    loaded = tipsseg.load(model, device=device)
    loading = time.monotonic() - began
    labeller = loaded.labeller(["panda/head", "panda/leg", "tree", "house", "car"])
    paths = [path for path in sorted(images.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")]
    labeller.label(paths[0])  # the first one takes longer
    seconds = []
    for path in paths:
        began = time.monotonic()
        labeller.label(path)
        seconds.append(time.monotonic() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    memory = f"{peak / 1e9:.1f} GB of memory"
    if device == "cuda":
        memory += f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the card"
    what = f"{model} ({loaded.backbone.dtype_name}): an image, median of {len(paths)}"
    return [Row(what, f"{median(seconds):.2f} s; loading {loading:.1f} s; at most {memory}")]


def score_ade20k(model: str, device: str, folder: Path, mode: str) -> Row:
    """Score labels of ADE20K's validation set by the published protocol."""
    places = folder / "images/validation", folder / "annotations/validation"
    options = ("--vocab", "ade20k", "--dtype", "float32", "--mode", mode)
    published = PUBLISHED.get((model, mode))
    score = label_and_score(model, device, *places, *options, layout=("--layout", "ade20k"))
    return Row(f"{model}: ADE20K, --mode {mode}", score, "" if published is None else f"mIoU {published} (published)")


def score_parts(model: str, device: str, folder: Path) -> Row:
    """Score labels of parts inside wholes."""
    listed = json.loads((folder / "masks/classes.json").read_text())["classes"]
    with tempfile.TemporaryDirectory() as place:
        names = Path(place, "names.txt")
        names.write_text("".join(f"{each['name']}\n" for each in sorted(listed, key=lambda each: each["id"])))
        score = label_and_score(model, device, folder / "images", folder / "masks", "--vocab", str(names))
    return Row(f"{model}: PASCAL parts", score)


def label_and_score(
    model: str, device: str, images: Path, truth: Path, *options: str, layout: Sequence[str] = ()
) -> str:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        words = ["label", str(images), "-m", model, "--device", device, "-f", "npz", "-o", out, *options]
        run("-m", "tipsseg", *words)
        found = json.loads(run("-m", "tipsseg", "eval", out, "--gt", str(truth), "--json", *layout))
    return f"mIoU {100 * found['mean_iou']:.2f} over {found['images']} images in {time.monotonic() - began:.0f} s"


def run_tests(step: str, place: str) -> Row:
    ran = subprocess.run([sys.executable, "-m", "pytest", "-q", place], cwd=REPOSITORY, capture_output=True, text=True)
    last = (ran.stdout.splitlines() or ["no output"])[-1]
    return Row(step, last, "passed", ran.returncode != 0)


def run(*arguments: str) -> str:
    """Run Python in the repository, and return its output. Raise RuntimeError with the last line of stderr if it fails."""
    ran = subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError((ran.stderr.splitlines() or ["no output"])[-1])
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main())
