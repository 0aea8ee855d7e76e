"""How updates become new shared weights: Flower's strategies, one more optimizer, and noise around them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp import (
    NeighboringRelation,
    PrivacyConfig,
    RdpAccountant,
    SamplingMethod,
)
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    Strategy,
)
from numpy.typing import NDArray

from cloud_service.federated.plan import Plan
from protocol.federation import EXAMPLES

Named = dict[str, NDArray[np.float32]]

BETAS = 0.9, 0.99
"""Of Adam on the server, as Reddi and others have them (arXiv 2003.00295)."""

TAU = 1e-4
"""Their floor of the second moment's root: some tenths of what a weight moves in a round."""


class FedAdamW(FedAdam):
    """FedAdam with weight decay beside the moments, as AdamW has it (arXiv 1711.05101)."""

    def __init__(self, *, decay: float, **options: Any) -> None:
        super().__init__(**options)
        self.decay = decay

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Adam's step, and ``rate decay w`` taken off."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None or self.current_arrays is None:
            return arrays, metrics
        shrunk = {
            name: array.numpy() - self.eta * self.decay * self.current_arrays[name]
            for name, array in arrays.items()
        }
        return ArrayRecord({name: Array(np.asarray(one)) for name, one in shrunk.items()}), metrics


def build(plan: Plan) -> Strategy:
    """The strategy of a plan, with noise around it where the plan wants some."""
    inner = _BUILDERS[plan.strategy](plan, _sampling(plan))
    if not plan.private:
        return inner
    accountant = RdpAccountant(
        PrivacyConfig(
            target_delta=plan.delta,
            population_size=plan.devices,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=SamplingMethod.NO_AMPLIFICATION,
            max_epsilon=plan.most_epsilon or None,
        )
    )
    return DifferentialPrivacyServerSideFixedClipping(
        inner, plan.noise, plan.clip, plan.sampled, accountant=accountant
    )


def _sampling(plan: Plan) -> dict[str, Any]:
    """A share of those present, or with noise exactly as many as it is made for."""
    at_least = plan.sampled if plan.private else max(plan.least, 1)
    return {
        "fraction_train": 1e-9 if plan.private else plan.share,
        "min_train_nodes": at_least,
        "min_available_nodes": at_least,
        "fraction_evaluate": 1.0,
        "min_evaluate_nodes": 1,
        "weighted_by_key": EXAMPLES,
    }


def _adam(plan: Plan) -> dict[str, Any]:
    return {"eta": plan.optimizer_rate, "beta_1": BETAS[0], "beta_2": BETAS[1], "tau": TAU}


_BUILDERS: Mapping[str, Callable[[Plan, dict[str, Any]], FedAvg]] = {
    "fedavg": lambda plan, sampling: FedAvg(**sampling),
    "fedprox": lambda plan, sampling: FedProx(**sampling, proximal_mu=plan.proximal),
    "fedavgm": lambda plan, sampling: FedAvgM(
        **sampling, server_learning_rate=plan.optimizer_rate, server_momentum=plan.momentum
    ),
    "fedadam": lambda plan, sampling: FedAdam(**sampling, **_adam(plan)),
    "fedadamw": lambda plan, sampling: FedAdamW(**sampling, **_adam(plan), decay=plan.weight_decay),
}
"""To add a strategy: a row, and one in ``plan.SERVER_RATES``."""


def moments(strategy: Strategy) -> Named:
    """What a strategy remembers from round to round, by name."""
    inner = _inner(strategy)
    if isinstance(inner, FedAdam):
        parts = {"first": inner.m_t or {}, "second": inner.v_t or {}}
        return {
            f"{part}.{name}": np.asarray(array, np.float32)
            for part, held in parts.items()
            for name, array in held.items()
        }
    if isinstance(inner, FedAvgM) and inner.momentum_vector and inner.current_arrays:
        # Flower has them in the order of the weights, which need not be that of the next start.
        named = zip(inner.current_arrays, inner.momentum_vector, strict=True)
        return {f"momentum.{name}": np.asarray(array, np.float32) for name, array in named}
    return {}


def restore(strategy: Strategy, held: Named, names: Iterable[str]) -> None:
    """Give back what ``moments`` told; ``names`` are the weights in the order in which they are sent now."""
    inner = _inner(strategy)
    if not held:
        return
    if isinstance(inner, FedAdam):
        inner.m_t, inner.v_t = _under("first.", held), _under("second.", held)
    elif isinstance(inner, FedAvgM):
        inner.momentum_vector = [held[f"momentum.{name}"] for name in names]


def accounting(strategy: Strategy) -> dict[str, object] | None:
    """What the accountant has counted so far, JSON; None without one."""
    accountant = _accountant(strategy)
    return None if accountant is None else accountant.state_dict()


def restore_accounting(strategy: Strategy, state: dict[str, object] | None) -> None:
    """Give back what ``accounting`` told: a budget that was spent stays spent."""
    accountant = _accountant(strategy)
    if accountant is not None and state is not None:
        accountant.load_state_dict(state)


def epsilon(strategy: Strategy) -> float | None:
    """The privacy budget spent so far at the plan's delta; None without noise."""
    accountant = _accountant(strategy)
    return None if accountant is None else accountant.get_privacy_spent().epsilon


def _accountant(strategy: Strategy) -> Any:
    return getattr(strategy, "accountant", None)


def _inner(strategy: Strategy) -> Strategy:
    if isinstance(strategy, DifferentialPrivacyServerSideFixedClipping):
        return strategy.strategy
    return strategy


def _under(prefix: str, held: Named) -> Named:
    return {n.removeprefix(prefix): a for n, a in held.items() if n.startswith(prefix)}
