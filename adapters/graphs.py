"""The graphs of a kit as functions with named, typed ports. What the device feeds is decided here."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adapters.adamw import AdamW, Clock
from adapters.losses import LOSSES
from adapters.plan import Plan
from adapters.ports import Graph, Port
from adapters.rules import RULES
from adapters.targets.base import Target

CLOCK = ("rate", "count", "total", "warmup")


def infer_graph(plan: Plan, target: Target) -> Graph:
    """Return the graph that turns a step's states into what the head reads."""
    weights = weight_ports(target)

    def run(taps: Tensor, final: Tensor, *values: Tensor) -> tuple[Tensor]:
        current = dict(zip(_names(weights), values, strict=True))
        return (torch.func.functional_call(target, current, (taps, final, None)),)

    outputs = (Port("state", ("T", plan.hidden)),)
    return Graph("infer.onnx", (*_state_ports(plan), *weights), outputs, run)


def train_graph(plan: Plan, target: Target) -> Graph:
    """Return the graph of one training step: loss, gradients, clipping, optimizer."""
    weights = weight_ports(target)
    batch = _batch_ports(plan)
    clock = tuple(Port(name, ()) for name in CLOCK)
    state = (*weights, *_prefixed("first.", weights), *_prefixed("second.", weights))
    outputs = (Port("loss", ()), Port("norm", ()), *_prefixed("next.", state))
    run = _training_step(plan, target, _names(batch), _names(weights))
    return Graph("train.onnx", (*batch, *clock, *state), outputs, run)


def weight_ports(target: Target) -> tuple[Port, ...]:
    """Return the weights in the order in which every graph takes them."""
    return tuple(Port(name, tuple(weight.shape)) for name, weight in target.named_parameters())


def _training_step(
    plan: Plan, target: Target, batch_names: Sequence[str], names: Sequence[str]
) -> Callable[..., tuple[Tensor, ...]]:
    rule, loss = RULES[plan.recipe.rule](plan.recipe), LOSSES[plan.loss]
    optimizer = AdamW(plan.recipe.betas, plan.recipe.decay, plan.recipe.clip, target.undecayed)

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        feeds = iter(values)
        batch = {name: next(feeds) for name in batch_names}
        clock = Clock(*(next(feeds) for _ in CLOCK))
        weights, first, second = ({name: next(feeds) for name in names} for _ in range(3))
        moments = {name: (first[name], second[name]) for name in names}
        value, gradients = rule(target, loss, weights, batch, plan.softcap, clock.count)
        norm = optimizer.norm(gradients)
        moved = optimizer.step(weights, gradients, moments, norm, clock)
        return (
            value,
            norm,
            *(moved[name].weight for name in names),
            *(moved[name].first for name in names),
            *(moved[name].second for name in names),
        )

    return run


def _state_ports(plan: Plan) -> tuple[Port, Port]:
    taps = Port("taps", (len(plan.layers), "T", plan.hidden))
    return taps, Port("final", ("T", plan.hidden))


def _batch_ports(plan: Plan) -> tuple[Port, ...]:
    ports = [*_state_ports(plan), Port("targets", ("T",), torch.int64), Port("scored", ("T",))]
    for name, axes in LOSSES[plan.loss].reads.items():
        ports.append(Port(name, tuple(plan.hidden if axis == "H" else axis for axis in axes)))
    ports += [Port("rows", ("S", plan.hidden)), Port("bias", ("S",))]
    if plan.mask:
        places, width = plan.mask
        ports.append(Port("mask", (places, "T", width)))
    return tuple(ports)


def _prefixed(prefix: str, ports: Sequence[Port]) -> tuple[Port, ...]:
    return tuple(Port(prefix + port.name, port.shape, port.dtype) for port in ports)


def _names(ports: Sequence[Port]) -> tuple[str, ...]:
    return tuple(port.name for port in ports)
