"""The graphs of a kit as functions with named, typed ports. What the device feeds is decided here."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from adapters.adamw import AdamW, Clock
from adapters.compression import constants
from adapters.gates import gate_loss
from adapters.losses import LOSSES
from adapters.plan import Plan
from adapters.ports import Constant, Graph, Port
from adapters.rules import RULES
from adapters.targets.base import Target

CLOCK = ("rate", "count", "total", "warmup")


def infer_graph(plan: Plan, target: Target) -> Graph:
    """Return the graph that turns a step's states into what the head reads."""
    states, weights = _step_ports(plan, target), weight_ports(target)
    frozen = constants(target.frozen, plan.bits, training=False)
    ports = (*states, *weights)
    names = _names((*ports, *(one.port for one in frozen)))

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(names, values, strict=True))
        final = inputs.get("final", inputs["taps"][-1])
        called = _Inferring(target.bound(inputs))
        current = {f"target.{port.name}": inputs[port.name] for port in weights}
        result: tuple[Tensor, ...] = torch.func.functional_call(
            called, current, (inputs["taps"], final)
        )
        return result

    outputs = [Port("state", ("T", plan.hidden))]
    if target.cache:
        outputs.append(Port("fresh", ("T", *target.cache)))
    return Graph("infer.onnx", ports, tuple(outputs), run, frozen)


class _Inferring(nn.Module):
    """functional_call goes by ``forward``, and a target infers by another method."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target

    def forward(self, taps: Tensor, final: Tensor) -> tuple[Tensor, ...]:
        return self.target.infer(taps, final)


def train_graph(plan: Plan, target: Target) -> Graph:
    """Return the graph of one training step: loss, gradients, clipping, optimizer."""
    weights = weight_ports(target)
    batch = _batch_ports(plan, target)
    clock = tuple(Port(name, ()) for name in CLOCK)
    state = (*weights, *_prefixed("first.", weights), *_prefixed("second.", weights))
    outputs = (Port("loss", ()), Port("norm", ()), *_prefixed("next.", state))
    frozen = constants(target.frozen, plan.bits, training=True)
    run = _training_step(plan, target, _names(batch), _names(weights), frozen)
    return Graph("train.onnx", (*batch, *clock, *state), outputs, run, frozen)


def received_graph(target: Target) -> Graph:
    """Return the graph by which a device's own weights follow the shared ones that have come anew."""
    ports = {port.name: port for port in weight_ports(target)}
    followers = tuple(ports[name] for name in target.followers)
    shared = tuple(ports[name] for name in target.shared)
    inputs = (*followers, *shared, *_prefixed("before.", shared))
    names = _names(inputs)

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        found = dict(zip(names, values, strict=True))
        before = {name: found.pop(f"before.{name}") for name in target.shared}
        moved = target.received(found, before)
        return tuple(moved[name] for name in target.followers)

    return Graph("received.onnx", inputs, _prefixed("next.", followers), run)


def weight_ports(target: Target) -> tuple[Port, ...]:
    """Return the weights in the order in which every graph takes them."""
    return tuple(Port(name, tuple(weight.shape)) for name, weight in target.named_parameters())


def _training_step(
    plan: Plan,
    target: Target,
    batch_names: Sequence[str],
    names: Sequence[str],
    constants: Sequence[Constant],
) -> Callable[..., tuple[Tensor, ...]]:
    rule, loss = RULES[plan.recipe.rule](plan.recipe), LOSSES[plan.loss]
    recipe, gate = plan.recipe, gate_loss(plan.recipe)
    optimizer = AdamW(recipe.betas, recipe.decay, recipe.clip, target.undecayed, target.plain)

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        feeds = iter(values)
        batch = {name: next(feeds) for name in batch_names}
        clock = Clock(*(next(feeds) for _ in CLOCK))
        weights, first, second = ({name: next(feeds) for name in names} for _ in range(3))
        moments = {name: (first[name], second[name]) for name in names}
        frozen = {constant.name: next(feeds) for constant in constants}
        bound = target.bound({**batch, **frozen})
        value, gradients = rule(bound, loss, weights, batch, plan.softcap, clock.count)
        extra: Mapping[str, Tensor] = bound.penalty_gradient(weights)
        if gate is not None:
            cost, extra = gate(weights, batch)
            value = value + cost
        gradients = {
            name: gradient + extra[name] if name in extra else gradient
            for name, gradient in gradients.items()
        }
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


def _step_ports(plan: Plan, target: Target) -> tuple[Port, ...]:
    """Return what a step reads of the backbone, and of the tokens before where any is kept."""
    taps, final = _state_ports(plan)
    if not target.cache:
        return taps, final
    # Who computes the last blocks is not sent their result.
    return taps, *_read_ports(target), Port("past", ("P", *target.cache))


def _state_ports(plan: Plan) -> tuple[Port, Port]:
    taps = Port("taps", (len(plan.layers), "T", plan.hidden))
    return taps, Port("final", ("T", plan.hidden))


def _read_ports(target: Target) -> tuple[Port, ...]:
    return tuple(Port(name, axes) for name, axes in target.reads.items())


def _batch_ports(plan: Plan, target: Target) -> tuple[Port, ...]:
    ports = [*_state_ports(plan), Port("targets", ("T",), torch.int64), Port("scored", ("T",))]
    ports += _read_ports(target)
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
