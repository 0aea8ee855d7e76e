"""Many devices at once against one cloud: coroutines that open a session, prefill it and decode."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from benchmarks.errors import BenchmarkError
from protocol import versions
from protocol.messages import SessionRequest, States, Tokens, Wants


@dataclass(slots=True)
class Talk:
    """What one device met.

    Attributes:
        began: When it began to decode, on the clock of ``time.perf_counter``.
        gaps: Seconds from there to the first answer, and from each answer to the next.
        ends: When each of these answers had come, on the same clock.

    """

    began: float = 0.0
    gaps: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)


class Visitor:
    """One device on one connection that is kept open. It speaks no more HTTP than it needs."""

    def __init__(self, url: str, wants: Wants) -> None:
        self._address = urlsplit(url)
        self._wants = wants
        self._position = self._step = 0

    async def __aenter__(self) -> "Visitor":
        self._reader, self._writer = await asyncio.open_connection(
            self._address.hostname, self._address.port
        )
        request = json.dumps(SessionRequest(self._wants).to_json()).encode()
        answer = await self._ask("POST", "/v1/sessions", request, "application/json")
        self._session = json.loads(answer)["session"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._ask("DELETE", f"/v1/sessions/{self._session}", b"", "application/json")
        self._writer.close()
        await self._writer.wait_closed()

    async def step(self, ids: Sequence[int]) -> bytes:
        """Sends tokens and returns the frame with the last one's states."""
        frame = versions.encode(
            Tokens(self._step, self._position, 1, np.array(ids, dtype=np.uint32))
        )
        path = f"/v1/sessions/{self._session}/step"
        answer = await self._ask("POST", path, frame, "application/vnd.sideplug.frame")
        self._position += len(ids)
        self._step += 1
        return answer

    async def _ask(self, method: str, path: str, body: bytes, kind: str) -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._address.netloc}\r\n"
        head += f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        said = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = said.partition("content-length:")[2].partition("\r\n")[0]
        answer = await self._reader.readexactly(int(length or 0))
        if said.split(" ", 2)[1][0] != "2":
            raise BenchmarkError(f"{method} {path} was answered with {said[:16]}: {answer!r}")
        return answer


async def decode(
    visitor: Visitor,
    prompt: Sequence[int],
    new: Sequence[int],
    together: asyncio.Barrier,
    talk: Talk,
) -> None:
    """Prefills with a prompt; with all the others then sends ``new`` tokens one by one."""
    await visitor.step(prompt)
    await together.wait()
    before = talk.began = time.perf_counter()
    for token in new:
        answer = await visitor.step([token])
        now = time.perf_counter()
        talk.gaps.append(now - before)
        talk.ends.append(now)
        before = now
    states = versions.decode(answer)
    if not isinstance(states, States) or states.position != len(prompt) + len(new) - 1:
        raise BenchmarkError("the last answer does not hold the states of the last token")


async def crowd(
    url: str, wants: Wants, texts: Sequence[Sequence[int]], prompt: int
) -> tuple[list[Talk], float]:
    """
    Devices that start together, each with a text of its own, and decode when all have prefilled.

    Args:
        url: Of the cloud.
        wants: What every step is answered with.
        texts: Tokens, one text a device; the first ``prompt`` are prefilled.
        prompt: How many.

    Returns:
        What each met, and the seconds from the start to the last answer.

    """
    began = time.perf_counter()
    talks = [Talk() for _ in texts]
    await _all(url, wants, texts, prompt, talks)
    return talks, time.perf_counter() - began


async def disturbed(
    url: str, wants: Wants, texts: Sequence[Sequence[int]], prompt: int, long: Sequence[int]
) -> tuple[list[Talk], float, float]:
    """The same with a long prefill once all decode; also when it began and when it had its answer."""
    talks = [Talk() for _ in texts]
    others = asyncio.create_task(_all(url, wants, texts, prompt, talks))
    async with Visitor(url, wants) as late:
        while not others.done() and not all(talk.gaps for talk in talks):
            await asyncio.sleep(0.005)
        began = time.perf_counter()
        await late.step(long)
        ended = time.perf_counter()
    await others
    return talks, began, ended


async def _all(
    url: str, wants: Wants, texts: Sequence[Sequence[int]], prompt: int, talks: Sequence[Talk]
) -> None:
    together = asyncio.Barrier(len(texts))

    async def one(text: Sequence[int], talk: Talk) -> None:
        async with Visitor(url, wants) as visitor:
            await decode(visitor, text[:prompt], text[prompt:], together, talk)

    async with asyncio.TaskGroup() as group:
        for text, talk in zip(texts, talks, strict=True):
            group.create_task(one(text, talk))
