"""
A network line as a program: `python -m benchmarks.delay HOST:PORT`.

Takes connections on a free port of this machine, whose address it prints, and passes bytes on to
HOST:PORT and back. Each line of its input, `{"rtt_ms": 50, "mbit": 100}`, says how long the line is
from then on, there and back, and how wide each way; it answers with the same line. A null width is
none. What is sent waits until the line is free, takes its bytes' time, and arrives half a round trip
later. Unlike a network it loses nothing, and windows of TCP end at it.
"""

import asyncio
import json
import sys
import threading
from contextlib import suppress

CHUNK = 2**16
SPIN = 0.0015
"""Seconds before it is due that a chunk is waited for by looking at the clock: the loop's own timers
are late by a millisecond."""


class Way:
    """One direction of the line, which all connections share."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.bytes_per_second = float("inf")
        self._free = 0.0

    def arrival(self, size: int, now: float) -> float:
        """When ``size`` bytes that are sent now have come."""
        self._free = max(self._free, now) + size / self.bytes_per_second
        return self._free + self.delay


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
    """Passes on what comes, each chunk when it is due, until one end has gone."""
    loop = asyncio.get_running_loop()
    sent: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        with suppress(ConnectionError):
            while (item := await sent.get())[1]:
                due, data = item
                await asyncio.sleep(max(0.0, due - loop.time() - SPIN))
                while loop.time() < due:
                    await asyncio.sleep(0)
                writer.write(data)
                await writer.drain()
        writer.close()

    delivering = asyncio.ensure_future(deliver())
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            sent.put_nowait((way.arrival(len(data), loop.time()), data))
    sent.put_nowait((0.0, b""))
    await delivering


async def serve(host: str, port: int) -> None:
    """Carries until the input ends."""
    up, down = Way(), Way()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, to_them = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, to_them, up), carry(theirs, writer, down))

    def shape(line: str) -> None:
        asked = json.loads(line)
        for way in (up, down):
            way.delay = asked["rtt_ms"] / 2000
            way.bytes_per_second = asked["mbit"] * 125_000 if asked["mbit"] else float("inf")
        print(line, end="", flush=True)

    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(shape, line)
        loop.call_soon_threadsafe(ended.set)

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    own = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{own}"}), flush=True)
    threading.Thread(target=listen, daemon=True).start()
    await ended.wait()


def main(arguments: list[str]) -> int:
    """Carries to the one address that is given."""
    host, port = arguments[0].rsplit(":", 1)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(host, int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
