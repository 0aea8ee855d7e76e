"""Whether a model is of the Llama shape, and its measures. To add a family: its name."""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from cloud_service.backbones.kv import windows_of
from cloud_service.backbones.lean.matrices import BLOCK
from cloud_service.backbones.lean.simd import LANES

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
ROTARY = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embedding whose frequencies do not depend on how long the text is."""


@dataclass(frozen=True, slots=True)
class Shape:
    """
    The measures of a model.

    Attributes:
        layers: L.
        hidden: H.
        inner: Width of the MLP.
        queries: Heads that ask.
        kv: Heads that are asked.
        width: Of a head.
        vocabulary: V.
        epsilon: Of the norms.
        windows: Positions each layer looks back at, itself included; 0 for all.

    """

    layers: int
    hidden: int
    inner: int
    queries: int
    kv: int
    width: int
    vocabulary: int
    epsilon: float
    windows: tuple[int, ...]


def shape_of(config: PreTrainedConfig) -> Shape:
    """Return the measures of a model for which ``obstacle`` finds nothing."""
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        inner=config.intermediate_size,
        queries=config.num_attention_heads,
        kv=config.num_key_value_heads,
        width=_width(config),
        vocabulary=config.vocab_size,
        epsilon=config.rms_norm_eps,
        windows=tuple(window or 0 for window in windows_of(config)),
    )


def obstacle(config: PreTrainedConfig) -> str | None:
    """Return why a model cannot be read by the lean engine, None if it can."""
    if config.model_type not in FAMILIES:
        return f"the family {config.model_type} is not of the Llama shape"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    rotary = config.rope_parameters["rope_type"]
    if rotary not in ROTARY or config.rope_parameters.get("partial_rotary_factor", 1) != 1:
        return f"its rotary embedding is {rotary}"
    if _width(config) % LANES:
        return f"its heads are {_width(config)} wide, which is no multiple of {LANES}"
    attended = config.num_attention_heads * _width(config)
    for width in (config.hidden_size, config.intermediate_size, attended):
        if width % BLOCK:
            return f"one of its widths is {width}, which is no multiple of {BLOCK}"
    return None


def _width(config: PreTrainedConfig) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)
