"""
The peer: the whole model in one process, as transformers runs it.

`python -m benchmarks.whole FOLDER --dtype f32 --threads 2` reads one JSON request a line and
writes one JSON answer a line, so that the one who asks decides who computes when.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers

Answer = dict[str, Any]
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def main(arguments: list[str]) -> int:
    """Answers requests until its input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole", description=__doc__)
    parser.add_argument("folder", help="Hugging Face folder of the model")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="f32")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    transformers.logging.disable_progress_bar()
    model = load(given.folder, given.dtype)
    _say({"ready": True, "threads": torch.get_num_threads(), "attention": _attention(model)})
    for line in sys.stdin:
        request = json.loads(line)
        with torch.inference_mode():
            _say(REQUESTS[request.pop("do")](model, **request))
    return 0


def load(folder: str, dtype: str) -> torch.nn.Module:
    """The model for inference, with nothing in its settings that would sample or stop early."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval()
    # What the folder says of sampling and stopping would be filled in where a request says nothing.
    model.generation_config = transformers.GenerationConfig(
        do_sample=False, num_beams=1, use_cache=True, eos_token_id=None, pad_token_id=0
    )
    return model


def generate(model: torch.nn.Module, ids: list[int], new: int, gaps: bool = False) -> Answer:
    """Greedy continuation; ``gaps`` adds how far each choice was ahead of the second best."""
    prompt = torch.tensor([ids])
    began = time.perf_counter()
    made = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=new,
        return_dict_in_generate=True,
        output_logits=gaps,
    )
    seconds = time.perf_counter() - began
    answer: Answer = {"tokens": made.sequences[0, len(ids) :].tolist(), "seconds": seconds}
    if gaps:
        best = [logits[0].float().topk(2).values for logits in made.logits]
        answer["gaps"] = [float(first - second) for first, second in best]
    return answer


def forward(model: torch.nn.Module, texts: list[list[int]], head: bool = True) -> Answer:
    """Seconds for one plain forward of each text, with or without the language model head."""
    run = model if head else model.base_model
    began = time.perf_counter()
    for ids in texts:
        run(input_ids=torch.tensor([ids]), use_cache=False)
    return {"seconds": time.perf_counter() - began}


def distributions(model: torch.nn.Module, texts: list[list[int]], file: str) -> Answer:
    """Writes the log-probabilities of the next token at every position: f32 (positions, V)."""
    rows = [
        model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)
        for ids in texts
    ]
    found = torch.cat(rows).numpy()
    np.save(file, found)
    return {"positions": len(found)}


REQUESTS: dict[str, Callable[..., Answer]] = {
    "generate": generate,
    "forward": forward,
    "distributions": distributions,
}


def _attention(model: torch.nn.Module) -> str | None:
    return getattr(model.config, "_attn_implementation", None)


def _say(answer: Answer) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # the one who started this one says so already
        sys.exit(130)
