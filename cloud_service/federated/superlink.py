"""Flower's SuperLink in this process: its Fleet API for devices and a grid for the strategy, nothing else.

The whole SuperLink program also lets whoever reaches it start runs and hand programs to devices. Here there is
one run, which this process drives itself, and no program is ever offered.
"""

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from flwr.app import Error, Message
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import (
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
    ErrorCode,
)
from flwr.server.superlink.linkstate import LinkState, LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.error import http_error_translator
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.object_store import NoObjectInStoreError, ObjectStoreFactory
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse

from cloud_service.errors import CloudError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

START_SECONDS = 30.0
OBJECT_SECONDS = 30.0
"""How long the pieces of an answer may take to arrive after its head."""


class CannotListen(CloudError):
    """The address is taken or not this machine's."""


class Meter:
    """Counts the bytes of all bodies, and refuses bodies that are larger than any honest one.

    Args:
        app: What answers.
        most: Bytes of the largest body.
    """

    def __init__(self, app: App, most: int) -> None:
        self._app, self._most = app, most
        self.up = self.down = 0
        """Bytes that came from devices, and that went to them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _announced(scope) > self._most:
            await PlainTextResponse("too large", 413)(scope, receive, send)
            return

        async def counted_receive() -> MutableMapping[str, Any]:
            message = await receive()
            self.up += len(message.get("body", b""))
            return message

        async def counted_send(message: MutableMapping[str, Any]) -> None:
            self.down += len(message.get("body", b""))
            await send(message)

        await self._app(scope, counted_receive, counted_send)


def _announced(scope: Scope) -> float:
    """Bytes of the body as its header has it; without a header no bound can be kept."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    if not lengths:
        return float("inf") if scope["method"] == "POST" else 0
    return int(lengths[0]) if lengths[0].isdigit() else float("inf")


