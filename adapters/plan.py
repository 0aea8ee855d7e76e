"""A recipe laid on one backbone: which layers, which loss, how many rows."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from adapters.blocks import BlockWeights
from adapters.compression import BITS
from adapters.errors import RecipeRefused
from adapters.gates import gated
from adapters.recipe import Recipe
from adapters.sensitivity import bits_by_sensitivity
from adapters.targets import TARGETS
from adapters.targets.base import Target
from adapters.targets.tail import Tail
from protocol.facts import BackboneFacts

COMPILER = 3
"""Raised whenever the same recipe and backbone would give other graphs or other initial weights."""


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What the graphs need to know of recipe and backbone.

    Attributes:
        recipe: The recipe.
        layers: Tapped layers, rising; K of them.
        hidden: H.
        softcap: Cap of the logits, or None.
        loss: The recipe's loss, or "full" when the vocabulary is no larger than the shortlist.
        shortlist: Rows of the shortlist; 0 with the full loss.
        negatives: Rows from outside; 0 with the full loss.
        mask: (M, R) of the dropout mask, () without dropout.
        bits: Of frozen matrices that are stored in codes, by their names.
    """

    recipe: Recipe
    layers: tuple[int, ...]
    hidden: int
    softcap: float | None
    loss: str
    shortlist: int
    negatives: int
    mask: tuple[int, ...]
    bits: Mapping[str, int]


def make_plan(
    recipe: Recipe,
    facts: BackboneFacts,
    blocks: BlockWeights | None = None,
    texts: Tensor | None = None,
) -> tuple[Plan, Target]:
    """
    Lay ``recipe`` on the backbone; the target holds the initial weights.

    Args:
        recipe: What is trained and how.
        facts: The backbone as the service describes it.
        blocks: Its blocks, for targets that compute them.
        texts: Public states after the only tapped layer, one text of N tokens after another,
            (texts, N, H), for a compression that goes by them.

    Raises:
        RecipeRefused: The recipe needs what is not given.

    """
    layers = recipe.layers(facts.layers)
    bare = TARGETS[recipe.target](recipe, layers, facts.hidden, blocks)
    target = gated(recipe, bare, facts.hidden)
    short = recipe.loss == "shortlist" and recipe.shortlist < facts.vocabulary
    plan = Plan(
        recipe=recipe,
        layers=layers,
        hidden=facts.hidden,
        softcap=facts.logit_softcap,
        loss="shortlist" if short else "full",
        shortlist=recipe.shortlist if short else 0,
        negatives=min(recipe.negatives, facts.vocabulary - recipe.shortlist) if short else 0,
        mask=target.mask if recipe.dropout else (),
        bits=_bits(recipe, target, texts),
    )
    return plan, target


def _bits(recipe: Recipe, target: Target, texts: Tensor | None) -> dict[str, int]:
    if not isinstance(target, Tail) or recipe.compression == "none":
        return {}
    if recipe.compression == "luc":
        if texts is None:
            raise RecipeRefused("compression", "be given public states", recipe.compression)
        return bits_by_sensitivity(target, texts)
    names = (name for place in range(target.count) for name in target.matrices(place))
    return dict.fromkeys(names, BITS[recipe.compression])


def kit_id(recipe: Recipe, facts: BackboneFacts) -> str:
    """Return the content address of the kit: the same inputs of the compiler give the same kit."""
    inputs = {
        "compiler": COMPILER,
        "recipe": recipe.to_json(),
        "fingerprint": facts.fingerprint,
        "tokenizer": facts.tokenizer_sha256,
    }
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
