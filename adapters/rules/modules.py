"""
The forward-only rules for any torch module of linear layers, outside kits: for research.

Each function fills ``.grad`` as ``backward`` would, and any torch optimizer takes the step. Layers
find each other by forward hooks, so the module may be of any shape, as long as rows of a batch do
not meet (no batch norm), each ``nn.Linear`` is called once a pass, in the order of
``model.modules()``, and the last one gives the logits. Biases move with their layer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.rules.noise import signs


def pepita(model: nn.Module, inputs: Tensor, labels: Tensor, feedback: Tensor) -> Tensor:
    """
    Fill ``.grad`` with PEPITA's directions; every layer's output is kept between the passes.

    Args:
        model: Linear layers with anything row by row between them.
        inputs: (B, n).
        labels: Classes, (B,), of C.
        feedback: The fixed random matrix F, (C, n); see ``adapters.rules.pepita.feedback``.

    Returns:
        The mean cross-entropy of the first pass, ().

    """
    first: list[Tensor] = []
    with torch.no_grad(), _same_dropout(model, copies=1) as again:
        with _watched(model, lambda _, __, output: first.append(output)):
            logits = model(inputs)
        error = _error(logits, labels)
        again()
        kept = iter(first)

        def learn(layer: nn.Linear, taken: Tensor, output: Tensor) -> None:
            if layer is last:
                _fill(layer, _error(output, labels), taken)
            else:
                _fill(layer, next(kept) - output, taken)

        last = _linears(model)[-1]
        with _watched(model, learn):
            model(inputs + error @ feedback)
    return functional.cross_entropy(logits, labels)


def mempepita(model: nn.Module, inputs: Tensor, labels: Tensor, feedback: Tensor) -> Tensor:
    """
    Fill ``.grad`` with the same directions as ``pepita``; no layer's output outlives the next layer.

    Plain and modulated inputs go through the model as one batch, so that every layer sees both of
    its outputs at once.
    """
    last = _linears(model)[-1]
    with torch.no_grad(), _same_dropout(model, copies=2) as again:
        logits = model(inputs)
        moved = inputs + _error(logits, labels) @ feedback
        again()

        def learn(layer: nn.Linear, taken: Tensor, output: Tensor) -> None:
            plain, modulated = output.chunk(2)
            wrong = _error(modulated, labels) if layer is last else plain - modulated
            _fill(layer, wrong, taken.chunk(2)[1])

        with _watched(model, learn):
            model(torch.cat((inputs, moved)))
    return functional.cross_entropy(logits, labels)


def zeroth_order(
    model: nn.Module, loss: Callable[[], Tensor], seed: int, queries: int, epsilon: float
) -> Tensor:
    """
    Fill ``.grad`` with the mean of two-sided differences along random signs.

    Args:
        model: Any module; the weights are moved in place and back, one perturbation at a time.
        loss: Computes the loss of the model as it is now, ().
        seed: Of this step: the same seed gives the same perturbations.
        queries: How many perturbations.
        epsilon: Their size.

    Returns:
        The mean of all losses, ().

    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    directions = [torch.zeros_like(weight) for weight in weights]
    losses = []

    def move(query: int, by: float, onto: Sequence[Tensor]) -> None:
        for place, tensor in enumerate(onto):
            drawn = signs((seed * queries + query) * len(onto) + place, tensor.shape)
            tensor.add_(drawn.to(tensor), alpha=by)

    with torch.no_grad():
        for query in range(queries):
            move(query, epsilon, weights)
            above = loss()
            move(query, -2 * epsilon, weights)
            below = loss()
            move(query, epsilon, weights)
            losses += [above, below]
            move(query, ((above - below) / (2 * epsilon * queries)).item(), directions)
    for weight, direction in zip(weights, directions, strict=True):
        weight.grad = direction
    return torch.stack(losses).mean()


def _linears(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def _error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return p - onehot, (B, C)."""
    return torch.softmax(logits, 1) - functional.one_hot(labels, logits.shape[1])


def _fill(layer: nn.Linear, wrong: Tensor, taken: Tensor) -> None:
    layer.weight.grad = wrong.t() @ taken / len(taken)
    if layer.bias is not None:
        layer.bias.grad = wrong.mean(0)


@contextmanager
def _watched(model: nn.Module, see: Callable[[nn.Linear, Tensor, Tensor], None]) -> Iterator[None]:
    """While the block runs, ``see`` is told of every linear layer: itself, its input, its output."""
    hooks = [
        layer.register_forward_hook(lambda module, args, output: see(module, args[0], output))
        for layer in _linears(model)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _same_dropout(model: nn.Module, copies: int) -> Iterator[Callable[[], None]]:
    """
    Let every dropout draw masks that the second pass repeats.

    Yields:
        What is called between the passes; the second one has ``copies`` times as many rows.

    """
    drawn: dict[nn.Module, Tensor] = {}
    again = False

    def draw(module: nn.Dropout, args: tuple[Tensor], output: Tensor) -> Tensor:
        (taken,) = args
        if not again:
            drawn[module] = functional.dropout(torch.ones_like(taken), module.p, module.training)
            return taken * drawn[module]
        return taken * torch.cat([drawn[module]] * copies)

    def repeat() -> None:
        nonlocal again
        again = True

    hooks = [m.register_forward_hook(draw) for m in model.modules() if isinstance(m, nn.Dropout)]
    try:
        yield repeat
    finally:
        for hook in hooks:
            hook.remove()
