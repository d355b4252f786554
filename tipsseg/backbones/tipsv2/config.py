"""Read config.json into the configurations of the two towers.

The hub has two layouts: a flat one (older revisions), and a nested one with `vision_config` and `text_config`, whose missing fields
default to B/14's. transformers saves the nested layout for any model of its class. So a key that is not read must have the
value that the towers implement, or be known to have no effect; other keys are refused. The flat layout describes only four
models, so its unread keys are ignored.

Every number is limited to many times that of the released models, so a wrong file raises an error instead of describing a model
that no machine can run. `checkpoint` also compares the numbers with the tensors.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tipsseg.errors import CheckpointError
from tipsseg.util.files import read_regular
from tipsseg.util.json_values import parse
from tipsseg.util.printable import shorten
from tipsseg.weights.lock import missing_hint

#: B/14's temperature, the default of TIPSv2's configuration. The released models store it in config.json, not in a tensor.
DEFAULT_TEMPERATURE = 0.005065968260169029

# Upper bounds of whole numbers, and (low, high) bounds of floats. The released models have at most 1,536 channels, 6,144 in the
# MLP, 40 layers, 24 heads, 32 patches of 14 pixels along a side, 1 register, 32,000 pieces, 64 tokens.
_MLP_WIDTH = 131_072
_GRID = 128
_PATCH_SIZE = 256
_VISION_MOST = {
    "hidden_size": 16_384,
    "num_hidden_layers": 256,
    "num_attention_heads": 256,
    "image_size": _GRID * _PATCH_SIZE,
    "patch_size": _PATCH_SIZE,
    "num_register_tokens": 256,
}
_TEXT_MOST = {
    "vocab_size": 1_000_000,
    "hidden_size": 16_384,
    "intermediate_size": _MLP_WIDTH,
    "num_hidden_layers": 256,
    "num_attention_heads": 256,
    "max_position_embeddings": 1_024,
}
_MLP_RATIO = (1 / 64, 64.0)
_LAYER_NORM_EPS = (1e-12, 0.1)
TEMPERATURE = (1e-4, 100.0)

#: Size limit of config.json in bytes; the released files have less than 2,000.
_CONFIG_BYTES = 1 << 20

_NOT_TIPSV2 = "This does not describe a TIPSv2 model."
_OTHER_MODEL = "The labels would be wrong: tipsseg supports only the architectures of the released models."
_UNKNOWN_KEY = "If the key does not change the features of the model, remove it from config.json."

# (depth, heads) by tower name in the flat layout.
_FLAT_TOWERS = {
    "vit_base": (12, 12),
    "vit_large": (24, 16),
    "vit_so400m": (27, 16),
    "vit_giant2": (40, 24),
}

# Keys of the nested layout that change the computation, with the values that the towers implement. The two `interpolate_` keys
# date from before transformers released TIPSv2.
_VISION_FIXED = {
    "hidden_act": "gelu",
    "num_channels": 3,
    "qkv_bias": True,
    "apply_layernorm": True,
    "interpolate_antialias": True,
    "interpolate_offset": 0.0,
}
_TEXT_FIXED = {"hidden_act": "relu", "scale_sqrt_depth": True, "pooling_epsilon": 1e-8}

# Keys of the nested layout that have no effect on features.
_WITHOUT_EFFECT = (
    # Training and initialisation of weights.
    "attention_dropout attention_probs_dropout_prob drop_path_rate hidden_dropout_prob initializer_range layerscale_value",
    # Selection and format of the outputs in transformers.
    "out_features out_indices output_attentions output_hidden_states reshape_hidden_states return_dict stage_names",
    # Also in tokenizer.model.
    "bos_token_id eos_token_id pad_token_id",
    # Classification heads.
    "id2label label2id num_labels problem_type",
    # How the model is saved, loaded and run.
    "architectures attn_implementation auto_map chunk_size_feed_forward dtype is_encoder_decoder model_type name_or_path",
    "tie_word_embeddings torch_dtype transformers_version",
)
_IGNORED = frozenset(" ".join(_WITHOUT_EFFECT).split())

# Fields with their keys in the flat layout, and defaults for missing keys.
_FLAT_VISION = {
    "hidden_size": "embed_dim",
    "image_size": "img_size",
    "patch_size": "patch_size",
    "num_register_tokens": "num_register_tokens",
}
_FLAT_TEXT = {
    "vocab_size": "vocab_size",
    "hidden_size": "text_hidden_size",
    "intermediate_size": "text_mlp_dim",
    "num_hidden_layers": "text_num_layers",
    "num_attention_heads": "text_num_heads",
    "max_position_embeddings": "max_len",
}
_FLAT_DEFAULTS = {"img_size": 448, "patch_size": 14, "num_register_tokens": 1, "vocab_size": 32000, "max_len": 64}

# A nested file may also have flat-layout keys, for old readers. transformers ignores them.
_FLAT_KEYS = (*_FLAT_VISION.values(), *_FLAT_TEXT.values(), "ffn_layer", "init_values", "temperature", "vision_fn")


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """Configuration of the vision tower: a pre-norm ViT with a position grid of `image_size // patch_size` per side."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_hidden_size: int = 3072
    use_swiglu_ffn: bool = False
    image_size: int = 448
    patch_size: int = 14
    num_register_tokens: int = 1
    layer_norm_eps: float = 1e-6

    @property
    def grid_size(self) -> int:
        """Number of patches along one side of the learned position grid."""
        return self.image_size // self.patch_size

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches: the class token and the registers."""
        return 1 + self.num_register_tokens


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Configuration of the text tower: a pre-norm transformer over at most `max_position_embeddings` SentencePiece tokens."""

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 64
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Configuration of both towers, which have the same width, and the temperature: logits are cosine / temperature."""

    vision: VisionConfig
    text: TextConfig
    temperature: float = DEFAULT_TEMPERATURE


class _Fields:
    """Typed access to one JSON object. Every error names the file and the key."""

    def __init__(self, path: Path, prefix: str, values: Mapping[str, object]) -> None:
        self._path = path
        self._prefix = prefix
        self._values = values
        self._read: set[str] = set()

    def integers(self, most: Mapping[str, int], defaults: object) -> dict[str, int]:
        return {key: self.integer(key, bound, getattr(defaults, key)) for key, bound in most.items()}

    def integer(self, key: str, most: int, default: int | None) -> int:
        value = self._get(key, default)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1] and key in ("image_size", "patch_size"):
            value = value[0]  # a pair: height and width of a square
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self._error(key, f"should be a whole number from 1 to {most:,}, is {reprlib.repr(value)}")
        return value

    def number(self, key: str, bounds: tuple[float, float], default: float | None = None) -> float:
        low, high = bounds
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self._error(key, f"should be a number from {low:g} to {high:g}, is {reprlib.repr(value)}")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, f"should be true or false, is {reprlib.repr(value)}")
        return value

    def section(self, key: str) -> _Fields:
        self._read.add(key)
        inner = self._values.get(key)
        if inner is not None and not isinstance(inner, dict):
            raise self._error(key, "should be a JSON object")
        return _Fields(self._path, f"{key}.", inner or {})

    def choice(self, key: str, choices: Mapping[str, object] | tuple[str, ...]) -> str:
        value = self._get(key, None)
        if not isinstance(value, str) or value not in choices:
            raise self._error(key, f"should be one of {', '.join(choices)}, is {reprlib.repr(value)}")
        return value

    def refuse_others(self, fixed: Mapping[str, object], ignored: Iterable[str] = ()) -> None:
        """Refuse unread keys, unless they have their fixed value or have no effect."""
        known = self._read.union(_IGNORED, ignored)
        for key, value in self._values.items():
            if key in known or key.startswith("_") or (key in fixed and value == fixed[key]):
                continue
            shown = f"is {reprlib.repr(value)}, but tipsseg"
            if key in fixed:
                raise self._error(key, f"{shown} supports only {fixed[key]!r}", _OTHER_MODEL)
            raise self._error(shorten(key), f"{shown} does not support this key", _UNKNOWN_KEY)

    def _get(self, key: str, default: object) -> Any:
        self._read.add(key)
        value = self._values.get(key, default)
        if value is None:
            raise self._error(key, "is missing")
        return value

    def _error(self, key: str, reason: str, hint: str = _NOT_TIPSV2) -> CheckpointError:
        return CheckpointError(self._path, f"{self._prefix}{key} {reason}", hint)


def read_config(path: Path) -> ModelConfig:
    """Read a config.json of either layout.

    Raise CheckpointError, which names the file and the key, if the file does not describe a TIPSv2 model.
    """
    try:
        values = parse(read_bytes(path, _CONFIG_BYTES))
    except ValueError as error:
        raise CheckpointError(path, f"is not JSON: {error}", _NOT_TIPSV2) from error
    if not isinstance(values, dict):
        raise CheckpointError(path, "should be a JSON object")
    if values.get("model_type", "tipsv2") != "tipsv2":
        raise CheckpointError(
            path,
            f"model_type is {reprlib.repr(values['model_type'])}, not 'tipsv2'",
            "tipsseg runs only TIPSv2 image-text models.",
        )
    return parse_config(values, path)


def read_bytes(path: Path, most: int) -> bytes:
    """Read a model file. Raise CheckpointError if it cannot be read or is larger than `most` bytes."""
    try:
        return read_regular(path, most)
    except FileNotFoundError:
        raise CheckpointError(path, "no such file", missing_hint(path)) from None
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}", "Check its permissions.") from error


def parse_config(values: Mapping[str, object], path: Path) -> ModelConfig:
    """Convert a parsed config.json of either layout; `path` is only for messages."""
    config = _parse_nested(values, path) if _is_nested(values) else _parse_flat(values, path)
    _check(config, path)
    return config


def nested_config(config: ModelConfig) -> dict[str, object]:
    """Return `config` in the nested layout, as a dict that `parse_config` reads back."""
    vision, text = asdict(config.vision), asdict(config.text)
    ratio = vision.pop("mlp_hidden_size") / config.vision.hidden_size
    if config.vision.use_swiglu_ffn:
        # config.json has the ratio of the plain MLP; SwiGLU has two thirds of its width, see `swiglu_hidden_size`.
        ratio = 4.0
    vision["mlp_ratio"] = int(ratio) if ratio.is_integer() else ratio
    return {
        "architectures": ["Tipsv2Model"],
        "model_type": "tipsv2",
        "temperature_init_value": config.temperature,
        "vision_config": {"model_type": "tipsv2_vision_model", **vision},
        "text_config": {"model_type": "tipsv2_text_model", **text},
    }


def swiglu_hidden_size(mlp_hidden_size: int) -> int:
    """Return the hidden width of SwiGLU: two thirds of the plain MLP's, rounded up to a multiple of 8."""
    return (int(mlp_hidden_size * 2 / 3) + 7) // 8 * 8


