"""Tiny random backbones of every family, made in a folder without a hub."""

import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)

HIDDEN, LAYERS, VOCABULARY, POSITIONS = 64, 4, 512, 256

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TRAINING_TEXT = [
    "The lamp in the harbour office burns until the last boat is in.",
    "A person writes down what matters: names, places, promises, the price of tea.",
    "user asks, assistant answers; the question is short and so is the answer.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 你好世界。",
]

_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_LLAMA_LIKE, "tie_word_embeddings": True},
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "mistral": {**_LLAMA_LIKE, "sliding_window": 24},
    "gemma2": {**_LLAMA_LIKE, "sliding_window": 24, "query_pre_attn_scalar": 16},
    "gemma3_text": {**_LLAMA_LIKE, "sliding_window": 24, "query_pre_attn_scalar": 16},
    "phi": {k: v for k, v in _LLAMA_LIKE.items() if k not in {"num_key_value_heads", "head_dim"}},
    "gpt2": {
        "n_embd": HIDDEN,
        "n_layer": LAYERS,
        "n_head": 4,
        "vocab_size": VOCABULARY,
        "n_positions": POSITIONS,
    },
    "gpt_neox": {
        k: v for k, v in _LLAMA_LIKE.items() if k not in {"num_key_value_heads", "head_dim"}
    },
    "opt": {
        "hidden_size": HIDDEN,
        "ffn_dim": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "word_embed_proj_dim": HIDDEN,
    },
}


_BERT: dict[str, Any] = {
    "model_type": "bert",
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
}
_LIKE_BART: dict[str, Any] = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS + 1,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 80,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}

SEQ2SEQ: dict[str, dict[str, Any]] = {
    # FLAN-T5 is the gated one of the two.
    "t5": {
        "d_model": HIDDEN,
        "d_kv": 12,
        "d_ff": 96,
        "num_layers": LAYERS + 1,
        "num_decoder_layers": LAYERS,
        "num_heads": 4,
        "vocab_size": VOCABULARY,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    },
    "bart": _LIKE_BART,
    "marian": {**_LIKE_BART, "decoder_start_token_id": 0, "scale_embedding": True},
    "encoder-decoder": {
        "encoder": {**_BERT, "num_hidden_layers": LAYERS + 1},
        "decoder": {**_BERT, "is_decoder": True, "add_cross_attention": True},
        "decoder_start_token_id": 1,
    },
}
"""Families with an encoder, which has a layer more than the decoder here."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most VOCABULARY pieces with three chat tokens: 0 end of text, 1 start, 2 end of turn."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_folder(family: str, folder: Path, seed: int = 0) -> Path:
    """Writes a tiny random model of a family as a Hugging Face folder and returns the folder."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        **(FAMILIES | SEQ2SEQ)[family],
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    kind = AutoModelForSeq2SeqLM if family in SEQ2SEQ else AutoModelForCausalLM
    model = kind.from_config(config).eval()
    # The default initialisation (0.02) leaves logits so flat that greedy choices hang on rounding.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(3 if "embed" in name or "wte" in name else 2)
                if family in ("bart", "marian") and not {"embed", "shared"} & set(
                    re.split(r"[._]", name)
                ):
                    parameter.mul_(3)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_(std=0.1)
    if family == "bart":
        # As of the large ones, whose first token is always the same.
        model.generation_config.forced_bos_token_id = 1
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
