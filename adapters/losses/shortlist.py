"""
Cross-entropy that scores a shortlist exactly and the rest of the vocabulary as one mass.

The base mass of the rest is known (``rest``); a few rows from outside the shortlist (``outside``)
show by what ratio the correction moves it:

    rest_moved = rest + mass(outside, state) - mass(outside, final)
    loss = log(exp(mass(rows, state)) + exp(rest_moved)) - logit of the target
"""

from typing import ClassVar

import torch
from torch import Tensor

from adapters.losses.base import Batch, Loss, logit_of, mass_of, weights_of


class Shortlist(Loss):
    """
    Exact inside the shortlist; outside, exact when the sample stands for the rest.

    ``rest`` is the log of the base mass outside the shortlist, ``outside`` and ``outside_bias``
    are rows of the head from there.
    """

    reads: ClassVar = {"rest": ("T",), "outside": ("N", "H"), "outside_bias": ("N",)}

    def __call__(self, state: Tensor, batch: Batch, softcap: float | None) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy and its gradient at ``state``."""
        weight = weights_of(batch["scored"])  # (T, 1)
        rows, bias = batch["rows"], batch["bias"]
        outside, outside_bias = batch["outside"], batch["outside_bias"]
        mass, pull = mass_of(state, rows, bias, softcap)
        logit, push = logit_of(state, rows, bias, batch["targets"], softcap)
        base, _ = mass_of(batch["final"], outside, outside_bias, softcap)
        moved, pull_outside = mass_of(state, outside, outside_bias, softcap)
        rest = batch["rest"].unsqueeze(1) + moved - base  # (T, 1)
        total = _log_sum(mass, rest)
        inside, beyond = torch.exp(mass - total), torch.exp(rest - total)  # they add up to 1
        loss = (weight * (total - logit)).sum()
        return loss, weight * (inside * pull + beyond * pull_outside - push)


def _log_sum(first: Tensor, second: Tensor) -> Tensor:
    """Return log(exp(first) + exp(second)); either may be minus infinity."""
    return torch.maximum(first, second) + torch.log1p(torch.exp(-torch.abs(first - second)))
