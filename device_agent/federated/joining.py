"""Taking part in a federation from a home folder, with all that leaves it on record."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from device_agent.cloud.link import Link
from device_agent.cloud.traffic import Kind, Outgoing, Traffic
from device_agent.egress.account import Egress
from device_agent.errors import DeviceError
from device_agent.federated.key import find_key
from device_agent.federated.participant import Participant
from device_agent.training.watcher import Watcher

if TYPE_CHECKING:
    from flwr.app import Message

KIND: Kind = "federated"
"""What the egress ledger and the policy call weights that came and updates that went."""


class FlowerMissing(DeviceError):
    """The engine of federations is not installed."""

    hint = "Install the extra `federated`: pip install 'sideplug[device,federated]'."

    def __init__(self) -> None:
        super().__init__("federations need Flower, which is not installed")


@dataclass(slots=True)
class Joined:
    """What came of it."""

    rounds: int = 0
    """In which this device gave an update."""
    refused: int = 0
    up: int = 0
    """Bytes that left."""
    down: int = 0
    """Bytes that came."""

    def to_json(self) -> dict[str, object]:
        """As ``sideplug federate join --json`` prints it."""
        return {
            "rounds": self.rounds,
            "refused": self.refused,
            "bytes_up": self.up,
            "bytes_down": self.down,
        }


def require_flower() -> None:
    """Raises FlowerMissing unless it is installed."""
    if find_spec("flwr") is None:
        raise FlowerMissing()


def join(link: Link, url: str, wait: float, watcher: Watcher, say: Callable[[str], None]) -> Joined:
    """Take part until the federation ends.

    Args:
        link: The cloud and the home folder.
        url: Of the federation's server.
        wait: Seconds for which a server that does not answer is tried.
        watcher: Sees the training of each round.
        say: Told what a person should know.

    Raises:
        FlowerMissing, NotAllowed, NothingToLearn, ServerAway, NotAdmitted: It cannot take part.
    """
    require_flower()
    from device_agent.federated.client_app import asked_of, client_app
    from device_agent.federated.node import Server, take_part

    server = Server(url, link.settings.ca)
    address, _ = server.address
    app = client_app(Participant(link, watcher))
    joined, account = Joined(), Account(link.egress, address)
    account.leaving(0)

    def answered(message: "Message", refusal: Exception | None) -> bool:
        if refusal is not None:
            joined.refused += 1
            say(f"refused: {refusal}")
            return False
        asked = asked_of(message)
        if asked.last:
            say(f"the federation has ended after {asked.number} rounds")
            return True
        joined.rounds += 1
        say(f"round {asked.number} of {asked.rounds}: an update was sent")
        return False

    def traffic(up: int, down: int) -> None:
        account.went(up, down)
        joined.up, joined.down = joined.up + up, joined.down + down

    say(f"taking part in the federation at {url}")
    take_part(
        server,
        app,
        key=find_key(link.settings.home),
        wait=wait,
        answered=answered,
        leaving=account.leaving,
        traffic=traffic,
        note=say,
    )
    return joined


class Account:
    """A federation's way out: an update is held against the policy before it leaves, and all bytes are entered.

    Questions for work and signs of life, which hold nothing, are entered after they have left: some go from a
    thread of their own.
    """

    def __init__(self, egress: Egress, host: str) -> None:
        self._egress, self._host, self._entered = egress, host, 0

    def leaving(self, size: int) -> None:
        """Enter so many bytes. Raises BadPolicy, PolicyForbids, CapReached: they stay here."""
        self._egress.leaving(Outgoing(KIND, self._host, size))
        self._entered += size

    def went(self, up: int, down: int) -> None:
        """Enter what went and came meanwhile, but for what was entered before. Raises as ``leaving``."""
        more, self._entered = max(up - self._entered, 0), max(self._entered - up, 0)
        if more or down:
            out = Outgoing(KIND, self._host, more)
            self._egress.leaving(out)
            self._egress.came(Traffic(out, down))
