"""What every loss is, and the part that all share: the softmax over some rows of the head."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]
"""A training step's inputs, by the names that the graph has for them."""


class Loss(ABC):
    """
    Mean negative log-likelihood with its gradient written out.

    Autograd would keep several (T, S) arrays for the way back and fill them one after another. By
    hand there is one: it holds the logits, then their softmax.
    """

    reads: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Inputs that only this loss has, and their axes: "T", "S", "N", or "H" for the backbone's width."""

    @abstractmethod
    def __call__(self, state: Tensor, batch: Batch, softcap: float | None) -> tuple[Tensor, Tensor]:
        """
        Return the loss and its gradient.

        Args:
            state: What the head reads, (T, H).
            batch: ``targets`` (T,), ``scored`` (T,), ``rows`` (S, H), ``bias`` (S,), ``final`` (T, H)
                and what the loss ``reads``.
            softcap: Cap of the logits, or None.

        Returns:
            The mean over the scored tokens in nats, (), and its gradient at ``state``, (T, H).

        """


def logit_of(
    state: Tensor, rows: Tensor, bias: Tensor, targets: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """
    Return each token's target's logit, (T, 1), and its gradient at ``state``, (T, H).

    Not looked up among all logits: they would have to outlive their softmax.
    """
    row = rows.index_select(0, targets)  # (T, H)
    logit = (state * row).sum(1, keepdim=True) + bias.index_select(0, targets).unsqueeze(1)
    if softcap is None:
        return logit, row
    capped, slope = _cap(logit, softcap)
    return capped, slope * row


def mass_of(
    state: Tensor, rows: Tensor, bias: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """
    Return the log of the sum of the exponentials of the logits, (T, 1), and its gradient, (T, H).

    Args:
        state: What the head reads, (T, H).
        rows: Rows of the head, (S, H).
        bias: Their biases, (S,).
        softcap: Cap of the logits, or None.

    """
    logits = torch.addmm(bias, state, rows.t())  # (T, S), the one large array
    slope = None
    if softcap is not None:
        logits, slope = _cap(logits, softcap)
    # onnxruntime overwrites logits by their softmax, which it does not for a difference or an
    # exponential. The mass comes back from the largest of each: p = exp(logit - mass).
    shares = torch.softmax(logits, 1)
    largest = torch.log(shares.amax(1, keepdim=True))
    # Behind the softmax in the trace: of a node's inputs onnxruntime makes the last one first, and
    # so it reads the logits before it overwrites them.
    peak = logits.amax(1, keepdim=True)
    pull = torch.mm(shares if slope is None else shares * slope, rows)
    return peak - largest, pull


def weights_of(scored: Tensor) -> Tensor:
    """Return what each token counts in the mean, (T, 1); nothing when none is scored."""
    return (scored / scored.sum().clamp(min=torch.finfo(scored.dtype).tiny)).unsqueeze(1)


def _cap(logits: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """Return ``softcap * tanh(logits / softcap)`` and its slope."""
    bent = torch.tanh(logits / softcap)
    return softcap * bent, 1 - bent * bent
