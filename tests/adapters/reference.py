"""The methods once more, written as their formulas read, for autograd and torch's own optimizer."""

import torch
from torch import Tensor
from torch.nn import functional


def ladder(weights: dict[str, Tensor], taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
    """The normed states, scaled, then projected; nothing folded."""
    states = [*taps, final]
    side = torch.zeros(())
    for rung, state in enumerate(states):
        normed = functional.rms_norm(state, state.shape[-1:], weights["scale"][rung], 1e-6)
        down = functional.linear(normed, weights["down"][rung].T, weights["down_bias"][rung])
        if mask is not None:
            down = down * mask[rung]
        if rung == 0:
            side = down
        else:
            gate = torch.sigmoid(weights["gate"][rung - 1])
            side = gate * down + (1 - gate) * side
        width = side.shape[-1:]
        normed = functional.rms_norm(side, width, weights["inner_scale"][rung], 1e-6)
        spread = functional.linear(normed, weights["inner"][rung].T, weights["inner_bias"][rung])
        spread = functional.gelu(spread)
        side = side + functional.linear(
            spread, weights["outer"][rung].T, weights["outer_bias"][rung]
        )
    normed = functional.rms_norm(side, side.shape[-1:], weights["up_scale"], 1e-6)
    return final + normed @ weights["up"]


def spa(weights: dict[str, Tensor], taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
    """The released module, layer by layer, with torch's own linear layers."""

    def linear(name: str, place: int, state: Tensor) -> Tensor:
        return functional.linear(state, weights[name][place].T, weights[f"{name}_bias"][place])

    side = linear("down", 0, taps[0])
    for layer in range(1, len(taps)):
        side = functional.relu(side)
        inner = functional.relu(linear("inner", layer - 1, side))
        if mask is not None:
            inner = inner * mask[layer - 1]
        side = linear("down", layer, taps[layer]) + side + linear("outer", layer - 1, inner)
    return functional.relu(side) @ weights["up"] + weights["up_bias"]


def sparse_ladder(
    weights: dict[str, Tensor], taps: Tensor, final: Tensor, mask: Tensor | None
) -> Tensor:
    """The ladder over matrices with zeros for every neuron whose weights are no larger than its threshold."""
    pruned = dict(weights)
    for name in ("down", "inner", "outer"):
        rungs = []
        for weight, threshold in zip(weights[name], weights[f"{name}_threshold"], strict=True):
            above = weight.abs().mean(0) - threshold
            if (above > 0).float().mean() <= 0.01:
                above = weight.abs().mean(0)
            rungs.append(weight * Step.apply(above))
        pruned[name] = torch.stack(rungs)
    return ladder(pruned, taps, final, mask)


class Step(torch.autograd.Function):
    """1 above zero; backwards the identity, as the publication's released code has it."""

    @staticmethod
    def forward(ctx, above):
        return (above > 0).float()

    @staticmethod
    def backward(ctx, slope):
        return slope


TARGETS = {"ladder": ladder, "spa": spa, "sparse_ladder": sparse_ladder}


def logits(state: Tensor, rows: Tensor, bias: Tensor, softcap: float | None) -> Tensor:
    values = state @ rows.T + bias
    return values if softcap is None else softcap * torch.tanh(values / softcap)


def full(state: Tensor, batch: dict[str, Tensor], softcap: float | None) -> Tensor:
    """Weighted mean of the cross-entropy over all rows."""
    scores = logits(state, batch["rows"], batch["bias"], softcap)
    each = functional.cross_entropy(scores, batch["targets"], reduction="none")
    return (each * batch["scored"]).sum() / batch["scored"].sum()


def shortlist(state: Tensor, batch: dict[str, Tensor], softcap: float | None) -> Tensor:
    """The rest of the vocabulary as one more logit, moved as the rows outside move."""
    outside = (batch["outside"], batch["outside_bias"], softcap)
    moved = logits(state, *outside).logsumexp(1)
    base = logits(batch["final"], *outside).logsumexp(1).detach()
    rest = batch["rest"] + moved - base
    inside = logits(state, batch["rows"], batch["bias"], softcap)
    scores = torch.cat((inside, rest[:, None]), 1)
    each = functional.cross_entropy(scores, batch["targets"], reduction="none")
    return (each * batch["scored"]).sum() / batch["scored"].sum()


LOSSES = {"full": full, "shortlist": shortlist}
