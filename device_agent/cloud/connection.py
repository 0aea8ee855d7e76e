"""One connection over HTTP, kept open: bounded retries, counted bytes, every foreign error mapped here.

* ``CloudUnreachable``: no whole answer came, after every retry.
* ``protocol.errors.Fault``: the cloud answered that it cannot do this.
"""

import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from device_agent.cloud.traffic import Account, Kind, Outgoing, Traffic
from device_agent.errors import DeviceError
from protocol.errors import (
    Draining,
    Fault,
    FrameTooLarge,
    KitNotReady,
    Loading,
    MalformedMessage,
    TooManySessions,
    fault_from_json,
)
from protocol.fields import read_json
from protocol.limits import Limits

T = TypeVar("T")

FRAME_TYPE = "application/vnd.sideplug.frame"

TRIES = 4
"""How often a request is sent to an address at most."""

PATIENT_TRIES = 16
"""The same in the middle of a text: half a minute at least, in which a cloud is started anew."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 4.0
"""Seconds between tries: doubled each time, never more than the longest."""

LONGEST_ASKED = 30.0
"""Seconds that are waited because the cloud asks for it; whoever asks for more is not waited for."""


class CloudUnreachable(DeviceError):
    """No whole answer came from the cloud."""

    hint = (
        "Check the address (--cloud or SIDEPLUG_CLOUD) and that `sideplug-cloud serve` runs there."
    )

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason


class BadAuthority(DeviceError):
    """The file of the certificate authority is none."""

    hint = "Correct --ca, SIDEPLUG_CA or the line of config.toml: it names a PEM file."

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"no certificate authority in {path}: {reason}")


class Connection:
    """
    Requests and answers as bytes, from one of several addresses. Arguments as ``CloudClient`` has.

    ``identify`` is called before anything else is said to an address that was away or is new: the
    backbone there may be another one. It raises when it is.
    """

    def __init__(
        self,
        url: str,
        *,
        limits: Limits,
        transport: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
        random: Random,
        account: Account | None,
        patience: float,
        key: str,
        authority: str,
        identify: Callable[[], None],
    ) -> None:
        self._urls = [one.strip().rstrip("/") for one in url.split(",")]
        self._place = 0
        self._proxies: dict[str, str] = {}
        self._limits = limits
        self._sleep = sleep
        self._random = random
        self._account = account
        self._identify = identify
        self._in_doubt = False
        self._asked_pause = 0.0
        # Compressed answers could grow past every limit. The id keeps all requests of this
        # connection at one replica, where its sessions are.
        headers = {"accept-encoding": "identity", "x-session-id": secrets.token_hex(16)}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._http = httpx.Client(
            transport=transport,
            timeout=httpx.Timeout(patience, connect=10.0),
            verify=_trust(self._urls, authority),
            headers=headers,
        )

    @property
    def url(self) -> str:
        """The address that is asked at present."""
        return self._urls[self._place]

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def doubt(self) -> None:
        """Have whoever answers next identify themselves first."""
        self._in_doubt = True

    def retry(self, call: Callable[[], T], tries: int = TRIES) -> T:
        """Give what ``call`` gives, trying again while the cloud is away or too busy for now."""
        failures = 0
        while True:
            try:
                return call()
            except (CloudUnreachable, Fault) as error:
                failures += 1
                self.pause_or_raise(failures, error, tries)

    def pause_or_raise(
        self, failures: int, error: CloudUnreachable | Fault, tries: int = TRIES
    ) -> None:
        """Go to the next address, or wait when all were asked, or raise ``error`` after ``tries``."""
        rounds, others = failures, 0
        if _gone(error):
            self._in_doubt = True
            self._place = (self._place + 1) % len(self._urls)
            rounds, others = divmod(failures, len(self._urls))
        if rounds >= tries or not _passing(error):
            raise error
        if others:
            return  # it costs nothing to ask them first
        if self._asked_pause > LONGEST_ASKED:
            raise error
        longest = min(FIRST_PAUSE * 2 ** (rounds - 1), LONGEST_PAUSE)
        self._sleep(max(longest * self._random.uniform(0.5, 1), self._asked_pause))

    def whole(
        self,
        kind: Kind,
        method: str,
        path: str,
        content: bytes = b"",
        *,
        limit: int,
        tries: int = TRIES,
        tokens: int = 0,
    ) -> bytes:
        """The whole body of an answer; one that is cut short is asked for again."""

        def once() -> bytes:
            with self.answer(kind, method, path, content, tokens=tokens) as answer:
                return answer.read(limit)

        return self.retry(once, tries)

    @contextmanager
    def answer(
        self,
        kind: Kind,
        method: str,
        path: str,
        content: bytes = b"",
        query: Mapping[str, str] | None = None,
        tokens: int = 0,
    ) -> Iterator["Answer"]:
        """Send one request, once. The border: nothing leaves elsewhere, no error of httpx gets past here.

        Args:
            kind: What is in it.
            method: Of HTTP.
            path: Under the address.
            content: The body.
            query: Behind the path.
            tokens: Of somebody's text, in the body.
        """
        self._be_sure()
        kept = "application/json" if content[:1] == b"{" else FRAME_TYPE
        headers = {"content-type": kept} if content else {}
        self._asked_pause = 0.0
        answer, left = None, True
        with self._errors_mapped():
            request = self._http.build_request(
                method, self.url + path, content=content, params=query, headers=headers
            )
        to, through = _host_of(request.url), self._proxy_of(request.url)
        out = Outgoing(kind, to, len(content), _head_of(request), tokens, through)
        if self._account is not None:
            self._account.leaving(out)
        try:
            with self._errors_mapped():
                answer = Answer(self._http.send(request, stream=True))
                if not answer.response.is_success:
                    self._asked_pause = answer.asked_pause()
                    raise self._refusal(answer)
                yield answer
        except CloudUnreachable as error:
            left = not isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
            raise
        finally:
            if answer is not None:
                answer.response.close()
            if self._account is not None:
                down, head = (0, 0) if answer is None else (answer.down, answer.head)
                self._account.came(Traffic(out, down, head, left))

    def _proxy_of(self, url: httpx.URL) -> str:
        """Who passes on what is sent there and reads it; looked up once, as httpx does."""
        if url.host not in self._proxies:
            self._proxies[url.host] = proxy_of(url)
        return self._proxies[url.host]

    @contextmanager
    def _errors_mapped(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CloudUnreachable(self.url, str(error) or type(error).__name__) from error

    def _be_sure(self) -> None:
        if not self._in_doubt:
            return
        self._in_doubt = False  # what identifies them is an answer too
        try:
            self._identify()
        except BaseException:
            self._in_doubt = True
            raise

    def _refusal(self, answer: "Answer") -> CloudUnreachable | Fault:
        """What an answer of another status than 2xx means."""
        status = answer.response.status_code
        limit = self._limits.json_bytes
        body = answer.read(limit)
        try:
            return fault_from_json(read_json(body, limit))
        except MalformedMessage:
            # Something between us and the cloud speaks: it knows nothing of our faults, and what it
            # could not reach is away.
            if status >= 500:
                return CloudUnreachable(self.url, f"HTTP status {status}")
            return MalformedMessage(reason=f"HTTP status {status} without a fault of ours")


class Answer:
    """An open answer; counts the bytes that come."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.down = 0
        reason = response.extensions.get("reason_phrase", b"")
        # "HTTP/1.1 200 " and the reason
        self.head = len(reason) + 13 + 2 + _lines_of(response.headers) + 2

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


