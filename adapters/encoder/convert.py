"""Weights of Hugging Face's BERT and DistilBERT under the encoder's names."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adapters.encoder.network import EncoderShape

_BERT: Mapping[str, str] = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}

_DISTILBERT: Mapping[str, str] = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "mlp_norm": "output_layer_norm",
}


def shape_of(config: Mapping[str, Any], classes: int) -> EncoderShape:
    """
    Return the encoder that a ``config.json`` of either model describes.

    Raises:
        ValueError: It is of another model, or of another activation than gelu.

    """
    kind = config.get("model_type")
    if kind == "distilbert":
        sizes = ("n_layers", "dim", "hidden_dim", "n_heads")
        activation = config["activation"]
    elif kind == "bert":
        sizes = (
            "num_hidden_layers",
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
        )
        activation = config["hidden_act"]
    else:
        raise ValueError(f"model_type must be bert or distilbert, but is {kind!r}")
    if activation != "gelu":
        raise ValueError(f"the activation must be gelu, but is {activation!r}")
    blocks, hidden, inner, heads = (int(config[name]) for name in sizes)
    return EncoderShape(
        blocks,
        hidden,
        inner,
        heads,
        int(config["vocab_size"]),
        int(config["max_position_embeddings"]),
        classes,
        float(config.get("layer_norm_eps", 1e-12)),
    )


def weights_of(shape: EncoderShape, found: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """
    Return the weights of a model as the encoder computes with them, float32, and a fresh head.

    BERT adds the same vector to every token of a first text, row 0 of its token types: it is added
    to ``places``, which leaves DistilBERT's network.

    Args:
        shape: The encoder's.
        found: The model's state dict, with or without the model's name in front.
        seed: Of the head, uniform within 1 / sqrt(H).

    """
    plain = {_bare(name): tensor.float() for name, tensor in found.items()}
    bert = "embeddings.token_type_embeddings.weight" in plain
    weights = {
        "words": plain["embeddings.word_embeddings.weight"],
        "places": plain["embeddings.position_embeddings.weight"],
        "entry_norm": plain["embeddings.LayerNorm.weight"],
        "entry_norm_bias": plain["embeddings.LayerNorm.bias"],
    }
    if bert:
        weights["places"] = weights["places"] + plain["embeddings.token_type_embeddings.weight"][0]
    for place in range(shape.blocks):
        prefix = f"encoder.layer.{place}." if bert else f"transformer.layer.{place}."
        for ours, theirs in (_BERT if bert else _DISTILBERT).items():
            weights[f"block{place}.{ours}"] = plain[f"{prefix}{theirs}.weight"]
            weights[f"block{place}.{ours}_bias"] = plain[f"{prefix}{theirs}.bias"]
    generator = torch.Generator().manual_seed(seed)
    drawn = 2 * torch.rand(shape.classes, shape.hidden, generator=generator) - 1
    weights["head"] = drawn / shape.hidden**0.5
    weights["head_bias"] = torch.zeros(shape.classes)
    return {name: weights[name].clone() for name in shape.weights()}


def _bare(name: str) -> str:
    return name.removeprefix("bert.").removeprefix("distilbert.")
