"""
What a backbone loses when its last blocks are stored in fewer bits, before anything is trained.

`python -m benchmarks.storage PLAN.json` carries out one plan and prints a JSON list, a row for each
way to store them: `bytes` of the matrices, and `nll` of the windows. `luc` is what the compiler
chooses for the recipe of that compression, by public text; `spread` has as many blocks in 8 bits,
evenly spaced: the same size without a choice.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from adapters.compression import constants
from adapters.head import HeadWeights
from adapters.plan import make_plan
from adapters.ports import Constant
from adapters.recipe import RECIPES
from adapters.sensitivity import FEW, MANY
from adapters.targets.tail import Tail
from cloud_service.backbones.block_weights import block_weights
from cloud_service.backbones.head_weights import head_weights
from cloud_service.public_states import public_texts
from cloud_service.registry import Registry
from cloud_service.settings import load
from device_agent.runtime.tail_plugin import UNSEEN

LUC = RECIPES["tail-luc"]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides the rows."""

    backbone: str
    """By its name in the cache."""

    windows: str
    """JSON file: part name -> list of windows of token ids."""

    part: str = "test"
    threads: int = 1


def main(arguments: Sequence[str]) -> int:
    """Carries out the plan of a file."""
    plan = Plan(**json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    torch.set_num_threads(plan.threads)
    windows = json.loads(Path(plan.windows).read_text(encoding="utf-8"))[plan.part]
    print(json.dumps(list(_rows(plan, windows))))
    return 0


@torch.no_grad()
def _rows(plan: Plan, windows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    cache = load({}, os.environ).cache
    pulled = Registry(cache).find(plan.backbone)
    facts, head = pulled.record.facts(), head_weights(pulled.folder)
    blocks = block_weights(pulled.folder)
    (first,) = LUC.layers(facts.layers)
    laid, tail = make_plan(LUC, facts, blocks, public_texts(pulled, cache, first))
    states = _states(pulled.folder, first, windows)
    named = [tail.matrices(place) for place in range(tail.count)]
    many = sum(laid.bits[names[0]] == MANY for names in named)
    spread = {place * tail.count // many for place in range(many)} if many else set()
    stored: dict[str, Mapping[str, int]] = {
        "float32": {},
        "int8": dict.fromkeys(laid.bits, MANY),
        "int4": dict.fromkeys(laid.bits, FEW),
        "luc": laid.bits,
        "spread": {
            name: MANY if place in spread else FEW
            for place, names in enumerate(named)
            for name in names
        },
    }
    for way, bits in stored.items():
        frozen = {one.name: one for one in constants(tail.frozen, bits, training=False)}
        values = {name: one.value for name, one in frozen.items()}
        size = sum(_size(frozen[name]) for name in laid.bits)
        by_block = [bits.get(names[0], 32) for names in named]
        nll = _nll(tail, values, head, windows, states)
        yield {"way": way, "bits": by_block, "bytes": size, "nll": nll}


def _size(one: Constant) -> int:
    """Bytes in a kit's file."""
    codes = one.codes
    parts = (one.value,) if codes is None else (codes.codes, codes.scales, codes.zeros)
    return sum(part.nbytes for part in parts)


def _states(folder: Path, first: int, windows: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """What enters block ``first``, (T, H) of each window."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = [torch.tensor([window["ids"]]) for window in windows]
    return [model.base_model(one, output_hidden_states=True).hidden_states[first][0] for one in ids]


def _nll(
    tail: Tail,
    frozen: Mapping[str, Tensor],
    head: HeadWeights,
    windows: Sequence[Mapping[str, Any]],
    states: Sequence[Tensor],
) -> float:
    """Mean negative log-likelihood of the scored tokens, in nats."""
    total = count = 0.0
    for window, entered in zip(windows, states, strict=True):
        tokens = len(entered)
        sight = {
            "positions": torch.arange(tokens, dtype=torch.float32),
            "reach": torch.full((tokens, tokens), float(UNSEEN)).triu(1),
        }
        final = tail.bound({**frozen, **sight})(entered[None], entered, None)
        logits, wanted = head.logits(final[:-1]), torch.tensor(window["ids"][1:])
        scored = torch.tensor(window["scored"], dtype=torch.float32)
        total += float(functional.cross_entropy(logits, wanted, reduction="none") @ scored)
        count += float(scored.sum())
    return total / count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