def _host_of(url: httpx.URL) -> str:
    """``host:port``, also where the address leaves the port out or names a user."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def proxy_of(url: httpx.URL) -> str:
    """``host:port`` of who passes plain HTTP on, by the environment; an https tunnel is read by nobody."""
    proxies = getproxies()
    proxy = proxies.get("http") or proxies.get("all")
    if url.scheme != "http" or not proxy or proxy_bypass(url.host):
        return ""
    return _host_of(httpx.URL(proxy if "://" in proxy else f"http://{proxy}"))


def _head_of(request: httpx.Request) -> int:
    """Bytes of everything in front of the body, as HTTP/1.1 writes it."""
    line = f"{request.method} {request.url.raw_path.decode('ascii')} HTTP/1.1\r\n"
    return len(line) + _lines_of(request.headers) + 2


def _lines_of(headers: httpx.Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers.raw)


def _passing(error: CloudUnreachable | Fault) -> bool:
    """Whether the same request may do better in a moment."""
    if isinstance(error, Fault):
        return error.status in (429, 503) and not isinstance(error, KitNotReady)
    return True


def _gone(error: CloudUnreachable | Fault) -> bool:
    """Whether another address may do better; who is merely busy soon does better itself."""
    return isinstance(error, CloudUnreachable | Draining | Loading | TooManySessions)


def _trust(urls: list[str], authority: str) -> ssl.SSLContext | bool:
    """What certificates are checked against."""
    # Loading them takes 25 ms and some megabytes that plain HTTP does not need.
    if not any(url.startswith("https:") for url in urls):
        return False
    if not authority:
        return True
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:  # ssl.SSLError is one
        raise BadAuthority(authority, error.strerror or str(error)) from None
