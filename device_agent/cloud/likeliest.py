"""The likeliest continuation, as the backbone itself finds it: one request, and no arithmetic here."""

from collections.abc import Collection

import numpy as np

from device_agent.cloud.link import Link
from protocol.messages import SessionRequest, Tokens, Wants


def likeliest(link: Link, ids: list[int], most: int, stops: Collection[int]) -> list[int]:
    """Tokens with which the frozen backbone goes on, greedily, drafted by the cloud.

    Args:
        link: To the cloud.
        ids: What stands before, one at least.
        most: How many tokens; the cloud's limits and its context may leave fewer.
        stops: The continuation ends behind the first of these.

    Raises:
        CloudUnreachable, Fault: The cloud cannot be asked.
    """
    wants = Wants((), final=True, log_z=False, candidates=0, codec=link.settings.codec)
    drafts = min(most, link.cloud.limits.drafts)
    opened = link.cloud.open_session(SessionRequest(wants=wants))
    states = link.cloud.step(opened.session, Tokens(1, 0, 1, np.array(ids, np.uint32), drafts))
    link.cloud.close_session(opened.session)
    drafted: list[int] = states.drafted.tolist()
    ends = [place for place, token in enumerate(drafted) if token in stops]
    return drafted[: ends[0] + 1] if ends else drafted
