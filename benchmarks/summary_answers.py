"""What a device makes of descriptions, greedily, and how near that is to the synopses."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.metrics import ROUGE, rouge
from benchmarks.package_summaries import Summary
from device_agent.cloud.link import Link
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginVersion
from device_agent.settings import Settings

ANSWER_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Answer:
    """What was made of one description."""

    source: list[int]
    tokens: list[int]
    text: str


def answers(
    settings: Settings, version: PluginVersion | None, test: Sequence[Summary]
) -> list[Answer]:
    """Of a plugin; of the frozen pair without one."""
    found = []
    with Link(settings) as link, Speaker(link, version) as speaker:
        for one in test:
            source = speaker.ask([{"role": "user", "content": one.source}])
            pieces = list(speaker.answer(source, Sampling(), ANSWER_TOKENS))
            tokens = [piece.token for piece in pieces if piece.token is not None]
            found.append(Answer(source, tokens, "".join(piece.text for piece in pieces)))
    return found


def scores(found: Sequence[Answer], test: Sequence[Summary]) -> dict[str, float]:
    """The mean of each of ``ROUGE``."""
    each = [rouge(answer.text, one.target) for answer, one in zip(found, test, strict=True)]
    return {name: fmean(one[name] for one in each) for name in ROUGE}
