"""One connection over HTTP, kept open: bounded retries, counted bytes, every foreign error mapped here.

* ``CloudUnreachable``: no whole answer came, after every retry.
* ``protocol.errors.Fault``: the cloud answered that it cannot do this.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import httpx

from device_agent.errors import DeviceError
from protocol.errors import Fault, FrameTooLarge, KitNotReady, MalformedMessage, fault_from_json
from protocol.fields import read_json
from protocol.limits import Limits

T = TypeVar("T")

FRAME_TYPE = "application/vnd.sideplug.frame"

TRIES = 4
"""How often a request is sent at most."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
"""Seconds between tries: doubled each time, never more than the longest."""


class CloudUnreachable(DeviceError):
    """No whole answer came from the cloud."""

    hint = (
        "Check the address (--cloud or SIDEPLUG_CLOUD) and that `sideplug-cloud serve` runs there."
    )

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one request cost, in bytes of the bodies."""

    kind: str
    """facts, tokenizer, kit, session, step or features."""

    up: int
    down: int


class Connection:
    """Requests and answers as bytes. Arguments as ``CloudClient`` describes them."""

    def __init__(
        self,
        url: str,
        *,
        limits: Limits,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
        random: Random,
        on_traffic: Callable[[Traffic], None] | None,
        patience: float,
    ) -> None:
        self.url = url.rstrip("/")
        self._limits = limits
        self._sleep = sleep
        self._random = random
        self._on_traffic = on_traffic
        self._asked_pause = 0.0
        self._http = httpx.Client(
            transport=transport,
            timeout=httpx.Timeout(patience, connect=10.0),
            # Loading the certificates takes 25 ms and some megabytes that plain HTTP does not need.
            verify=self.url.startswith("https:"),
            # Compressed answers could grow past every limit.
            headers={"accept-encoding": "identity"},
        )

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def retry(self, call: Callable[[], T]) -> T:
        """Give what ``call`` gives, trying again while the cloud is away or too busy for now."""
        failures = 0
        while True:
            try:
                return call()
            except (CloudUnreachable, Fault) as error:
                failures += 1
                self.pause_or_raise(failures, error)

    def pause_or_raise(self, failures: int, error: CloudUnreachable | Fault) -> None:
        """Wait before the next try, or raise ``error`` when there is no sense in one."""
        if failures >= TRIES or not _passing(error):
            raise error
        longest = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
        wait = longest * self._random.uniform(0.5, 1)
        self._sleep(max(wait, min(self._asked_pause, LONGEST_PAUSE)))

    def whole(
        self, kind: str, method: str, path: str, content: bytes = b"", *, limit: int
    ) -> bytes:
        """The whole body of an answer; one that is cut short is asked for again."""

        def once() -> bytes:
            with self.answer(kind, method, path, content) as answer:
                return answer.read(limit)

        return self.retry(once)

    @contextmanager
    def answer(
        self,
        kind: str,
        method: str,
        path: str,
        content: bytes = b"",
        query: Mapping[str, str] | None = None,
    ) -> Iterator["Answer"]:
        """Send one request, once. The border: no error of httpx gets past here."""
        answer = None
        kept = "application/json" if content[:1] == b"{" else FRAME_TYPE
        headers = {"content-type": kept} if content else {}
        self._asked_pause = 0.0
        try:
            request = self._http.build_request(
                method, self.url + path, content=content, params=query, headers=headers
            )
            answer = Answer(self._http.send(request, stream=True))
            if not answer.response.is_success:
                self._asked_pause = answer.asked_pause()
                raise self._refusal(answer)
            yield answer
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CloudUnreachable(self.url, str(error) or type(error).__name__) from error
        finally:
            if answer is not None:
                answer.response.close()
            if self._on_traffic is not None:
                self._on_traffic(Traffic(kind, len(content), 0 if answer is None else answer.down))

    def _refusal(self, answer: "Answer") -> CloudUnreachable | Fault:
        """What an answer of another status than 2xx means."""
        status = answer.response.status_code
        limit = self._limits.json_bytes
        body = answer.read(limit)
        try:
            return fault_from_json(read_json(body, limit))
        except MalformedMessage:
            # Something between us and the cloud speaks: it knows nothing of our faults.
            if status in (502, 503, 504):
                return CloudUnreachable(self.url, f"HTTP status {status}")
            return MalformedMessage(reason=f"HTTP status {status} without a fault of ours")


class Answer:
    """An open answer; counts the bytes that come."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.down = 0

    def chunks(self) -> Iterator[bytes]:
        for chunk in self.response.iter_raw():
            self.down += len(chunk)
            yield chunk

    def read(self, limit: int) -> bytes:
        """The whole body, refused before it is kept when it is longer than ``limit``."""
        announced = self.response.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise FrameTooLarge(size=int(announced), limit=limit)
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise FrameTooLarge(size=len(body), limit=limit)
        return bytes(body)

    def asked_pause(self) -> float:
        """Seconds of ``Retry-After``; 0 without it or when it is a date, which ours never is."""
        asked = self.response.headers.get("retry-after", "")
        return float(asked) if asked.isdigit() else 0.0


def _passing(error: CloudUnreachable | Fault) -> bool:
    """Whether the same request may do better in a moment."""
    if isinstance(error, Fault):
        return error.status == 503 and not isinstance(error, KitNotReady)
    return True
