"""The families of Hugging Face models that can be served. To add one: a row."""

from dataclasses import dataclass

from torch import nn

from cloud_service.errors import BackboneRefused


@dataclass(frozen=True, slots=True)
class Family:
    """What has to be known of a family to read its hidden states."""

    name: str
    """``model_type`` of its config."""
    layers: str
    """Where the list of layers is within the base model, dotted."""


_ALL = (
    Family("llama", layers="layers"),
    Family("qwen2", layers="layers"),
    Family("qwen3", layers="layers"),
    Family("mistral", layers="layers"),
    Family("gemma2", layers="layers"),
    Family("gemma3_text", layers="layers"),
    Family("phi", layers="layers"),
    Family("gpt2", layers="h"),
    Family("gpt_neox", layers="layers"),
    Family("opt", layers="decoder.layers"),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}


def family_named(name: str) -> Family:
    """
    Return the row of a family.

    Raises:
        BackboneRefused: The family is not in the table.

    """
    family = FAMILIES.get(name)
    if family is None:
        raise BackboneRefused(
            f"models of the family {name} cannot be served",
            f"Choose one of the families {', '.join(FAMILIES)}.",
        )
    return family


def layers_of(base: nn.Module, family: Family) -> nn.ModuleList:
    """Return the layers of a base model in the order in which they are run."""
    layers = base.get_submodule(family.layers)
    if not isinstance(layers, nn.ModuleList):
        raise BackboneRefused(f"{family.layers} of this {family.name} model is no list of layers")
    return layers
