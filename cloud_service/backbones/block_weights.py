"""A backbone's blocks for the compiler. To add a family: a row that says where its weights are."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adapters.blocks import BlockShape, BlockWeights
from cloud_service.backbones.families import family_named, layers_of
from cloud_service.backbones.kv import windows_of
from cloud_service.backbones.loading import load_model
from cloud_service.errors import BackboneRefused

ROTARY = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embedding whose frequencies do not depend on how long the text is."""

Named = Mapping[str, nn.Module | Tensor | None]
"""Modules with a weight, and perhaps a bias, or single weights, by the compiler's names."""


def block_weights(folder: Path) -> BlockWeights:
    """
    Return all blocks of a pulled backbone, float32.

    Raises:
        BackboneRefused: The folder holds no whole model, or one whose blocks a device cannot compute.

    """
    model: Any = load_model(folder, "f32").requires_grad_(False)
    config, base = model.config, model.base_model
    against = _obstacle(config)
    if against:
        raise BackboneRefused(
            f"the blocks of this backbone cannot be put on a device: {against}",
            "Choose a recipe of the ladder: it reads any backbone.",
        )
    shape_of, parts_of = _FAMILIES[config.model_type]
    layers = layers_of(base, family_named(config.model_type))
    norm = base.ln_f if config.model_type == "gpt2" else base.norm
    return BlockWeights(
        shape_of(config, base),
        [dict(_tensors(parts_of(layer))) for layer in layers],
        dict(_tensors({"final_norm": norm})),
    )


def _obstacle(config: Any) -> str | None:
    """Return why the blocks cannot be described, None if they can."""
    if config.model_type not in _FAMILIES:
        return f"the family {config.model_type} is not one of {', '.join(_FAMILIES)}"
    windows = [window for window in windows_of(config) if window]
    if windows and min(windows) < config.max_position_embeddings:
        return f"its attention looks back at {min(windows)} tokens only"
    if config.model_type == "gpt2":
        scaled = config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights
        if config.activation_function != "gelu_new" or scaled:
            return "it is no plain GPT-2"
        return None
    rotary = config.rope_parameters
    if rotary["rope_type"] not in ROTARY or rotary.get("partial_rotary_factor", 1) != 1:
        return f"its rotary embedding is {rotary['rope_type']}"
    return None if config.hidden_act == "silu" else f"its activation is {config.hidden_act}"


def _tensors(parts: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, part in parts.items():
        if isinstance(part, Tensor):
            yield name, part.detach()
        elif part is not None:
            yield name, part.weight.detach()
            if getattr(part, "bias", None) is not None:
                yield f"{name}_bias", part.bias.detach()


def _llama_shape(config: Any, base: Any) -> BlockShape:
    attention = base.layers[0].self_attn
    return BlockShape(
        heads=config.num_attention_heads,
        kv=config.num_key_value_heads,
        width=attention.head_dim,
        centred=False,
        epsilon=config.rms_norm_eps,
        activation="silu",
        frequencies=base.rotary_emb.inv_freq.detach().float(),
        rotary_scale=base.rotary_emb.attention_scaling,
    )


def _llama_parts(layer: Any) -> Named:
    attention, mlp = layer.self_attn, layer.mlp
    return {
        "attention_norm": layer.input_layernorm,
        "query": attention.q_proj,
        "key": attention.k_proj,
        "value": attention.v_proj,
        "query_norm": getattr(attention, "q_norm", None),
        "key_norm": getattr(attention, "k_norm", None),
        "output": attention.o_proj,
        "mlp_norm": layer.post_attention_layernorm,
        "gate": mlp.gate_proj,
        "up": mlp.up_proj,
        "down": mlp.down_proj,
    }


def _gpt2_shape(config: Any, base: Any) -> BlockShape:
    return BlockShape(
        heads=config.n_head,
        kv=config.n_head,
        width=config.n_embd // config.n_head,
        centred=True,
        epsilon=config.layer_norm_epsilon,
        activation="gelu_tanh",
    )


def _gpt2_parts(layer: Any) -> Named:
    # Its matrices lie the other way round, and those of attention are one.
    attention, mlp = layer.attn, layer.mlp
    asked = attention.c_attn.weight.t().chunk(3)
    shifts = attention.c_attn.bias.chunk(3)
    parts: dict[str, nn.Module | Tensor] = {
        "attention_norm": layer.ln_1,
        "mlp_norm": layer.ln_2,
    }
    for name, weight, bias in zip(("query", "key", "value"), asked, shifts, strict=True):
        parts |= {name: weight.contiguous(), f"{name}_bias": bias}
    for name, one in (("output", attention.c_proj), ("up", mlp.c_fc), ("down", mlp.c_proj)):
        parts |= {name: one.weight.t().contiguous(), f"{name}_bias": one.bias}
    return parts


_FAMILIES: Mapping[str, tuple[Callable[[Any, Any], BlockShape], Callable[[Any], Named]]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), (_llama_shape, _llama_parts)),
    "gpt2": (_gpt2_shape, _gpt2_parts),
}
