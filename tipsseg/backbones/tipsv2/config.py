"""config.json -> the two tower configurations.

The hub has two shapes of the same facts: a flat one (older revisions) and a nested one with `vision_config` and
`text_config`, whose absent fields take the class defaults, which describe B/14. The nested one is what transformers saves for any
model of its class: each key is read, or must have the value that the towers are made for, or is known to be without effect, or is
refused. The flat one describes four models, and keys that are not read are ignored.

Every number has bounds, many times what the released models state, so that a file that is wrong ends in an error and not in a model
that no machine can build or run. `checkpoint` compares the numbers with the tensors as well.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipsseg.errors import CheckpointError
from tipsseg.util.printable import shortened
from tipsseg.weights.lock import FOLDER_HINT, missing_hint

#: TIPSv2's own temperature defaults to that of B/14; it is stated in config.json, it is no tensor.
DEFAULT_TEMPERATURE = 0.005065968260169029

# The largest of each whole number that is taken, and the smallest and largest of the others. The released models have at most 1,536
# channels, 6,144 in the MLP, 40 layers, 24 heads, 32 patches of 14 pixels along a side, 1 register, 32,000 pieces, 64 tokens.
_WIDTH = 16_384
_MLP_WIDTH = 131_072
_LAYERS = 256
_HEADS = 256
_GRID = 128
_PATCH_SIZE = 256
_REGISTERS = 256
_PIECES = 1_000_000
_TOKENS = 1_024
_MLP_RATIO = (1 / 64, 64.0)
_LAYER_NORM_EPS = (1e-12, 0.1)
TEMPERATURE = (1e-4, 100.0)

#: Bytes of a config.json that are read; the released ones have less than 2,000.
_CONFIG_BYTES = 1 << 20

_NOT_TIPSV2 = "This does not describe a TIPSv2 model."
_OTHER_MODEL = "Its labels would be wrong; tipsseg runs models that are built like the released ones."
_UNKNOWN_KEY = "If it does not change the features of the model, take it out of config.json."

# (depth, heads) behind the names that the flat shape uses.
_FLAT_TOWERS = {
    "vit_base": (12, 12),
    "vit_large": (24, 16),
    "vit_so400m": (27, 16),
    "vit_giant2": (40, 24),
}

# Keys of the nested shape that change what a model computes, and the value of each that the towers compute. The two on positions
# were in transformers before it released TIPSv2.
_VISION_FIXED = {
    "hidden_act": "gelu",
    "num_channels": 3,
    "qkv_bias": True,
    "apply_layernorm": True,
    "interpolate_antialias": True,
    "interpolate_offset": 0.0,
}
_TEXT_FIXED = {"hidden_act": "relu", "scale_sqrt_depth": True, "pooling_epsilon": 1e-8}

# Keys of the nested shape without effect on features.
_WITHOUT_EFFECT = (
    # Training, and the first values of weights.
    "attention_dropout attention_probs_dropout_prob drop_path_rate hidden_dropout_prob initializer_range layerscale_value",
    # The outputs of transformers, and their form.
    "out_features out_indices output_attentions output_hidden_states reshape_hidden_states return_dict stage_names",
    # tokenizer.model has these.
    "bos_token_id eos_token_id pad_token_id",
    # Classifiers.
    "id2label label2id num_labels problem_type",
    # The file, and how a model is held and run.
    "architectures attn_implementation auto_map chunk_size_feed_forward dtype is_encoder_decoder model_type name_or_path",
    "tie_word_embeddings torch_dtype transformers_version",
)
_IGNORED = frozenset(" ".join(_WITHOUT_EFFECT).split())

# A nested file may have the keys of the flat shape too, for old readers. transformers does not look at them.
_FLAT_KEYS = (
    "embed_dim ffn_layer img_size init_values max_len num_register_tokens patch_size temperature",
    "text_hidden_size text_mlp_dim text_num_heads text_num_layers vision_fn vocab_size",
)


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower: a pre-norm ViT whose position grid is `image_size // patch_size` on a side."""

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
        """Patches along one side of the learned position grid."""
        return self.image_size // self.patch_size

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches: the class token and the registers."""
        return 1 + self.num_register_tokens


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The text tower: a pre-norm transformer over at most `max_position_embeddings` SentencePiece tokens."""

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 64
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Both towers, of equal width, and the temperature of logits = cosine / temperature."""

    vision: VisionConfig
    text: TextConfig
    temperature: float = DEFAULT_TEMPERATURE


class _Fields:
    """Typed access to one JSON object; every error names the file and the key."""

    def __init__(self, path: Path, where: str, values: Mapping[str, object]) -> None:
        self._path = path
        self._where = where
        self._values = values
        self._read: set[str] = set()

    def integer(self, key: str, most: int, default: int | None = None) -> int:
        return self._whole(key, self._get(key, default), most)

    def side(self, key: str, most: int, default: int) -> int:
        """A whole number, or a pair of it: height and width of a square."""
        value = self._get(key, default)
        square = isinstance(value, list) and len(value) == 2 and value[0] == value[1]
        return self._whole(key, value[0] if square else value, most)

    def _whole(self, key: str, value: object, most: int) -> int:
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
        """Refuse keys that were not read, unless they have their fixed value or are without effect."""
        known = self._read.union(_IGNORED, ignored)
        for key, value in self._values.items():
            if key in known or key.startswith("_") or (key in fixed and value == fixed[key]):
                continue
            shown = f"is {reprlib.repr(value)}, and tipsseg"
            if key in fixed:
                raise self._error(key, f"{shown} computes {fixed[key]!r} only", _OTHER_MODEL)
            raise self._error(shortened(key), f"{shown} does not know this key", _UNKNOWN_KEY)

    def _get(self, key: str, default: object) -> Any:
        self._read.add(key)
        value = self._values.get(key, default)
        if value is None:
            raise self._error(key, "is missing")
        return value

    def _error(self, key: str, reason: str, hint: str = _NOT_TIPSV2) -> CheckpointError:
        return CheckpointError(self._path, f"{self._where}{key} {reason}", hint)


def read_config(path: Path) -> ModelConfig:
    """Read a config.json of either shape.

    Raises CheckpointError, naming the file and the key, where it does not describe a TIPSv2 model.
    """
    try:
        values = json.loads(read_bytes(path, _CONFIG_BYTES))
    except ValueError as error:  # JSON and UTF-8 errors alike
        raise CheckpointError(path, f"is not JSON: {error}") from error
    except RecursionError:
        raise CheckpointError(path, "is nested too deeply", _NOT_TIPSV2) from None
    if not isinstance(values, dict):
        raise CheckpointError(path, "should hold a JSON object")
    if values.get("model_type", "tipsv2") != "tipsv2":
        raise CheckpointError(
            path,
            f"model_type is {reprlib.repr(values['model_type'])}, not 'tipsv2'",
            "tipsseg runs TIPSv2 image-text models only.",
        )
    return parse_config(values, path)


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file of a model, which has at most that many bytes. Raises CheckpointError."""
    try:
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise CheckpointError(path, "is no regular file", FOLDER_HINT)
        with path.open("rb") as opened:
            data = opened.read(most + 1)
    except FileNotFoundError:
        raise CheckpointError(path, "no such file", missing_hint(path)) from None
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}", "Check its permissions.") from error
    if len(data) > most:
        raise CheckpointError(path, f"has more than {most:,} bytes, which no such file has")
    return data


