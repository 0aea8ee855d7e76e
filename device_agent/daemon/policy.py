"""When the agent may train. Pure: what is known comes in, what to do comes out."""

from datetime import time
from enum import Enum

from device_agent.settings import Settings, hours_of

IDLE_SECONDS = 5.0
"""So long nobody may have chatted before training goes on: people read before they answer."""


class Leave(Enum):
    """What training may do now."""

    GO = "go"
    HOLD = "hold"
    """Stay, and compute nothing: it is for moments."""
    END = "end"
    """Be no process: it is for hours."""


def leave(settings: Settings, quiet_seconds: float, now: time) -> Leave:
    """What training may do.

    Args:
        settings: The person's.
        quiet_seconds: Since the last answer ended.
        now: Time of the day.
    """
    if not within(settings.train_hours, now):
        return Leave.END
    if settings.train_when == "idle" and quiet_seconds < IDLE_SECONDS:
        return Leave.HOLD
    return Leave.GO


def within(hours: str, now: time) -> bool:
    """Whether ``now`` lies in hours such as ``22:00-07:00``, which may pass midnight."""
    span = hours_of(hours)
    if span is None:
        return True
    begin, end = span
    if begin <= end:
        return begin <= now < end
    return now >= begin or now < end
