"""The LM head: logits of final states, a few rows at a time, and only when somebody asks."""

import math
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
ROWS = 16
"""Rows whose logits are looked at together: few enough for the processor's cache."""
SPAN = 64
"""Neighbouring logits that are searched as one."""
NEAR = 3.0
"""How far below a row's largest logit a rounded one is still computed anew. Measured on text, the
error of log Z falls from 0.02 to 0.001; what is further below is so much that errors cancel."""
MOST_NEAR = 32
"""Where a row has more of them than this, none weighs much, and their errors cancel as well."""


class Head:
    """Reads final states (T, H). Holds the model's own weights, no copy."""

    def __init__(self, projection: nn.Linear, softcap: float | None) -> None:
        self._projection = projection
        self._softcap = softcap
        weight = projection.weight
        rows = max(1, LOGIT_BYTES // (weight.element_size() * self.vocabulary))
        # Kept: taking it anew each time costs as much as filling it. It is not touched until then.
        self._logits = torch.empty(rows, self.vocabulary, dtype=weight.dtype, device=weight.device)
        # Filled up to whole spans with what is never the largest.
        spans = -(-self.vocabulary // SPAN)
        self._exact = torch.full((ROWS, spans * SPAN), -math.inf, device=weight.device)

    @property
    def vocabulary(self) -> int:
        """Tokens it knows."""
        return self._projection.out_features

    def logits(self, final: Tensor) -> Tensor:
        """Return float32 logits (T, V) of final states (T, H), as the model itself rounds them."""
        return self._capped(self._projection(final).float())

    def read(
        self, final: Tensor, log_z: bool, count: int
    ) -> tuple[Floats | None, Candidates | None]:
        """Return log Z (T,) and the ``count`` likeliest tokens (T, C), each if asked for."""
        if not log_z and not count:
            return None, None
        sums, values, ids = [], [], []
        for logits in self._blocks(final):
            if log_z:
                sums.append(torch.logsumexp(logits, dim=-1))
            if count:
                best = torch.topk(logits, count, dim=-1)
                values.append(best.values)
                ids.append(best.indices)
        return _joined(sums) if log_z else None, _candidates(ids, values) if count else None

    def _blocks(self, final: Tensor) -> Iterator[Tensor]:
        """Yield float32 logits (n, V) of up to ``ROWS`` rows after another."""
        weight, bias = self._projection.weight, self._projection.bias
        for piece in final.tensor_split(-(-len(final) // len(self._logits))):
            held = self._logits[: len(piece)]
            torch.mm(piece, weight.T, out=held)
            for states, products in zip(piece.split(ROWS), held.split(ROWS), strict=True):
                exact = products if self._is_exact else self._unrounded(states, products)
                yield self._capped(exact if bias is None else exact + bias.float())

    @property
    def _is_exact(self) -> bool:
        return self._projection.weight.dtype is torch.float32

    def _unrounded(self, states: Tensor, products: Tensor) -> Tensor:
        """
        Return rounded products (n, V) as float32, those near each row's largest computed anew.

        Finds them in two strides, which is ten times faster than one: first the spans of
        neighbours with such a product, then the products within.
        """
        count, width = products.shape
        exact = self._exact[:count]
        exact[:, :width] = products
        grouped = exact.view(count, -1, SPAN)
        tops = grouped.amax(-1)  # (n, spans)
        bounds = tops.amax(-1, keepdim=True) - NEAR  # (n, 1)
        rows, spans = torch.nonzero(tops > bounds, as_tuple=True)
        hits, within = torch.nonzero(grouped[rows, spans] > bounds[rows], as_tuple=True)
        rows, columns = rows[hits], spans[hits] * SPAN + within
        few = (torch.bincount(rows, minlength=count) <= MOST_NEAR)[rows]
        rows, columns = rows[few], columns[few]
        weights = self._projection.weight[columns].float()
        exact[rows, columns] = torch.linalg.vecdot(weights, states[rows].float())
        return exact[:, :width]

    def _capped(self, logits: Tensor) -> Tensor:
        if self._softcap is None:
            return logits
        return torch.tanh(logits / self._softcap) * self._softcap


def head_of(model: PreTrainedModel, hidden: int, softcap: float | None) -> Head:
    """
    Return the head of a model whose final states are ``hidden`` wide.

    Raises:
        BackboneRefused: The model has no plain head of that width.

    """
    projection = projection_of(model)
    if projection.in_features != hidden:
        raise BackboneRefused(
            f"the LM head reads states {projection.in_features} wide, the layers make them {hidden} wide",
            "Models that project their states before the head cannot be served.",
        )
    return Head(projection, softcap)


def projection_of(model: PreTrainedModel) -> nn.Linear:
    """
    Return the LM head of a model, with all that it adds to the logits.

    Raises:
        BackboneRefused: It is no plain projection.

    """
    projection = model.get_output_embeddings()
    if not isinstance(projection, nn.Linear):
        raise BackboneRefused("the model has no LM head that is a plain projection")
    bias = getattr(model, "final_logits_bias", None)
    if bias is None or not bias.any():
        return projection
    whole = nn.Linear(projection.in_features, projection.out_features, device="meta")
    whole.weight = projection.weight
    own = 0 if projection.bias is None else projection.bias
    whole.bias = nn.Parameter((bias[0] + own).to(projection.weight.dtype), requires_grad=False)
    return whole


def _joined(blocks: list[Tensor]) -> Floats:
    return torch.cat(blocks).cpu().numpy()


def _candidates(ids: list[Tensor], logits: list[Tensor]) -> Candidates:
    return Candidates(ids=torch.cat(ids).cpu().numpy().astype(np.uint32), logits=_joined(logits))
