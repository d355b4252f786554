"""Read config.json into the configurations of the two towers.

The hub has two layouts: a flat one (older revisions), and a nested one with `vision_config` and `text_config`, whose missing keys
default to B/14's. transformers saves the nested layout for any model of its class. So a key that is not read must have the
value that the towers implement, or be known to have no effect; other keys are rejected. The flat layout describes only four
models, so its unread keys are ignored.

Every number is limited to many times its value in the released models, so a wrong file describes no model that no machine can
build. `headers` and `checkpoint` compare the sizes with the tensors.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tipsseg.backbones.protocol import Sizes
from tipsseg.errors import CheckpointError
from tipsseg.util.files import read_regular
from tipsseg.util.json import parse
from tipsseg.util.text import shorten
from tipsseg.weights.lock import missing_hint

#: B/14's temperature, the default of TIPSv2's configuration. The released models store it in config.json, not in a tensor.
DEFAULT_TEMPERATURE = 0.005065968260169029
TEMPERATURE_BOUNDS = (1e-4, 100.0)

#: Lowest and highest values. The released models have at most 40 layers, 24 heads, 64 tokens, and less than 131,072 of anything.
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "num_hidden_layers": (1, 256),
    "max_position_embeddings": (1, 1_024),
    "use_swiglu_ffn": (False, True),
    "mlp_ratio": (1 / 64, 64),
    "layer_norm_eps": (1e-12, 0.1),
    "temperature_init_value": TEMPERATURE_BOUNDS,
}
_OTHER_BOUNDS = (1, 131_072)

#: Size limit of config.json in bytes; the released files have less than 2,000.
_CONFIG_BYTES = 1 << 20

_NOT_TIPSV2 = "This does not describe a TIPSv2 model."
_OTHER_MODEL = "The labels would be wrong: tipsseg supports only the architectures of the released models."
_UNKNOWN_KEY = "If the key does not change the features of the model, remove the key from config.json."

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

# (depth, heads, MLP ratio) by tower name in the flat layout.
_FLAT_TOWERS = {
    "vit_base": (12, 12, 4.0),
    "vit_large": (24, 16, 4.0),
    "vit_so400m": (27, 16, 4304 / 1152),
    "vit_giant2": (40, 24, 4.0),
}

# Keys of the flat layout with their names in the nested one.
_FLAT_VISION = {
    "embed_dim": "hidden_size",
    "img_size": "image_size",
    "patch_size": "patch_size",
    "num_register_tokens": "num_register_tokens",
}
_FLAT_TEXT = {
    "vocab_size": "vocab_size",
    "text_hidden_size": "hidden_size",
    "text_mlp_dim": "intermediate_size",
    "text_num_layers": "num_hidden_layers",
    "text_num_heads": "num_attention_heads",
    "max_len": "max_position_embeddings",
}
_FLAT_OPTIONAL = frozenset({"img_size", "patch_size", "num_register_tokens", "vocab_size", "max_len"})

# A nested file may also have flat-layout keys, for old readers. transformers ignores them.
_FLAT_KEYS = frozenset({*_FLAT_VISION, *_FLAT_TEXT, "ffn_layer", "init_values", "temperature", "vision_fn"})


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

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            native_size=self.vision.image_size,
            patch_size=self.vision.patch_size,
            embed_dim=self.text.hidden_size,
            class_tokens=self.vision.num_prefix_tokens,
            temperature=self.temperature,
        )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert errors raised while reading a model file to CheckpointError."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(path, "no such file", missing_hint(path)) from None
    except SafetensorError as error:
        raise CheckpointError(
            path, f"is not a complete safetensors file ({error})", "Download the file again."
        ) from error
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}", "Check its permissions.") from error


def read_config(path: Path) -> ModelConfig:
    """Read a config.json of either layout.

    Raise CheckpointError, which names the file and the key, if the file does not describe a TIPSv2 model.
    """
    try:
        with reading(path):
            values = parse(read_regular(path, _CONFIG_BYTES))
    except ValueError as error:
        raise CheckpointError(path, f"is not JSON: {error}", _NOT_TIPSV2) from error
    if not isinstance(values, dict):
        raise CheckpointError(path, "should be a JSON object", _NOT_TIPSV2)
    if values.get("model_type", "tipsv2") != "tipsv2":
        reason = f"model_type is {reprlib.repr(values['model_type'])}, not 'tipsv2'"
        raise CheckpointError(path, reason, "tipsseg runs only TIPSv2 image-text models.")
    return parse_config(values, path)


def parse_config(values: Mapping[str, Any], path: Path) -> ModelConfig:
    """Convert a parsed config.json of either layout; `path` is only for messages."""
    # A nested file may omit both towers, because the defaults describe B/14; a flat one always names its tower.
    if "vision_fn" in values and "vision_config" not in values and "text_config" not in values:
        values = _flat_to_nested(values, path)
    for key in ("vision_config", "text_config"):
        if not isinstance(values.get(key), dict | None):
            raise CheckpointError(path, f"{key} should be a JSON object", _NOT_TIPSV2)
    vision_values, text_values = values.get("vision_config") or {}, values.get("text_config") or {}
    other_values = {key: values[key] for key in values.keys() - _FLAT_KEYS - {"vision_config", "text_config"}}

    defaults = asdict(VisionConfig())
    defaults["mlp_ratio"] = defaults.pop("mlp_hidden_size") / defaults["hidden_size"]
    fixed: dict[str, object] = dict(_VISION_FIXED)
    if vision_values.get("use_swiglu_ffn"):  # SwiGLU has its own activation
        fixed["hidden_act"] = vision_values.get("hidden_act")
    vision = _read_section(path, "vision_config.", vision_values, defaults, fixed)
    text = _read_section(path, "text_config.", text_values, asdict(TextConfig()), _TEXT_FIXED)
    both = _read_section(path, "", other_values, {"temperature_init_value": DEFAULT_TEMPERATURE}, {})

    # With a ratio like 4304 / 1152, rounding may make the product slightly less than a whole number.
    mlp_hidden_size = int(vision["hidden_size"] * vision.pop("mlp_ratio") + 1e-6)
    if vision["use_swiglu_ffn"]:
        # SwiGLU has two thirds of the width of the plain MLP, rounded up to a multiple of 8.
        mlp_hidden_size = (int(mlp_hidden_size * 2 / 3) + 7) // 8 * 8
    config = ModelConfig(
        VisionConfig(**vision, mlp_hidden_size=mlp_hidden_size), TextConfig(**text), both["temperature_init_value"]
    )
    _check_towers(config.vision, config.text, path)
    return config


def _flat_to_nested(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    def rename(names: Mapping[str, str]) -> dict[str, Any]:
        return {name: values[key] for key, name in names.items() if key in values or key not in _FLAT_OPTIONAL}

    try:
        layers, heads, mlp_ratio = _FLAT_TOWERS[str(values["vision_fn"])]
        tower = {
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "mlp_ratio": mlp_ratio,
            "use_swiglu_ffn": {"mlp": False, "swiglu": True}[str(values["ffn_layer"])],
        }
        return {
            "vision_config": {**rename(_FLAT_VISION), **tower},
            "text_config": rename(_FLAT_TEXT),
            "temperature_init_value": values["temperature"],
        }
    except KeyError as error:
        raise CheckpointError(path, f"{shorten(str(error))} is missing or unknown", _NOT_TIPSV2) from None


def _read_section(
    path: Path, prefix: str, values: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, object]
) -> dict[str, Any]:
    """Return the values of the keys in `defaults`. Reject other keys, unless they have their fixed value or have no effect."""
    read = dict(defaults)
    for key, value in values.items():
        shown = f"{prefix}{shorten(key)} is {reprlib.repr(value)}"
        if key in defaults:
            read[key] = _check_value(path, shown, key, value, type(defaults[key]))
        elif key in fixed and value != fixed[key]:
            raise CheckpointError(path, f"{shown}, but tipsseg supports only {fixed[key]!r}", _OTHER_MODEL)
        elif key not in fixed and key not in _IGNORED and not key.startswith("_"):
            raise CheckpointError(path, f"{shown}, but tipsseg does not support this key", _UNKNOWN_KEY)
    return read


def _check_value(path: Path, shown: str, key: str, value: Any, kind: type) -> Any:
    if key in ("image_size", "patch_size") and isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        value = value[0]  # a pair: height and width of a square
    low, high = _BOUNDS.get(key, _OTHER_BOUNDS)
    right_kind = isinstance(value, int | float if kind is float else kind)
    # In Python, True is an int.
    if not right_kind or isinstance(value, bool) != (kind is bool) or not low <= value <= high:
        bounds = (
            "true or false" if kind is bool else f"a {'whole ' if kind is int else ''}number from {low:,g} to {high:,g}"
        )
        raise CheckpointError(path, f"{shown}, but should be {bounds}", _NOT_TIPSV2)
    return kind(value)


def _check_towers(vision: VisionConfig, text: TextConfig, path: Path) -> None:
    if vision.hidden_size != text.hidden_size:
        reason = f"the towers differ in width: vision {vision.hidden_size}, text {text.hidden_size}"
    elif vision.image_size % vision.patch_size:
        reason = f"image_size {vision.image_size} is not a multiple of patch_size {vision.patch_size}"
    elif vision.hidden_size % vision.num_attention_heads or text.hidden_size % text.num_attention_heads:
        heads = f"{vision.num_attention_heads} and {text.num_attention_heads} heads"
        reason = f"width {vision.hidden_size} is not a multiple of the towers' {heads}"
    else:
        return
    raise CheckpointError(path, reason, _NOT_TIPSV2)
