"""What the agent tells the process that trains for it, and the exit codes in which that answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.settings import Settings

OK, FAILED, GONE = 0, 1, 130
"""Done; failed, and stdout says why; ended because the agent wanted so or has gone."""


@dataclass(frozen=True, slots=True)
class Order:
    """One line of JSON on stdin."""

    job: int
    """Its number in the store."""
    options: Mapping[str, object]
    settings: Mapping[str, Any]
    """All fields of ``Settings``; the cloud's key is among them, which is why they come on stdin."""

    def to_settings(self) -> Settings:
        """The settings, checked again."""
        return Settings(**{**self.settings, "home": Path(self.settings["home"])})