def parse_config(values: Mapping[str, object], path: Path) -> ModelConfig:
    """The configuration that a parsed config.json of either shape describes; `path` only names it in errors."""
    config = _parse_nested(values, path) if _is_nested(values) else _parse_flat(values, path)
    _check(config, path)
    return config


def nested_config(config: ModelConfig) -> dict[str, object]:
    """The nested config.json of `config`, as a plain dict; `parse_config` reads it back."""
    vision, text = config.vision, config.text
    ratio = vision.mlp_hidden_size / vision.hidden_size
    if vision.use_swiglu_ffn:
        # The stored ratio is that of a plain MLP, of which SwiGLU keeps two thirds (rounded up to a multiple of 8).
        ratio = 4.0
    return {
        "architectures": ["Tipsv2Model"],
        "model_type": "tipsv2",
        "temperature_init_value": config.temperature,
        "vision_config": {
            "model_type": "tipsv2_vision_model",
            "hidden_size": vision.hidden_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "mlp_ratio": int(ratio) if ratio.is_integer() else ratio,
            "use_swiglu_ffn": vision.use_swiglu_ffn,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_register_tokens": vision.num_register_tokens,
            "layer_norm_eps": vision.layer_norm_eps,
        },
        "text_config": {
            "model_type": "tipsv2_text_model",
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "max_position_embeddings": text.max_position_embeddings,
            "layer_norm_eps": text.layer_norm_eps,
        },
    }


def swiglu_hidden_size(mlp_hidden_size: int) -> int:
    """Hidden width of SwiGLU: two thirds of the plain MLP's, rounded up to a multiple of 8."""
    return (int(mlp_hidden_size * 2 / 3) + 7) // 8 * 8


