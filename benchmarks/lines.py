"""Between device and cloud a line of a chosen length and width: netem between two network namespaces, else a proxy."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from benchmarks.errors import ProcessFailed
from benchmarks.processes import running


class Line(Protocol):
    """Where a cloud has to run so that a line leads to it, and the line."""

    kind: str
    """What it is made of, for the report."""
    within: Sequence[str]
    """Words in front of the cloud's command."""
    flags: Sequence[str]
    """Where the cloud listens."""

    def lead(self, url: str) -> str:
        """The address at which ``url`` is reached over the line."""
        ...

    def shape(self, rtt_ms: float, mbit: float | None) -> None:
        """Its round trip, and the width of each way; None for as wide as it is."""
        ...


@contextmanager
def line() -> Iterator[Line]:
    """The best line that this machine allows; nothing of it is left behind."""
    if netem_works():
        with namespaces(_name()) as found:
            yield found
    else:
        with proxied() as proxy:
            yield proxy


def netem_works() -> bool:
    """Whether this process may make a namespace, and the system has netem."""
    try:
        with namespaces(_name()) as found:
            found.shape(1, 100)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class Namespaces:
    """Two namespaces: this process's own, and one for the cloud; a pair of virtual interfaces joins them."""

    kind = "tc netem between two network namespaces"
    HERE, THERE = "10.203.113.1", "10.203.113.2"

    def __init__(self, name: str) -> None:
        self.within = ("ip", "netns", "exec", name)
        self.flags = ("--host", self.THERE, "--port", "0", "--insecure")
        self._name, self._ends = name, (f"{name}a", f"{name}b")

    def lead(self, url: str) -> str:
        """The address itself: whatever goes there passes the interfaces."""
        return url

    def shape(self, rtt_ms: float, mbit: float | None) -> None:
        """Half the round trip on the way out of each end; netem's queue holds what waits for the width."""
        for words, end in zip(((), self.within), self._ends, strict=True):
            rate = () if mbit is None else ("rate", f"{mbit:g}mbit")
            words = (*words, "tc", "qdisc", "replace", "dev", end, "root", "netem")
            _run(*words, "delay", f"{rtt_ms / 2:g}ms", *rate, "limit", "100000")

    def make(self) -> None:
        """Raises OSError or CalledProcessError where the system does not let us."""
        here, there = self._ends
        _run("ip", "netns", "add", self._name)
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there)
        _run("ip", "link", "set", there, "netns", self._name)
        _run("ip", "addr", "add", f"{self.HERE}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run(*self.within, "ip", "addr", "add", f"{self.THERE}/30", "dev", there)
        _run(*self.within, "ip", "link", "set", there, "up")
        _run(*self.within, "ip", "link", "set", "lo", "up")

    def remove(self) -> None:
        """Takes back what there is of it."""
        for words in (("link", "del", self._ends[0]), ("netns", "del", self._name)):
            with suppress(OSError, subprocess.CalledProcessError):
                _run("ip", *words)


@contextmanager
def namespaces(name: str) -> Iterator[Namespaces]:
    """They are gone when the block is left."""
    made = Namespaces(name)
    try:
        made.make()
        yield made
    finally:
        made.remove()


class Proxied:
    """A process that passes bytes on late; see benchmarks.delay."""

    kind = "a delaying proxy"
    within: Sequence[str] = ()
    flags: Sequence[str] = ("--port", "0")

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._running = None

    def lead(self, url: str) -> str:
        """Starts it."""
        command = [sys.executable, "-m", "benchmarks.delay", url.rsplit("/", 1)[1]]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._running = running(command, **pipes)
        self._process = self._running.__enter__()
        return str(json.loads(self._said())["url"])

    def shape(self, rtt_ms: float, mbit: float | None) -> None:
        """Takes effect before this returns."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"rtt_ms": rtt_ms, "mbit": mbit}) + "\n")
        self._process.stdin.flush()
        self._said()

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self._running is not None:
            self._running.__exit__(None, None, None)

    def _said(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise ProcessFailed("the delaying proxy has ended; see above why")
        return said


@contextmanager
def proxied() -> Iterator[Proxied]:
    """Its process has ended when the block is left."""
    proxy = Proxied()
    try:
        yield proxy
    finally:
        proxy.end()


def _name() -> str:
    # An interface's name has at most 15 characters.
    return f"spl{os.getpid()}"


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=30)
