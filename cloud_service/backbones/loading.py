"""Loads a model from a folder, with all of its weights or not at all."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from cloud_service.backbones.families import family_named
from cloud_service.backbones.seq2seq_families import SEQ2SEQ, require_served
from cloud_service.backbones.tokens import first_line
from cloud_service.errors import BackboneRefused

DTYPES: dict[str, torch.dtype | str] = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "stored": "auto",
}
"""What a model can be loaded in."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def fastest_dtype() -> str:
    """bf16 where the processor multiplies in it, else f32: emulated, bf16 is many times slower."""
    capable = torch.cpu.get_capabilities()
    return "bf16" if capable.get("avx512_bf16") or capable.get("amx_bf16") else "f32"


def load_model(folder: Path, dtype: str) -> PreTrainedModel:
    """
    Load a model: safetensors only, nobody's code, nothing fetched.

    Args:
        folder: In Hugging Face layout.
        dtype: A name of ``DTYPES``.

    Raises:
        BackboneRefused: The folder holds no such model, not all of it, or one of no family.

    """
    config = config_of(folder)
    _require_safetensors(folder)
    kind = AutoModelForSeq2SeqLM if config.model_type in SEQ2SEQ else AutoModelForCausalLM
    try:
        loaded: Any = kind.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BackboneRefused(
            f"the model in {folder} cannot be read: {first_line(error)}"
        ) from None
    model: PreTrainedModel
    model, loading = loaded
    # They would have been made up at random.
    if loading["missing_keys"]:
        raise BackboneRefused(f"{folder} lacks the weights {', '.join(loading['missing_keys'])}")
    return model


def config_of(folder: Path) -> PreTrainedConfig:
    """Return the config of a model, or raise ``BackboneRefused`` when it cannot be served."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise BackboneRefused(f"{folder} holds no model: {first_line(error)}") from None
    if config.model_type in SEQ2SEQ:
        require_served(config)
    else:
        family_named(config.model_type)
    if getattr(config, "quantization_config", None):
        raise BackboneRefused(
            f"the model in {folder} is quantised", "Pull the same model in its full precision."
        )
    return config


def _require_safetensors(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise BackboneRefused(
            f"the weights in {folder} are pickled ({pickles[0]}); reading them could run code",
            "Convert them to safetensors on a machine that may be lost, then pull that folder.",
        )
    raise BackboneRefused(f"{folder} holds no safetensors")
