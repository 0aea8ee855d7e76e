"""
The two-way classifier of side plugin adaption (arXiv 2403.07088): does the next token need the device?

    p = sigmoid(row · final + bias)

A softmax over two classes is a sigmoid of the difference of their scores, so one row does. How it is
trained was not published, and it is switched off in the released code; there are two ways:

    mix      state = final + p (the plugin's state - final);    loss + cost · mean p
    errors   the plugin's own state;    loss + cross-entropy of p with 1 where the backbone's likeliest
             token is not the one that came

It begins at p = 1/2 everywhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from adapters.losses.base import Batch, weights_of
from adapters.recipe import Recipe
from adapters.targets.base import Target, zeros
from protocol.kit import GATE_BIAS, GATE_ROW

Weights = Mapping[str, Tensor]
_PLUGIN = "plugin"


class Gated(Target):
    """A network beside the backbone, with the classifier; ``mixes`` as above."""

    def __init__(self, plugin: Target, hidden: int, *, mixes: bool) -> None:
        super().__init__()
        self.plugin = plugin
        self.register_parameter(GATE_ROW, zeros(hidden))
        self.register_parameter(GATE_BIAS, zeros())
        self._mixes = mixes
        self.undecayed = frozenset({f"{_PLUGIN}.{name}" for name in plugin.undecayed} | {GATE_BIAS})
        self.mask = plugin.mask

    def forward(self, taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
        """Return what the head reads where the device speaks, (T, H)."""
        state: Tensor = self.plugin(taps, final, mask)
        if not self._mixes:
            return state
        score = _score(dict(self.named_parameters(recurse=False)), final)
        return final + torch.sigmoid(score) * (state - final)


class GateLoss(ABC):
    """What is added to the loss for the classifier's sake."""

    mixes: bool
    """Whether the classifier weighs the plugin against the backbone in training."""

    @abstractmethod
    def __call__(self, weights: Weights, batch: Batch) -> tuple[Tensor, Weights]:
        """
        Return it and its gradient.

        Args:
            weights: The classifier's among others: the row (H,) and the bias ().
            batch: ``final`` (T, H), ``scored`` (T,), ``targets`` (T,), ``rows`` (S, H), ``bias`` (S,).

        Returns:
            The mean over the scored tokens in nats, (), and its gradient at row and bias.

        """


class Mix(GateLoss):
    """A price on the device's share."""

    mixes = True

    def __init__(self, cost: float) -> None:
        self._cost = cost

    def __call__(self, weights: Weights, batch: Batch) -> tuple[Tensor, Weights]:
        """Return ``cost`` times the mean of p."""
        weight = self._cost * weights_of(batch["scored"])  # (T, 1)
        open_ = torch.sigmoid(_score(weights, batch["final"]))  # (T, 1)
        return (weight * open_).sum(), _pulled(weight * open_ * (1 - open_), batch["final"])


class Errors(GateLoss):
    """Logistic regression on where the backbone errs, among the tokens that the step scores."""

    mixes = False

    def __call__(self, weights: Weights, batch: Batch) -> tuple[Tensor, Weights]:
        """Return the mean binary cross-entropy."""
        weight, final = weights_of(batch["scored"]), batch["final"]
        likeliest = torch.addmm(batch["bias"], final, batch["rows"].t()).argmax(1)
        wrong = (likeliest != batch["targets"]).to(final.dtype).unsqueeze(1)  # (T, 1)
        score = _score(weights, final)
        # log(1 + e^s) - wrong · s, without overflow.
        each = score.clamp(min=0) + torch.log1p(torch.exp(-score.abs())) - wrong * score
        return (weight * each).sum(), _pulled(weight * (torch.sigmoid(score) - wrong), final)


def gated(recipe: Recipe, target: Target, hidden: int) -> Target:
    """Return the target with the recipe's classifier, or as it is where the recipe has none."""
    loss = gate_loss(recipe)
    return target if loss is None else Gated(target, hidden, mixes=loss.mixes)


def gate_loss(recipe: Recipe) -> GateLoss | None:
    """Return what the recipe's classifier adds to the loss; None without one."""
    make = GATES.get(recipe.gate)
    return None if make is None else make(recipe)


GATES: Mapping[str, Callable[[Recipe], GateLoss]] = {
    "mix": lambda recipe: Mix(recipe.gate_cost),
    "errors": lambda recipe: Errors(),
}
"""Builders from a recipe."""


def _score(weights: Weights, final: Tensor) -> Tensor:
    """Return the logarithm of p's odds, (T, 1)."""
    return torch.addmm(weights[GATE_BIAS], final, weights[GATE_ROW].unsqueeze(1))


def _pulled(slope: Tensor, final: Tensor) -> Weights:
    """Return the gradient at row (H,) and bias (), from that at each score (T, 1)."""
    return {GATE_ROW: torch.mm(final.t(), slope).squeeze(1), GATE_BIAS: slope.sum()}