def _is_nested(values: Mapping[str, object]) -> bool:
    # A nested file may leave out both towers, as the defaults describe B/14; a flat one always names its tower.
    return "vision_config" in values or "text_config" in values or "vision_fn" not in values


def _parse_nested(values: Mapping[str, object], path: Path) -> ModelConfig:
    both = _Fields(path, "", values)
    vision, text = both.section("vision_config"), both.section("text_config")
    hidden_size = vision.integer("hidden_size", _WIDTH, 768)
    # A ratio such as 4304 / 1152 may come back a hair below the whole number that it stands for.
    mlp_hidden_size = int(hidden_size * vision.number("mlp_ratio", _MLP_RATIO, 4.0) + 1e-6)
    use_swiglu_ffn = vision.boolean("use_swiglu_ffn", False)
    config = ModelConfig(
        vision=VisionConfig(
            hidden_size=hidden_size,
            num_hidden_layers=vision.integer("num_hidden_layers", _LAYERS, 12),
            num_attention_heads=vision.integer("num_attention_heads", _HEADS, 12),
            mlp_hidden_size=swiglu_hidden_size(mlp_hidden_size) if use_swiglu_ffn else mlp_hidden_size,
            use_swiglu_ffn=use_swiglu_ffn,
            image_size=vision.side("image_size", _GRID * _PATCH_SIZE, 448),
            patch_size=vision.side("patch_size", _PATCH_SIZE, 14),
            num_register_tokens=vision.integer("num_register_tokens", _REGISTERS, 1),
            layer_norm_eps=vision.number("layer_norm_eps", _LAYER_NORM_EPS, 1e-6),
        ),
        text=TextConfig(
            vocab_size=text.integer("vocab_size", _PIECES, 32000),
            hidden_size=text.integer("hidden_size", _WIDTH, 768),
            intermediate_size=text.integer("intermediate_size", _MLP_WIDTH, 3072),
            num_hidden_layers=text.integer("num_hidden_layers", _LAYERS, 12),
            num_attention_heads=text.integer("num_attention_heads", _HEADS, 12),
            max_position_embeddings=text.integer("max_position_embeddings", _TOKENS, 64),
            layer_norm_eps=text.number("layer_norm_eps", _LAYER_NORM_EPS, 1e-5),
        ),
        temperature=both.number("temperature_init_value", TEMPERATURE, DEFAULT_TEMPERATURE),
    )
    vision.refuse_others(_VISION_FIXED, ["hidden_act"] if use_swiglu_ffn else [])  # SwiGLU has an activation of its own
    text.refuse_others(_TEXT_FIXED)
    both.refuse_others({}, " ".join(_FLAT_KEYS).split())
    return config


def _parse_flat(values: Mapping[str, object], path: Path) -> ModelConfig:
    fields = _Fields(path, "", values)
    depth, heads = _FLAT_TOWERS[fields.choice("vision_fn", _FLAT_TOWERS)]
    hidden_size = fields.integer("embed_dim", _WIDTH)
    use_swiglu_ffn = fields.choice("ffn_layer", ("mlp", "swiglu")) == "swiglu"
    text_mlp = fields.integer("text_mlp_dim", _MLP_WIDTH)
    # So400m is the one tower whose MLP is not four times its width; there the text tower states the same number.
    mlp_hidden_size = text_mlp if values["vision_fn"] == "vit_so400m" else 4 * hidden_size
    return ModelConfig(
        vision=VisionConfig(
            hidden_size=hidden_size,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            mlp_hidden_size=swiglu_hidden_size(mlp_hidden_size) if use_swiglu_ffn else mlp_hidden_size,
            use_swiglu_ffn=use_swiglu_ffn,
            image_size=fields.integer("img_size", _GRID * _PATCH_SIZE, 448),
            patch_size=fields.integer("patch_size", _PATCH_SIZE, 14),
            num_register_tokens=fields.integer("num_register_tokens", _REGISTERS, 1),
        ),
        text=TextConfig(
            vocab_size=fields.integer("vocab_size", _PIECES, 32000),
            hidden_size=fields.integer("text_hidden_size", _WIDTH),
            intermediate_size=text_mlp,
            num_hidden_layers=fields.integer("text_num_layers", _LAYERS),
            num_attention_heads=fields.integer("text_num_heads", _HEADS),
            max_position_embeddings=fields.integer("max_len", _TOKENS, 64),
        ),
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
    for reason, holds in problems.items():
        if holds:
            raise CheckpointError(path, reason, _NOT_TIPSV2)
