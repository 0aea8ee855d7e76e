"""The families of encoder-decoder models that can be served. To add one: a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from cloud_service.backbones.cross_attention import Bias
from cloud_service.backbones.head import projection_of
from cloud_service.backbones.kv import KvMeasures
from cloud_service.errors import BackboneRefused

UNBOUNDED = 2048
"""Positions of a model that knows distances alone, source and target together."""


@dataclass(frozen=True, slots=True)
class Seq2SeqFamily:
    """
    What has to be known of a family to read its hidden states. Places are dotted names.

    Attributes:
        name: ``model_type`` of its config.
        encoder: Where the encoder is within the model.
        decoder: Where the decoder is.
        encoder_layers: Where the list of layers is within the encoder.
        decoder_layers: Where it is within the decoder.
        attention: The first attention of a layer within it, which knows heads and their width by
            the next two.
        heads: Name of the number of heads.
        width: Name of their width.
        positions: The embedding of positions within encoder and decoder, which has to be told them;
            None where the encoder and the decoder take them themselves, or know distances alone.
        takes_positions: Whether they take them themselves.
        biased: Attentions within the first layer that work out what distances add to their scores,
            the one to itself first.
        before_head: What is between the decoder's last state and the head, within the model.
        parts: ``model_type`` of encoder and decoder, where there are several.

    """

    name: str
    encoder: str
    decoder: str
    encoder_layers: str
    decoder_layers: str
    attention: str
    heads: str
    width: str
    positions: str | None = None
    takes_positions: bool = False
    biased: tuple[str, ...] = ()
    before_head: str | None = None
    parts: str | None = None


def _like_bart(name: str) -> Seq2SeqFamily:
    return Seq2SeqFamily(
        name,
        encoder="model.encoder",
        decoder="model.decoder",
        encoder_layers="layers",
        decoder_layers="layers",
        attention="self_attn",
        heads="num_heads",
        width="head_dim",
        positions="embed_positions",
    )


_ALL = (
    Seq2SeqFamily(
        "t5",
        encoder="encoder",
        decoder="decoder",
        encoder_layers="block",
        decoder_layers="block",
        attention="layer.0.SelfAttention",
        heads="n_heads",
        width="key_value_proj_dim",
        biased=("layer.0.SelfAttention", "layer.1.EncDecAttention"),
    ),
    _like_bart("bart"),
    _like_bart("marian"),
    Seq2SeqFamily(
        "encoder-decoder",
        encoder="encoder",
        decoder="decoder.bert",
        encoder_layers="encoder.layer",
        decoder_layers="encoder.layer",
        attention="attention.self",
        heads="num_attention_heads",
        width="attention_head_size",
        takes_positions=True,
        before_head="decoder.cls.predictions.transform",
        parts="bert",
    ),
)

SEQ2SEQ: dict[str, Seq2SeqFamily] = {family.name: family for family in _ALL}


@dataclass(frozen=True, slots=True)
class Stack:
    """An encoder or a decoder.

    Attributes:
        module: Runs it.
        layers: In the order in which they are run.
        positions: The embedding that has to be told positions, if there is one.
        biased: Attentions that would work out distances in the flat sequence.
        bias: What distances add to the scores.
    """

    module: PreTrainedModel
    layers: nn.ModuleList
    positions: nn.Module | None
    biased: Sequence[nn.Module]
    bias: Bias | None


@dataclass(frozen=True, slots=True)
class Seq2SeqParts:
    """
    The parts of a model that are run by themselves.

    Attributes:
        encoder: Reads sources.
        decoder: Reads targets.
        hidden: Width of the states of both.
        vocabulary: Rows of the head.
        positions: Most of a source and its target together.
        kv: Of the decoder.
        takes_positions: Whether encoder and decoder are given positions.
        to_head: Makes what the head reads of the decoder's last states.

    """

    encoder: Stack
    decoder: Stack
    hidden: int
    vocabulary: int
    positions: int
    kv: KvMeasures
    takes_positions: bool
    to_head: Callable[[Tensor], Tensor]


def require_served(config: PreTrainedConfig) -> None:
    """Refuse a composite of other models than its family's with ``BackboneRefused``."""
    family = SEQ2SEQ[config.model_type]
    if family.parts is None:
        return
    for part in (config.encoder, config.decoder):
        if part.model_type != family.parts:
            raise BackboneRefused(
                f"an {family.name} model of a {part.model_type} cannot be served",
                f"Both sides have to be of the family {family.parts}.",
            )


def parts_of(model: PreTrainedModel) -> Seq2SeqParts:
    """
    Take a model of a family of the table apart.

    Raises:
        BackboneRefused: It is built otherwise than its family.

    """
    family = SEQ2SEQ[model.config.model_type]
    require_served(model.config)
    projection = projection_of(model)
    encoder = _stack(model, family, family.encoder, family.encoder_layers)
    decoder = _stack(model, family, family.decoder, family.decoder_layers)
    widths = {encoder.module.config.hidden_size, decoder.module.config.hidden_size}
    if widths != {projection.in_features}:
        raise BackboneRefused("encoder, decoder and LM head do not have states of one width")
    attention: Any = decoder.layers[0].get_submodule(family.attention)
    return Seq2SeqParts(
        encoder=encoder,
        decoder=decoder,
        hidden=projection.in_features,
        vocabulary=projection.out_features,
        positions=_positions(encoder.module.config, decoder.module.config, family),
        kv=KvMeasures(
            (None,) * len(decoder.layers),
            getattr(attention, family.heads),
            getattr(attention, family.width),
        ),
        takes_positions=family.takes_positions,
        to_head=_to_head(model, family),
    )


def decoder_start(model: PreTrainedModel) -> tuple[int, ...]:
    """
    Return the ids that every target begins with: the start, and a first token that is always forced.

    Raises:
        BackboneRefused: The model does not say.

    """
    said: Any = model.generation_config
    start = said.decoder_start_token_id
    if start is None:
        start = getattr(model.config, "decoder_start_token_id", None)
    if not isinstance(start, int):
        raise BackboneRefused(
            "the model does not say what its targets begin with",
            "Set decoder_start_token_id in its generation_config.json.",
        )
    forced = said.forced_bos_token_id
    return (start,) if forced is None else (start, int(forced))


def _stack(model: PreTrainedModel, family: Seq2SeqFamily, place: str, inside: str) -> Stack:
    module: Any = model.get_submodule(place)
    layers = module.get_submodule(inside)
    if not isinstance(layers, nn.ModuleList):
        raise BackboneRefused(f"{inside} of this {family.name} model is no list of layers")
    places = family.biased if place == family.decoder else family.biased[:1]
    biased: list[Any] = [layers[0].get_submodule(name) for name in places]
    return Stack(
        module,
        layers,
        None if family.positions is None else module.get_submodule(family.positions),
        biased,
        biased[0].compute_bias if biased else None,
    )


def _positions(encoder: Any, decoder: Any, family: Seq2SeqFamily) -> int:
    if family.biased:
        return UNBOUNDED
    return int(min(encoder.max_position_embeddings, decoder.max_position_embeddings))


def _to_head(model: PreTrainedModel, family: Seq2SeqFamily) -> Callable[[Tensor], Tensor]:
    if family.before_head is not None:
        return model.get_submodule(family.before_head)
    if getattr(model.config, "scale_decoder_outputs", False):
        scale = model.config.hidden_size**-0.5
        return lambda states: states * scale
    return lambda states: states
