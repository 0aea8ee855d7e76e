"""What an answer was made with: every reply says so."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class MadeWith:
    """All that decides an answer, besides the question and how it is sampled."""

    backbone: str
    """Fingerprint of the frozen backbone."""

    plugin: str | None = None
    """The version that was asked; None for the frozen backbone alone."""

    corrects: bool = False
    """Whether the version's weights had a say: what does not help rests."""

    prefix: int = 0
    """Tokens of the personal prefix before the question."""

    memory: bool = False
    """Whether the memory had a say."""

    gate: str = ""
    """By what the backbone was let speak alone, and from which need on it was not, as ``confidence:0.3``; empty
    where it was not."""

    @property
    def fingerprint(self) -> str:
        """All of it in a word, as OpenAI's ``system_fingerprint``: ``me:3-f00d5eed0123-prefix1024-plugin-memory``."""
        parts = ["base" if self.plugin is None else f"me:{self.plugin}", self.backbone[:12]]
        parts += [f"prefix{self.prefix}"] if self.prefix else []
        parts += ["plugin"] if self.corrects else []
        parts += ["memory"] if self.memory else []
        parts += [self.gate] if self.gate else []
        return "-".join(parts)

    def to_json(self) -> dict[str, object]:
        """As replies carry it."""
        return asdict(self)