def _is_nested(values: Mapping[str, object]) -> bool:
    # A nested file may omit both towers, because the defaults describe B/14; a flat one always names its tower.
    return "vision_config" in values or "text_config" in values or "vision_fn" not in values


def _parse_nested(values: Mapping[str, object], path: Path) -> ModelConfig:
    both = _Fields(path, "", values)
    vision, text = both.section("vision_config"), both.section("text_config")
    numbers = vision.integers(_VISION_MOST, VisionConfig())
    # With a ratio like 4304 / 1152, rounding may make the product slightly less than a whole number.
    mlp_hidden_size = int(numbers["hidden_size"] * vision.number("mlp_ratio", _MLP_RATIO, 4.0) + 1e-6)
    use_swiglu_ffn = vision.boolean("use_swiglu_ffn", False)
    config = ModelConfig(
        vision=VisionConfig(
            **numbers,
            mlp_hidden_size=swiglu_hidden_size(mlp_hidden_size) if use_swiglu_ffn else mlp_hidden_size,
            use_swiglu_ffn=use_swiglu_ffn,
            layer_norm_eps=vision.number("layer_norm_eps", _LAYER_NORM_EPS, 1e-6),
        ),
        text=TextConfig(
            **text.integers(_TEXT_MOST, TextConfig()),
            layer_norm_eps=text.number("layer_norm_eps", _LAYER_NORM_EPS, 1e-5),
        ),
        temperature=both.number("temperature_init_value", TEMPERATURE, DEFAULT_TEMPERATURE),
    )
    vision.refuse_others(_VISION_FIXED, ["hidden_act"] if use_swiglu_ffn else [])  # SwiGLU has its own activation
    text.refuse_others(_TEXT_FIXED)
    both.refuse_others({}, _FLAT_KEYS)
    return config


