"""What a backbone is, in 64 digits: the same weights in the same architecture, however stored."""

import hashlib
import json

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from protocol.messages import Floats

# A list of what counts, not of what does not: a new release of transformers adds fields, and
# must not make every plugin that was ever trained a stranger.
_FIELDS = (
    "model_type",
    "activation_function",
    "attn_logit_softcapping",
    "d_kv",
    "decoder_attention_heads",
    "do_layer_norm_before",
    "encoder_attention_heads",
    "feed_forward_proj",
    "final_logit_softcapping",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "hidden_size",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "layer_types",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "query_pre_attn_scalar",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "rms_norm_eps",
    "rope_parameters",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "scale_decoder_outputs",
    "scale_embedding",
    "sliding_window",
    "use_bidirectional_attention",
    "use_parallel_residual",
    "vocab_size",
)


def fingerprint(model: PreTrainedModel) -> str:
    """
    Return the sha256 over the architecture and every weight, by name, as float32.

    Tied weights count once, so it makes no difference whether a file repeats them.
    """
    digest = hashlib.sha256(_canonical(architecture(model.config)))
    weights = dict(model.named_parameters())
    # It is no parameter, and decides as much as one.
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None and bias.any():
        weights["final_logits_bias"] = bias
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        digest.update(_floats(weight).data)
    return digest.hexdigest()


def architecture(config: PreTrainedConfig) -> dict[str, object]:
    """Return the fields of a config that change what the model computes, where they are set."""
    values = {name: getattr(config, name, None) for name in _FIELDS}
    parts = {
        name: architecture(part)
        for name in ("encoder", "decoder")
        if isinstance(part := getattr(config, name, None), PreTrainedConfig)
    }
    return {name: value for name, value in values.items() if value not in (None, False)} | parts


def _canonical(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _floats(weight: Tensor) -> Floats:
    return weight.detach().to(torch.float32).contiguous().numpy()
