"""
The optimizer inside the step: clip all gradients together, then AdamW at a scheduled rate.

AdamW is Loshchilov and Hutter's (arXiv 1711.05101) with bias correction, as torch computes it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

EPSILON = 1e-8
FLOOR = 0.1
"""Share of the peak rate at which the cosine ends."""

_CLIP_SLACK = 1e-6
"""torch's: keeps the quotient finite when the gradients are zero."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A weight after a step, with its moments, all of one shape."""

    weight: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True, slots=True)
class AdamW:
    """The constants of the optimizer; what changes from step to step are ``Clock``'s inputs."""

    betas: tuple[float, ...]
    decay: float
    clip: float
    undecayed: frozenset[str]
    plain: Mapping[str, float] = field(default_factory=dict)
    """Weights without adaption, torch's SGD with the first moment's momentum; at how many times the rate."""

    def norm(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Return the norm of all gradients together, ()."""
        squares = [(gradient * gradient).sum() for gradient in gradients.values()]
        return torch.sqrt(torch.stack(squares).sum())

    def step(
        self,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        moments: Mapping[str, tuple[Tensor, Tensor]],
        norm: Tensor,
        clock: "Clock",
    ) -> dict[str, Moved]:
        """Move every weight once, by its gradient and its first and second moment."""
        keep_first, keep_second = self.betas
        shrink = (self.clip / (norm + _CLIP_SLACK)).clamp(max=1.0)
        rate = clock.rate_now()
        # torch divides both moments by their bias; here the scalars carry it, and the tensors one
        # pass less: m/c1 / (sqrt(v/c2) + e) = sqrt(c2)/c1 * m / (sqrt(v) + e sqrt(c2)).
        spread = torch.sqrt(1 - keep_second**clock.count)
        pace = rate * spread / (1 - keep_first**clock.count)
        moved = {}
        for name, weight in weights.items():
            first, second = moments[name]
            fresh = gradients[name] * (shrink * (1 - keep_first))
            first = keep_first * first + fresh
            second = keep_second * second + fresh * fresh * (
                (1 - keep_second) / (1 - keep_first) ** 2
            )
            if self.decay and name not in self.undecayed:
                weight = weight * (1 - rate * self.decay)
            if name in self.plain:
                weight = weight - first * (rate * self.plain[name] / (1 - keep_first))
            else:
                weight = weight - first / (torch.sqrt(second) + EPSILON * spread) * pace
            moved[name] = Moved(weight, first, second)
        return moved


@dataclass(frozen=True, slots=True)
class Clock:
    """
    Where in the training a step stands. Scalars, each ().

    Attributes:
        rate: Peak learning rate.
        count: Number of the step, from 1.
        total: Steps planned.
        warmup: Steps in which the rate rises in a straight line.
    """

    rate: Tensor
    count: Tensor
    total: Tensor
    warmup: Tensor

    def rate_now(self) -> Tensor:
        """Return the step's rate, (): rising to the peak, then half a cosine down to ``FLOOR`` of it."""
        rising = (self.count / self.warmup.clamp(min=1.0)).clamp(max=1.0)
        falling = (self.total - self.warmup).clamp(min=1.0)
        done = ((self.count - self.warmup) / falling).clamp(min=0.0, max=1.0)
        cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + torch.cos(math.pi * done))
        return self.rate * torch.minimum(rising, cosine)