class Grid(InMemoryGrid):
    """Messages to and from devices, through the state that the Fleet API serves."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Put messages where devices fetch them, each array once; gives their ids."""
        run, state = self.run.run_id, self.state
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            with no_object_id_recompute():
                self._check_message(message)
                session = state.start_session(run)
                stored, missing = state.store_message_and_object_tree(
                    remove_content_from_message(message), get_object_tree(message), session
                )
                for object_id, held in get_all_nested_objects(message).items():
                    if object_id in missing:
                        state.store_object(run, session, object_id, held.deflate())
            if stored:
                ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Answers that have come, whole; one whose pieces do not come is an error in its place."""
        return [self._whole(reply) for reply in super().pull_messages(message_ids)]

    def _whole(self, reply: Message) -> Message:
        run, number = self.run.run_id, reply.metadata.message_id

        def pull(object_id: str) -> bytes:
            content = self.state.get_object(run, object_id)
            if content is None:
                raise ObjectPullError(object_id, "it was never announced")
            if content == b"":
                raise ObjectUnavailableError(object_id)
            return content

        try:
            tree = self.state.object_store.get_object_tree(number)
            ids = [one.object_id for one in iterate_object_tree(tree)]
            contents = pull_objects(ids, pull, max_time=OBJECT_SECONDS)
            found = inflate_object_from_contents(number, contents)
            if not isinstance(found, Message):
                raise ValueError("it is no message")
        except (NoObjectInStoreError, ObjectPullError, ValueError, TypeError, KeyError) as error:
            return _failed(reply, str(error))
        finally:
            self.state.object_store.delete(number)
        return found


def _failed(reply: Message, reason: str) -> Message:
    """An answer in whose place there is only the reason why it cannot be read."""
    return make_message(metadata=reply.metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, reason))


@dataclass(frozen=True, slots=True)
class Address:
    """Where devices find the federation."""

    host: str
    port: int
    """0 takes any that is free."""
    certificate: str = ""
    private_key: str = ""


class SuperLink:
    """One run, its devices, and the bytes between them. Made by ``serving``."""

    def __init__(self, url: str, state: LinkState, grid: Grid, meter: Meter, task: int) -> None:
        self.url, self.grid, self._meter = url, grid, meter
        self._state, self._task = state, task

    def devices(self) -> list[int]:
        """Who is there now; to be asked now and then, as Flower ends a run that gives no sign of life."""
        self._state.acknowledge_task_heartbeat(self._task)
        return list(self.grid.get_node_ids())

    def traffic(self) -> tuple[int, int]:
        """Bytes of bodies so far that came from devices, and that went to them."""
        return self._meter.up, self._meter.down

    def ask(self, messages: Iterable[Message], seconds: float) -> list[Message]:
        """Send messages and gather the answers, until all are there or time is up."""
        waited = set(self.grid.push_messages(list(messages)))
        end, answers = time.monotonic() + seconds, []
        while waited and time.monotonic() < end:
            self._state.acknowledge_task_heartbeat(self._task)
            came = self.grid.pull_messages(waited)
            answers.extend(came)
            waited -= {answer.metadata.reply_to_message_id for answer in came}
            time.sleep(0.1)
        return answers


@contextmanager
def serving(address: Address, admitted: Sequence[bytes] | None, most: int) -> Iterator[SuperLink]:
    """Serve the Fleet API until the block is left.

    Args:
        address: Where.
        admitted: Public keys of the devices that may take part, PEM; every one when None.
        most: Bytes of the largest body.

    Raises:
        CannotListen: The address is taken.
    """
    factory = LinkStateFactory(
        FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory(FLWR_IN_MEMORY_DB_NAME)
    )
    state = factory.state()
    for key in admitted or ():
        state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0)
    run, task = _started_run(state)
    grid = Grid(factory)
    grid.set_run(state.get_run_info(run_ids=[run])[0])
    meter = Meter(_fleet_api(factory, closed=admitted is not None), most)
    with _served(meter, address) as url:
        yield SuperLink(url, state, grid, meter, task)


def _started_run(state: LinkState) -> tuple[int, int]:
    """A run that this process drives itself, and its task."""
    run = state.create_run(
        fab_id=None,
        fab_version=None,
        fab_hash=None,
        override_config={},
        federation_id=NOOP_FEDERATION_ID,
        federation_config=None,
        flwr_aid=NOOP_FLWR_AID,
        primary_task_type=TaskType.SERVER_APP,
    )
    task = state.get_run_info(run_ids=[run])[0].primary_task_id
    if task is None:
        raise RuntimeError("Flower made a run without a task")
    state.claim_task(task)
    state.activate_task(task)
    # Messages that are made here are of this run.
    TaskIdentity.run_id, TaskIdentity.task_id = run, task
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    return run, task


def _fleet_api(factory: LinkStateFactory, *, closed: bool) -> FastAPI:
    middleware = [
        Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
        Middleware(ProtobufTranslationMiddleware),
        Middleware(NodeAuthMiddleware),
    ]
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, middleware=middleware)
    app.state.linkstate_factory = factory
    app.state.enable_supernode_auth = closed
    app.include_router(fleet_router)
    return app


@contextmanager
def _served(app: App, address: Address) -> Iterator[str]:
    """The app on a thread of its own; gives its address."""
    config = uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        ssl_certfile=address.certificate or None,
        ssl_keyfile=address.private_key or None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
    )
    server = uvicorn.Server(config)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        sock = socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise CannotListen(
            f"{address.host}:{address.port} cannot be listened on: {error.strerror or error}",
            "Another program may have it; choose another --port.",
        ) from error
    thread = threading.Thread(target=server.run, args=([sock],), name="fleet-api", daemon=True)
    thread.start()
    end = time.monotonic() + START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.02)
    try:
        if not server.started:
            raise CannotListen("the Fleet API did not start", "The log above says why.")
        scheme = "https" if address.certificate else "http"
        host = f"[{address.host}]" if ":" in address.host else address.host
        yield f"{scheme}://{host}:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        sock.close()


def keys_in(path: Path) -> list[bytes]:
    """The public keys in a PEM file, as Flower compares them.

    Raises:
        CloudError: The file cannot be read, or holds something else.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    end = b"-----END PUBLIC KEY-----"
    try:
        blocks = [block + end for block in path.read_bytes().split(end)[:-1]]
        keys = [load_pem_public_key(block.lstrip()) for block in blocks]
    except (OSError, ValueError) as error:
        raise CloudError(f"{path} cannot be read: {error}", _KEYS_HINT) from error
    if not keys:
        raise CloudError(f"{path} holds no public key", _KEYS_HINT)
    found = [public_key_to_bytes(key) for key in keys if isinstance(key, EllipticCurvePublicKey)]
    if len(found) != len(keys):
        raise CloudError(f"{path} holds keys that are not on an elliptic curve", _KEYS_HINT)
    return list(dict.fromkeys(found))


_KEYS_HINT = "It holds what `sideplug federate key` prints, one after another."
