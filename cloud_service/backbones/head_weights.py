"""The LM head's weights for the compiler."""

from pathlib import Path

from adapters.head import HeadWeights
from cloud_service.backbones.causal import softcap_of
from cloud_service.backbones.head import projection_of
from cloud_service.backbones.loading import load_model


def head_weights(folder: Path) -> HeadWeights:
    """
    Return the head of a pulled backbone: rows (V, H), bias (V,) or None, float32.

    Raises:
        BackboneRefused: The folder holds no whole model.

    """
    # The whole model: in the files, some families' weights go by other names than in the model.
    model = load_model(folder, "stored")
    head = projection_of(model)
    bias = None if head.bias is None else head.bias.detach().float()
    return HeadWeights(head.weight.detach().float(), bias, softcap_of(model))
