"""What a tokenizer knows that a device has to be told: its special tokens and where answers end."""

from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cloud_service.errors import BackboneRefused


def load_tokenizer(folder: Path, **options: str) -> PreTrainedTokenizerBase:
    """
    Load a tokenizer that can be written as one tokenizer.json.

    Raises:
        BackboneRefused: The folder has none of that kind.

    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, **options
        )
    except (OSError, ValueError, ImportError) as error:
        raise BackboneRefused(
            f"no tokenizer can be read from {folder}: {first_line(error)}"
        ) from None
    if not tokenizer.is_fast:
        raise BackboneRefused(f"the tokenizer in {folder} cannot be written as a tokenizer.json")
    return tokenizer


def stop_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> tuple[int, ...]:
    """
    Return the ids below ``vocabulary`` that end an answer: the model's, the tokenizer's and the chat
    template's.
    """
    listed = model.generation_config.eos_token_id
    ids = {*(listed if isinstance(listed, list) else [listed])}
    ids |= {tokenizer.eos_token_id, end_of_turn(tokenizer)}
    return tuple(sorted(i for i in ids if i is not None and i < vocabulary))


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token that the chat template writes right behind an answer, if any."""
    template = chat_template_of(tokenizer)
    if template is None:
        return None
    answer = "Xylophone"  # in no template's own words
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    try:
        text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    except TemplateError:
        return None
    rest = str(text).rpartition(answer)[2]
    ids = tokenizer(rest, add_special_tokens=False).input_ids
    # Some templates begin the next line before they end the turn.
    special = [i for i in ids[:2] if i in tokenizer.added_tokens_decoder]
    return special[0] if special else None


def chat_template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the template that chats are written with, if the model chats."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return None if template is None else str(template)


def first_line(error: Exception) -> str:
    """Return the first line of what a library says at length."""
    return str(error).strip().partition("\n")[0]
