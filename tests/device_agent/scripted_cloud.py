"""A real HTTP server on loopback whose answers a test writes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FRAME_TYPE = "application/vnd.sideplug.frame"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes
    port: int
    """Of the client's end: equal for requests over one connection."""
    headers: dict[str, str]
    """Names in lower case."""


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    """Bytes that the header promises and that never come."""


def json_answer(data: object, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps(data).encode(), status, named)


class ScriptedCloud:
    """Answers with ``reply``; remembers the requests."""

    def __init__(self, reply: Callable[[Request], Answer]) -> None:
        self.requests: list[Request] = []
        scripted = self

        class Exchange(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                size = int(self.headers.get("content-length", 0))
                body = self.rfile.read(size)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, body, self.client_address[1], headers)
                scripted.requests.append(request)
                answer = reply(request)
                self.send_response(answer.status)
                self.send_header("content-length", str(len(answer.body) + answer.missing))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
                self.close_connection = answer.missing > 0

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def paths(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.requests]

    @contextmanager
    def serving(self) -> Iterator["ScriptedCloud"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def in_turn(*answers: Answer) -> Callable[[Request], Answer]:
    """Gives the answers one after another, whatever is asked; the last one for ever."""
    left = list(answers)
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]
