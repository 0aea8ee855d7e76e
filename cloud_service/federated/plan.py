"""How a federation is to run. Frozen, and refused at birth when it cannot work."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cloud_service.errors import BadSetting

SERVER_RATES: Mapping[str, float | None] = {
    "fedavg": None,
    "fedprox": None,
    "fedavgm": 1.0,
    "fedadam": 3e-3,
    "fedadamw": 3e-3,
}
"""Strategies, and the server's learning rate where they have one. A rate is itself, never its logarithm."""

ACCOUNTED = ("fedavg", "fedprox")
"""Strategies whose average Flower's accountant knows how to bound."""


MOST_SEED = 2**31


def _option(default: Any, help: str) -> Any:
    """A field with the line that ``--help`` shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a person may choose; each is a flag of ``sideplug-cloud federate run``."""

    strategy: str = _option("fedavg", f"one of {', '.join(SERVER_RATES)}")
    rounds: int = _option(10, "how many")
    devices: int = _option(2, "the first round waits for so many")
    share: float = _option(1.0, "share of the devices present that each round asks, above 0 to 1")
    least: int = _option(
        1, "updates without which a round is void, and devices each round waits for"
    )
    round_seconds: float = _option(
        600.0, "a round waits so long for its updates; late ones are dropped"
    )
    epochs: int = _option(1, "times a device reads its texts in a round")
    kept: float = _option(
        0.0, "share of an update that a device sends, the largest numbers; 0: all, densely"
    )
    rate: float = _option(0.0, "peak learning rate on the devices; 0: the kit's")
    rate_decay: float = _option(1.0, "the rate is multiplied by this after every round")
    seed: int = _option(0, "of the order in which devices read their texts")
    server_rate: float = _option(0.0, "learning rate of the server's optimizer; 0: the strategy's")
    momentum: float = _option(0.9, "of fedavgm")
    weight_decay: float = _option(0.01, "of fedadamw")
    proximal: float = _option(0.1, "mu of fedprox")
    noise: float = _option(
        0.0, "noise multiplier of differential privacy for whole devices; 0: none"
    )
    clip: float = _option(0.0, "largest norm of an update; needed with --noise")
    delta: float = _option(1e-5, "delta of the privacy budget that is printed")
    most_epsilon: float = _option(0.0, "stop before the budget exceeds this; 0: never")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise BadSetting(f"--{item.name.replace('_', '-')} must be 0 or more")
        problem = next((problem for problem, holds in self._checks().items() if not holds), None)
        if problem is not None:
            raise BadSetting(problem)

    def _checks(self) -> dict[str, bool]:
        """What has to hold, by what is said where it does not."""
        known = self.strategy in SERVER_RATES
        counts = (self.rounds, self.devices, self.least, self.epochs)
        checks = {
            f"--strategy must be one of {', '.join(SERVER_RATES)}": known,
            "--rounds, --devices, --least and --epochs must be at least 1": min(counts) >= 1,
            f"--share must be above 0 and at most 1, but is {self.share}": 0 < self.share <= 1,
            f"--kept must be at most 1, but is {self.kept}": self.kept <= 1,
            f"--least {self.least} is more than --devices {self.devices}": self.least
            <= self.devices,
            f"--seed must be 0 to {MOST_SEED}, but is {self.seed}": 0 <= self.seed <= MOST_SEED,
            f"--momentum must be below 1, but is {self.momentum}": self.momentum < 1,
            "--rate-decay and --round-seconds must be above 0": self.rate_decay > 0
            and self.round_seconds > 0,
        }
        if self.private:
            checks |= {
                "--noise and --kept do not go together: a sparse update holds rounds of before": not self.kept,
                "--noise needs --clip, the largest norm of an update": self.clip > 0,
                f"--noise goes with {' or '.join(ACCOUNTED)} alone": self.strategy in ACCOUNTED,
                f"--delta must be above 0 and below 1, but is {self.delta}": 0 < self.delta < 1,
            }
        return checks

    @property
    def private(self) -> bool:
        """Whether noise is added, and every device weighs the same."""
        return self.noise > 0

    @property
    def optimizer_rate(self) -> float:
        """The server's learning rate; 1 where the strategy has none."""
        return self.server_rate or SERVER_RATES[self.strategy] or 1.0

    @property
    def sampled(self) -> int:
        """How many devices a private round asks: always the same, as its noise goes by it."""
        return max(1, int(self.devices * self.share))
