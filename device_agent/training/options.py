"""How a training run goes: the kit's schedule, and what a person sets differently."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

from device_agent.settings import BadSetting
from protocol.kit import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Refused at birth when a value cannot work."""

    rate: float
    """Peak learning rate."""

    warmup: float
    """Share of the steps that warm up."""

    epochs: int
    """Times the texts are read at most."""

    batch_tokens: int
    """Most tokens a step."""

    segment: int
    """Tokens in a row that stay together."""

    patience: int
    """Epochs without a better validation after which training ends; 0 stands for never."""

    answers: int
    """Times an epoch reads what was said in conversations; documents are read once."""

    seed: int = 0
    """Of the order and the dropout masks."""

    threads: int = 1
    """For one operator."""

    validation_tokens: int = 512
    """About how many held-out tokens are scored after an epoch: one costs as much as training on three."""

    checkpoint_seconds: float = 10.0
    """How much work a sudden end may cost."""

    max_seconds: float = 0.0
    """Training ends after about so long; 0 stands for no limit."""

    def __post_init__(self) -> None:
        least = {
            "answers": 1,
            "epochs": 1,
            "batch_tokens": 1,
            "segment": 1,
            "threads": 1,
            "validation_tokens": 1,
        }
        least |= {"patience": 0, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise BadSetting(name, f"must be at least {bound}, but is {getattr(self, name)}")
        if not 0 < self.rate < float("inf"):
            raise BadSetting("rate", f"must be above 0, but is {self.rate}")
        if not 0 <= self.warmup <= 1:
            raise BadSetting("warmup", f"must be 0 to 1, but is {self.warmup}")
        for name in ("checkpoint_seconds", "max_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise BadSetting(name, f"must be 0 or more, but is {getattr(self, name)}")

    @classmethod
    def of(cls, schedule: Schedule, chosen: Mapping[str, object]) -> Self:
        """The schedule with what was chosen instead; None stands for not chosen."""
        names = {field.name for field in fields(cls)}
        given = {name: value for name, value in chosen.items() if value is not None}
        return cls(**{name: v for name, v in (asdict(schedule) | given).items() if name in names})

    def identity(self) -> dict[str, object]:
        """What decides the numbers of a run; where it may be interrupted does not."""
        free = ("threads", "checkpoint_seconds", "max_seconds")
        return {name: value for name, value in asdict(self).items() if name not in free}
