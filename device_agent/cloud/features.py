"""Features of texts, fetched once: what the cache holds is never asked for again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import monotonic

from device_agent.cloud.client import CloudClient
from device_agent.data.examples import Encoded
from device_agent.data.tap_cache import TapCache
from protocol.errors import PrefixNotFound
from protocol.messages import PrefixKept, States


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was asked for, and what of it had to travel."""

    texts: int
    """Different ones, those from the cache included."""
    tokens: int
    """Of all these texts."""
    sent_texts: int
    sent_tokens: int
    seconds: float


def missing(cache: TapCache, texts: Sequence[Encoded]) -> list[Encoded]:
    """The texts whose features are not in the cache, each once."""
    absent = {
        cache.path(text.fed, text.first, text.source): text
        for text in texts
        if not cache.holds(text.fed, text.first, text.source)
    }
    return list(absent.values())


def fetch(
    cloud: Callable[[], CloudClient],
    cache: TapCache,
    texts: Sequence[Encoded],
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Fetched:
    """Bring the features of ``texts`` into the cache.

    Each text is kept as soon as it has come: what is interrupted goes on where it was.

    Args:
        cloud: Gives the client; not called when nothing is missing, so that this works offline.
        cache: Filled.
        texts: Windows; their last tokens stay here, as nothing has to be read after them.
        on_progress: Told how many tokens have come, of how many to fetch.

    Raises:
        CloudUnreachable, Fault: As the client raises them.
    """
    started = monotonic()
    texts = list({cache.path(text.fed, text.first, text.source): text for text in texts}.values())
    absent = missing(cache, texts)
    total = sum(len(text.fed) - text.prefix for text in absent)
    done = 0
    for prefix, group in _by_prefix(absent):
        for text, states in _answers(cloud(), cache, prefix, group):
            cache.put(text.fed, states, text.first, text.source)
            done += len(text.fed) - text.prefix
            on_progress(done, total)
    tokens = sum(len(text.fed) - text.prefix for text in texts)
    return Fetched(len(texts), tokens, len(absent), total, monotonic() - started)


Pairs = Iterator[tuple[Encoded, States]]


def _by_prefix(texts: Sequence[Encoded]) -> list[tuple[list[int], list[Encoded]]]:
    """Texts that stand behind the same tokens, together."""
    groups: dict[bytes, list[Encoded]] = {}
    for text in texts:
        groups.setdefault(text.ids[: text.prefix].tobytes(), []).append(text)
    return [(group[0].ids[: group[0].prefix].tolist(), group) for group in groups.values()]


def _answers(
    cloud: CloudClient, cache: TapCache, prefix: list[int], texts: Sequence[Encoded]
) -> Pairs:
    """Each text with its states; the prefix is read once for all of them."""
    if not prefix:
        yield from _requested(cloud, cache, texts, None)
        return
    done = 0
    while done < len(texts):
        kept, before = cloud.keep_prefix(prefix), done
        try:
            for pair in _requested(cloud, cache, texts[done:], kept):
                done += 1
                yield pair
        except PrefixNotFound:
            # The cloud was started anew; a prefix that is lost at once will be lost again.
            if done == before:
                raise


def _requested(
    cloud: CloudClient, cache: TapCache, texts: Sequence[Encoded], prefix: PrefixKept | None
) -> Pairs:
    rows = [len(text.fed) - text.first for text in texts]
    fed = [text.fed[text.prefix :] for text in texts]
    sources = [text.source for text in texts]
    answers = cloud.features(fed, cache.wants, rows, prefix, cache.basis, sources)
    # Closed here when something goes wrong: the client has accounts to settle before it goes.
    with closing(answers):
        yield from zip(texts, answers, strict=True)
