"""Cross-entropy over the whole vocabulary: ``rows`` is the whole head."""

from torch import Tensor

from adapters.losses.base import Batch, Loss, logit_of, mass_of, weights_of


class Full(Loss):
    """Exact, and as large as the vocabulary."""

    def __call__(self, state: Tensor, batch: Batch, softcap: float | None) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy and its gradient at ``state``."""
        weight = weights_of(batch["scored"])  # (T, 1)
        rows, bias = batch["rows"], batch["bias"]
        mass, pull = mass_of(state, rows, bias, softcap)
        logit, push = logit_of(state, rows, bias, batch["targets"], softcap)
        return (weight * (mass - logit)).sum(), weight * (pull - push)
