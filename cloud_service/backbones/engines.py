"""Which engine runs a backbone, and what its weights are kept in. To add an engine: a branch here."""

import logging
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from cloud_service.backbones.base import Backbone
from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.lean.engine import LeanBackbone
from cloud_service.backbones.lean.packing import pack
from cloud_service.backbones.lean.packs import Packs
from cloud_service.backbones.lean.quantisation import is_lossless
from cloud_service.backbones.lean.shape import obstacle, shape_of
from cloud_service.backbones.lean.simd import HAS_INT8_DOT
from cloud_service.backbones.loading import config_of, fastest_dtype, load_model
from cloud_service.backbones.seq2seq import Seq2SeqBackbone
from cloud_service.backbones.tokens import first_line
from cloud_service.errors import BackboneRefused, BadSetting
from cloud_service.registry import Pulled
from protocol.facts import BackboneFacts

ENGINES = ("general", "lean")
GENERAL_WEIGHTS = ("f32", "bf16")
_SAMPLE_ROWS = 16

log = logging.getLogger("sideplug.cloud")


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine of ``ENGINES`` and weights of ``WEIGHTS`` that it can run."""

    engine: str
    weights: str


def choose(folder: Path, engine: str, weights: str) -> Choice:
    """
    Decide what was left to be decided.

    The engine is the lean one wherever it knows the model. Of the weights, the choice is the
    fastest that was measured to leave perplexity within half a percent of f32: with the lean
    engine 4 bits where the model was made with 4 bits, for then they lose nothing, else 8 bits.

    Args:
        folder: Of the pulled backbone.
        engine: One of ``ENGINES``, or "auto".
        weights: One of ``WEIGHTS``, or "auto".

    Raises:
        BadSetting: They cannot be had together, or not for this model.
        BackboneRefused: The folder holds no such model, or it cannot be read.

    """
    against = obstacle(config_of(folder))
    if engine == "lean" and against:
        raise BadSetting(
            f"the lean engine cannot run this backbone: {against}", "Use --engine auto."
        )
    if engine == "general" or against:
        if weights not in ("auto", *GENERAL_WEIGHTS):
            why = f": {against}" if against else ""
            raise BadSetting(f"{weights} weights need the lean engine{why}")
        if engine == "auto":
            log.info("the general engine runs this backbone: %s", against)
        return Choice("general", fastest_dtype() if weights == "auto" else weights)
    return Choice("lean", _best_weights(folder) if weights == "auto" else weights)


def start(
    choice: Choice,
    pulled: Pulled,
    facts: BackboneFacts,
    *,
    cache: Path,
    kv_bytes: int,
    threads: int,
) -> Backbone:
    """
    Load a backbone into its engine.

    Args:
        choice: What was chosen for it.
        pulled: The backbone.
        facts: What a device is told about it.
        cache: Folder in which the lean engine keeps packed weights.
        kv_bytes: Memory for keys and values of all sessions.
        threads: That compute.

    Raises:
        BackboneRefused: The folder holds no such model, or not all of it.

    """
    if choice.engine == "general":
        return general(load_model(pulled.folder, choice.weights), facts, kv_bytes=kv_bytes)
    arrays = Packs(cache).get(
        pulled.record.fingerprint,
        choice.weights,
        lambda: pack(load_model(pulled.folder, "f32"), choice.weights),
    )
    shape = shape_of(config_of(pulled.folder))
    lean = LeanBackbone(arrays, shape, facts, kv_bytes=kv_bytes, threads=threads)
    lean.warm_up()
    return lean


def general(
    model: PreTrainedModel, facts: BackboneFacts, *, kv_bytes: int
) -> CausalBackbone | Seq2SeqBackbone:
    """
    Give a model to the general engine of its kind.

    Raises:
        BackboneRefused: It is built otherwise than its family.

    """
    kind = Seq2SeqBackbone if facts.encodes else CausalBackbone
    return kind(model, facts, kv_bytes=kv_bytes)


def _best_weights(folder: Path) -> str:
    if not HAS_INT8_DOT:
        return "bf16"
    return "int4" if _has_four_bits(folder) else "int8"


def _has_four_bits(folder: Path) -> bool:
    """Say whether each layer's MLP, by a few of its rows, was written with 4 bits before."""
    found = False
    try:
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                for name in opened.keys():
                    if name.endswith(".down_proj.weight"):
                        rows = opened.get_slice(name)[:_SAMPLE_ROWS].float().numpy()
                        found = True
                        if not is_lossless(rows):
                            return False
    except SafetensorError as error:
        raise BackboneRefused(
            f"the model in {folder} cannot be read: {first_line(error)}"
        ) from None
    return found
