"""Computing against communicating in a round of federated learning, by the speed of the link.

``T_compute`` is what training on a round's tokens takes as measured here; ``T_communicate`` what the round's bytes
take on a link of that speed, whose latency and losses are not counted. Granularity is the former over the
latter: above one, a device spends its time learning.
"""

from dataclasses import dataclass

from device_agent.hardware.steps import StepCost
from protocol.kit import KitManifest

LINKS = {"1 Gbit/s": 1e9, "100 Mbit/s": 1e8, "20 Mbit/s": 2e7, "5 Mbit/s": 5e6}
"""Bits a second."""


@dataclass(frozen=True, slots=True)
class RoundCost:
    """One round of one device."""

    compute: float
    """Seconds."""
    bytes: int
    """Down and up together."""

    def communicate(self, link: str) -> float:
        """Seconds on a link of LINKS."""
        return 8 * self.bytes / LINKS[link]

    def granularity(self, link: str) -> float:
        """Computing over communicating."""
        return self.compute / self.communicate(link)

    def to_json(self) -> dict[str, object]:
        """As the report has it."""
        links = {
            link: {"communicate": self.communicate(link), "granularity": self.granularity(link)}
            for link in LINKS
        }
        return {"compute": self.compute, "bytes": self.bytes, "links": links}


def round_cost(cost: StepCost, tokens: int, weights: int, width: int) -> RoundCost:
    """Of a round.

    Args:
        cost: Of a step.
        tokens: That a device learns from in a round.
        weights: That travel, each way.
        width: Bytes of a weight.
    """
    return RoundCost(cost.seconds * -(-tokens // cost.tokens), 2 * width * weights)


def weights_of(manifest: KitManifest) -> int:
    """How many numbers a kit trains."""
    total = 0
    for weight in manifest.weights:
        count = 1
        for side in weight.shape:
            count *= side
        total += count
    return total
