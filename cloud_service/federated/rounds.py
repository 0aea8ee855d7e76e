"""The rounds of a federation: ask, gather, look, average, write down; again after any interruption."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from cloud_service.federated.plan import Plan
from cloud_service.federated.record import Record, State, Told
from cloud_service.federated.screening import screen, screen_figures
from cloud_service.federated.strategies import (
    accounting,
    build,
    epsilon,
    moments,
    restore,
    restore_accounting,
)
from cloud_service.federated.superlink import SuperLink
from protocol.federation import ARRAYS, CONFIG, Round, packed
from protocol.kit import KitManifest

Named = dict[str, NDArray[np.float32]]

PAUSE = 0.5
"""Seconds between two looks at who is there."""

LAST_SECONDS = 120.0
"""How long the devices may take to receive the last weights."""


class Federation:
    """Rounds over a kit's weights.

    Args:
        link: Devices.
        manifest: Of the kit.
        initial: Its weights, to begin with.
        plan: How it runs.
        record: Where it is written down.
        say: Told what a person should know.
    """

    def __init__(
        self,
        link: SuperLink,
        manifest: KitManifest,
        initial: Mapping[str, NDArray[np.float32]],
        plan: Plan,
        record: Record,
        say: Callable[[str], None],
    ) -> None:
        self._link, self._manifest, self._plan = link, manifest, plan
        self._record, self._say = record, say
        self._strategy: Strategy = build(plan)
        found = record.load()
        self.state = found or State(dict(initial))
        if found is not None:
            restore(self._strategy, found.moments, found.weights)
            restore_accounting(self._strategy, found.accounting)
            say(f"going on after round {found.round}")

    def run(self) -> dict[str, object]:
        """All rounds that are left; what came of it, as JSON has it."""
        told: list[Told] = []
        ending = "finished"
        wanted = self._plan.devices if self.state.round == 0 else self._least
        while self.state.round < self._plan.rounds:
            self._wait_for(wanted)
            wanted = self._least
            try:
                told.append(self._round(self.state.round + 1))
            except PrivacyBudgetExhausted as error:
                ending = "budget"
                self._say(str(error))
                break
            self._say(_in_words(told[-1], self._plan))
        figures = self._end()
        spent = epsilon(self._strategy)
        return {
            "ending": ending,
            "rounds": self.state.round,
            "last": figures,
            "epsilon": spent,
            "delta": self._plan.delta if spent is not None else None,
            "log": [asdict(one) for one in told],
        }

    @property
    def _least(self) -> int:
        return self._plan.sampled if self._plan.private else self._plan.least

    def _wait_for(self, wanted: int, seconds: float = math.inf) -> list[int]:
        """The devices that are there, once there are so many or time is up."""
        said, end = -1, time.monotonic() + seconds
        while len(there := self._link.devices()) < wanted and time.monotonic() < end:
            if len(there) != said:
                said = len(there)
                self._say(f"{said} of {wanted} devices are there")
            time.sleep(PAUSE)
        return there

    def _round(self, number: int) -> Told:
        """One round; its line is written when its weights are."""
        began, before = time.monotonic(), self._link.traffic()
        asked = list(
            self._strategy.configure_train(
                number, _record_of(self.state.weights), self._config(number), self._link.grid
            )
        )
        self._pack(asked)
        replies = self._link.ask(asked, self._plan.round_seconds)
        good, refused = screen(replies, self.state.weights, self._plan.private, self._plan.kept)
        arrays, metrics = self._average(number, good)
        state = State(self.state.weights, number)
        if arrays is not None:
            state.weights = arrays
        state.moments, state.accounting = moments(self._strategy), accounting(self._strategy)
        self._record.save(state)
        self.state = state
        after = self._link.traffic()
        told = Told(
            round=number,
            seconds=round(time.monotonic() - began, 3),
            asked=len(asked),
            answered=len(good),
            refused=[asdict(one) for one in refused],
            missing=len(asked) - len(replies),
            void=arrays is None,
            bytes_up=after[0] - before[0],
            bytes_down=after[1] - before[1],
            figures=_numbers(metrics),
            epsilon=epsilon(self._strategy),
        )
        self._record.log(told)
        return told

    def _average(
        self, number: int, good: list[Message]
    ) -> tuple[Named | None, MetricRecord | None]:
        """New weights; None when too few updates came, or they lead nowhere."""
        if len(good) < self._plan.least and not self._plan.private:
            return None, None
        arrays, metrics = self._strategy.aggregate_train(number, good)
        if arrays is None:
            return None, None
        found = {name: np.asarray(arrays[name].numpy(), np.float32) for name in self.state.weights}
        if not all(np.isfinite(array).all() for array in found.values()):
            return None, metrics
        return found, metrics

    def _pack(self, messages: list[Message]) -> None:
        """Let every message carry the weights in 16 bits: one record for all of them."""
        halves = packed(self.state.weights)
        record = ArrayRecord({name: Array(half) for name, half in halves.items()})
        for message in messages:
            message.content = RecordDict({ARRAYS: record, CONFIG: message.content[CONFIG]})

    def _config(self, number: int, *, last: bool = False) -> ConfigRecord:
        plan = self._plan
        rate = (plan.rate or self._manifest.schedule.rate) * plan.rate_decay ** (number - 1)
        asked = Round(
            kit=self._manifest.id,
            fingerprint=self._manifest.fingerprint,
            number=number,
            rounds=plan.rounds,
            rate=rate,
            epochs=plan.epochs,
            private=plan.private,
            last=last,
            seed=plan.seed,
            kept=plan.kept,
        )
        return ConfigRecord(dict(asked.to_config()))

    def _end(self) -> dict[str, float]:
        """Send the last weights to everybody who is there; means of how they do."""
        number = max(self.state.round, 1)
        content = RecordDict({CONFIG: self._config(number, last=True)})
        # A busy device may seem to be away for a moment.
        asked = [
            Message(content, dst_node_id=device, message_type=MessageType.EVALUATE)
            for device in self._wait_for(self._least, LAST_SECONDS)
        ]
        self._pack(asked)
        replies = self._link.ask(asked, LAST_SECONDS)
        good = screen_figures(replies, self._plan.private)
        return _numbers(self._strategy.aggregate_evaluate(number, good)) if good else {}


def _record_of(weights: Mapping[str, NDArray[np.float32]]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in weights.items()})


def _numbers(metrics: MetricRecord | None) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in (metrics or {}).items()
        if isinstance(value, int | float)
    }


def _in_words(told: Told, plan: Plan) -> str:
    held = told.figures.get("held-out")
    parts = [
        f"round {told.round} of {plan.rounds}: {told.answered} of {told.asked} updates",
        f"{len(told.refused)} refused" if told.refused else "",
        f"{told.missing} missing" if told.missing else "",
        "void" if told.void else "",
        f"held out {held:.4f} nats" if held is not None else "",
        f"{told.bytes_down / 1e6:.2f} MB down, {told.bytes_up / 1e6:.2f} MB up",
        f"epsilon {told.epsilon:.3f} at delta {plan.delta:g}" if told.epsilon is not None else "",
        f"{told.seconds:.1f} s",
    ]
    return ", ".join(part for part in parts if part)
