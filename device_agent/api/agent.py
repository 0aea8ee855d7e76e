"""What all routes share."""

from dataclasses import dataclass, field

from starlette.requests import Request

from device_agent.api.answers import Answers
from device_agent.api.metrics import Metrics
from device_agent.api.voices import Voices
from device_agent.cloud.link import STORE
from device_agent.data.store import Store
from device_agent.settings import Settings


@dataclass(frozen=True, slots=True)
class Agent:
    """One home behind one address."""

    settings: Settings
    token: str = field(repr=False)
    voices: Voices
    metrics: Metrics
    answers: Answers

    def store(self) -> Store:
        """The home's store, for the thread that asks."""
        return Store(self.settings.home / STORE)


def agent_of(request: Request) -> Agent:
    """The agent that a request has come to."""
    found: Agent = request.app.state.agent
    return found
