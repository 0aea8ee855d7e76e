"""
Two losses instead of a gradient: SPSA (Spall 1992), as MeZO (arXiv 2305.17333) tunes language models.

    g = (L(w + eps z) - L(w - eps z)) / (2 eps);   direction g z, mean over the queries

All queries and both signs go through one forward pass over a tiled batch, as in MobiZO (EMNLP
2025). Perturbations are never kept or fed: a matrix's is ``z = u vᵀ`` with random signs u and v,
made again from the step's number. Its entries are uncorrelated and of size one, so ``g z`` is the
gradient in the mean (low-rank perturbations: LOZO, arXiv 2410.07698), for the price of a row and a
column of random numbers.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from adapters.losses.base import Batch, Loss
from adapters.rules.base import Weights
from adapters.rules.noise import signs
from adapters.targets.base import Target
from adapters.targets.chain import Chain, state_of

_STEPS = 4096
"""Seeds a step, more than any target needs: two a weight."""


@dataclass(frozen=True, slots=True)
class ZerothOrder:
    """The rule."""

    queries: int
    """Perturbations a step, Q."""

    epsilon: float
    """Their size."""

    def __call__(
        self,
        target: Target,
        loss: Loss,
        weights: Weights,
        batch: Batch,
        softcap: float | None,
        count: Tensor,
    ) -> tuple[Tensor, Weights]:
        """Return the mean of all losses, (), and every weight's direction."""
        seed = count.to(torch.int64) * _STEPS
        factors = {
            name: self._factors(seed + 2 * place, weight.shape)
            for place, (name, weight) in enumerate(weights.items())
        }
        tiled = {name: self._tiled(weights[name], *factors[name]) for name in weights}
        chain, final = cast(Chain, target), batch["final"]
        blocks = chain.blocks(batch["taps"], final, batch.get("mask"), None)

        def loss_of(current: Weights) -> Tensor:
            value, _ = loss(state_of(blocks, current, final), batch, softcap)
            return value

        losses = torch.func.vmap(loss_of)(tiled)  # (2Q,)
        above, below = losses.split(self.queries)
        rise = (above - below) / (2 * self.epsilon * self.queries)
        return losses.mean(), {name: _sum(rise, *factors[name]) for name in weights}

    def _factors(self, seed: Tensor, shape: torch.Size) -> tuple[Tensor | None, Tensor]:
        """Return u (Q, ..., m), None for a vector, and v (Q, ..., n)."""
        rows = signs(seed, (self.queries, *shape[:-1])) if len(shape) > 1 else None
        columns = (*shape[:-2], *shape[-1:])
        return rows, signs(seed + 1, (self.queries, *columns))

    def _tiled(self, weight: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
        """Return the weight once for every query and sign, (2Q, ...)."""
        step = self.epsilon * _perturbation(rows, columns)
        return torch.cat((weight + step, weight - step))


def _perturbation(rows: Tensor | None, columns: Tensor) -> Tensor:
    return columns if rows is None else rows.unsqueeze(-1) * columns.unsqueeze(-2)


def _sum(rise: Tensor, rows: Tensor | None, columns: Tensor) -> Tensor:
    """Return the sum over the queries of ``rise`` (Q,) times the perturbation."""
    columns = columns * rise.reshape(-1, *(1,) * (columns.dim() - 1))
    if rows is None:
        return columns.sum(0)
    # The queries are the inner axis of one product: no perturbation is written out.
    return torch.matmul(rows.movedim(0, -1), columns.movedim(0, -2))