def _parse_flat(values: Mapping[str, object], path: Path) -> ModelConfig:
    fields = _Fields(path, "", values)
    depth, heads = _FLAT_TOWERS[fields.choice("vision_fn", _FLAT_TOWERS)]
    use_swiglu_ffn = fields.choice("ffn_layer", ("mlp", "swiglu")) == "swiglu"
    vision, text = (
        {name: fields.integer(key, most[name], _FLAT_DEFAULTS.get(key)) for name, key in keys.items()}
        for keys, most in ((_FLAT_VISION, _VISION_MOST), (_FLAT_TEXT, _TEXT_MOST))
    )
    # So400m is the only tower whose MLP is not four times its width; its text tower has an MLP of the same width.
    so400m = values["vision_fn"] == "vit_so400m"
    mlp_hidden_size = text["intermediate_size"] if so400m else 4 * vision["hidden_size"]
    return ModelConfig(
        vision=VisionConfig(
            **vision,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            mlp_hidden_size=swiglu_hidden_size(mlp_hidden_size) if use_swiglu_ffn else mlp_hidden_size,
            use_swiglu_ffn=use_swiglu_ffn,
        ),
        text=TextConfig(**text),
        temperature=fields.number("temperature", TEMPERATURE),
    )


def _check(config: ModelConfig, path: Path) -> None:
    vision, text = config.vision, config.text
    problems = {
        f"the towers differ in width: vision {vision.hidden_size}, text {text.hidden_size}": (
            vision.hidden_size != text.hidden_size
        ),
        f"vision width {vision.hidden_size} is not a multiple of its {vision.num_attention_heads} heads": (
            vision.hidden_size % vision.num_attention_heads != 0
        ),
        f"text width {text.hidden_size} is not a multiple of its {text.num_attention_heads} heads": (
            text.hidden_size % text.num_attention_heads != 0
        ),
        f"image_size {vision.image_size} is not a multiple of patch_size {vision.patch_size}": (
            vision.image_size % vision.patch_size != 0
        ),
        f"image_size {vision.image_size} is more than {_GRID} times patch_size {vision.patch_size}": (
            vision.grid_size > _GRID
        ),
        f"the MLP of the vision tower has {vision.mlp_hidden_size:,} channels, not 1 to {_MLP_WIDTH:,}": (
            not 1 <= vision.mlp_hidden_size <= _MLP_WIDTH
        ),
    }
    for reason, is_fault in problems.items():
        if is_fault:
            raise CheckpointError(path, reason, _NOT_TIPSV2)
