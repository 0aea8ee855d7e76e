"""The LM head: logits of final states, a few rows at a time, and only when somebody asks."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cloud_service.errors import BackboneRefused
from protocol.messages import Candidates, Floats

LOGIT_BYTES = 64 * 2**20
"""Memory for logits, whatever the text is long. Fewer rows at a time would cost more: each product
arranges the whole head for the processor once more."""


class Head:
    """Reads final states (T, H). Holds the model's own weights, no copy."""

    def __init__(self, projection: nn.Linear, softcap: float | None) -> None:
        self._projection = projection
        self._bias = projection.bias
        self._softcap = softcap
        weight = projection.weight
        rows = max(1, LOGIT_BYTES // (weight.element_size() * self.vocabulary))
        # Kept: taking it anew each time costs as much as filling it. It is not touched until then.
        self._logits = torch.empty(rows, self.vocabulary, dtype=weight.dtype)

    @property
    def vocabulary(self) -> int:
        """Tokens it knows."""
        return self._projection.out_features

    def logits(self, final: Tensor) -> Tensor:
        """Return float32 logits (T, V) of final states (T, H)."""
        return self._capped(self._projection(final))

    def read(
        self, final: Tensor, log_z: bool, count: int
    ) -> tuple[Floats | None, Candidates | None]:
        """Return log Z (T,) and the ``count`` likeliest tokens (T, C), each if asked for."""
        if not log_z and not count:
            return None, None
        sums, values, ids = [], [], []
        for logits in self._rows(final):
            if log_z:
                sums.append(torch.logsumexp(logits, dim=-1))
            if count:
                best = torch.topk(logits, count)
                values.append(best.values)
                ids.append(best.indices)
        return _joined(sums) if log_z else None, _candidates(ids, values) if count else None

    def _rows(self, final: Tensor) -> Iterator[Tensor]:
        """Yield the logits (V,) of one row after another: one row stays in the processor's cache."""
        pieces = -(-len(final) // len(self._logits))
        for piece in final.tensor_split(pieces):
            held = self._logits[: len(piece)]
            torch.mm(piece, self._projection.weight.T, out=held)
            for row in held:
                yield self._capped(row if self._bias is None else row + self._bias)

    def _capped(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self._softcap is None:
            return logits
        return torch.tanh(logits / self._softcap) * self._softcap


def head_of(model: PreTrainedModel, hidden: int, softcap: float | None) -> Head:
    """
    Return the head of a causal model whose final states are ``hidden`` wide.

    Raises:
        BackboneRefused: The model has no plain head of that width.

    """
    projection = model.get_output_embeddings()
    if not isinstance(projection, nn.Linear):
        raise BackboneRefused("the model has no LM head that is a plain projection")
    if projection.in_features != hidden:
        raise BackboneRefused(
            f"the LM head reads states {projection.in_features} wide, the layers make them {hidden} wide",
            "Models that project their states before the head cannot be served.",
        )
    return Head(projection, softcap)


def _joined(rows: list[Tensor]) -> Floats:
    return torch.stack(rows).numpy()


def _candidates(ids: list[Tensor], logits: list[Tensor]) -> Candidates:
    return Candidates(ids=torch.stack(ids).numpy().astype(np.uint32), logits=_joined(logits))
