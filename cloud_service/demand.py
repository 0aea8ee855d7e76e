"""What a plan assumes of the devices; each can be set by a flag."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from cloud_service.errors import BadSetting
from protocol.codecs import CODEC_NAMES


def _assumed(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class Demand:
    """What is assumed. ``BadSetting`` when it makes no sense."""

    devices: int = _assumed(1_000_000, "devices")
    tokens_per_day: float = _assumed(2000.0, "tokens generated for a device in a day")
    prompt_ratio: float = _assumed(2.0, "tokens prefilled for each that is generated")
    peak_factor: float = _assumed(3.0, "busiest hour over the mean one")
    session_tokens: float = _assumed(400.0, "tokens generated in a session")
    session_positions: int = _assumed(1024, "positions that a session holds of its own")
    idle: float = _assumed(120.0, "seconds that a session stays open after its last token")
    pass_seconds: float = _assumed(0.1, "longest pass: what a person waits between two tokens")
    http_seconds: float = _assumed(0.001, "processor time a step takes around the pass")
    load: float = _assumed(0.7, "share of a replica's time that is used at the peak")
    kv_gigabytes: float = _assumed(2.0, "memory of a replica for keys and values")
    codec: str = _assumed("f16", "what hidden states travel in")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "codec":
                continue
            lowest = 0.0 if item.name in ("prompt_ratio", "idle", "http_seconds") else 1e-9
            if not (math.isfinite(value) and value >= lowest):
                raise BadSetting(f"{item.name} cannot be {value}")
        if self.load > 1:
            raise BadSetting(f"load must be at most 1, but is {self.load}")
        if self.codec not in CODEC_NAMES:
            raise BadSetting(f"codec must be one of {', '.join(CODEC_NAMES)}, but is {self.codec}")
