"""A device at Flower's Fleet API: it asks for messages, has the app answer them, and sends the answers.

Flower's own node starts whatever program the server sends it. This one runs the app that is installed here,
and nothing else: no bundle is asked for, none is unpacked.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node as NodeNumber
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from device_agent.errors import DeviceError
from protocol.errors import Fault

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PAUSE = 1.0
"""Seconds between two questions for messages."""

LINGER = 2.0
"""Seconds that a device stays after its last answer."""

AGAIN = 3.0
"""Seconds before a server that is away is tried again."""


class ServerAway(DeviceError):
    """The server of the federation does not answer."""

    hint = "Check its address and whether `sideplug-cloud federate run` is up; --wait says how long to try."

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no federation answers at {url}: {reason}")


class NotAdmitted(DeviceError):
    """The server lets in only devices whose keys it knows."""

    hint = "`sideplug federate key` shows this device's public key; who runs the server adds it to --admit."

    def __init__(self, url: str) -> None:
        super().__init__(f"the federation at {url} does not know this device")


class BrokenMessage(DeviceError):
    """The server sent what is no message."""

    hint = "Whoever runs the server should use the same release of Flower; see constraints.txt."

    def __init__(self, reason: str) -> None:
        super().__init__(f"the federation sent what cannot be read: {reason}")


class BadServerAddress(DeviceError):
    """The address is none."""

    hint = "It looks like http://127.0.0.1:8473 or https://host:port."

    def __init__(self, url: str) -> None:
        super().__init__(f"{url!r} is no address of a federation")


@dataclass(frozen=True, slots=True)
class Server:
    """Where the federation is."""

    url: str
    authority: str = ""
    """PEM file of the authority behind its certificate; the system's ones when empty."""

    @property
    def address(self) -> tuple[str, bool]:
        """``host:port``, and whether TLS is used. Raises BadServerAddress."""
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            raise BadServerAddress(self.url) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
            raise BadServerAddress(self.url)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{host}:{port}", parts.scheme == "https"


class Meter:
    """Counts the bytes of all bodies; heartbeats come from a thread of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._up = self._down = 0

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Count one exchange; what went up counts even when no answer comes."""
        with self._lock:
            self._up += len(context.request.content)
        response = call_next(context)
        with self._lock:
            self._down += len(response.content)
        return response

    def take(self) -> tuple[int, int]:
        """Bytes that went up and came down since this was last asked."""
        with self._lock:
            taken = self._up, self._down
            self._up = self._down = 0
        return taken


class Node:
    """One connection to a server, as one device. Made by ``connected``."""

    def __init__(self, client: FleetHttpClient, number: int) -> None:
        self._client, self._number = client, number
        self._node = NodeNumber(node_id=number)

    def receive(self) -> Message | None:
        """The next message for this device; None when there is none."""
        answer = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not answer.messages_list:
            return None
        tree, run = answer.message_object_trees[0], answer.messages_list[0].metadata.run_id
        try:
            message = pull_and_inflate_object_from_tree(
                tree,
                make_pull_object_fn_protobuf(self._client.PullObject, self._node, run),
                make_confirm_message_received_fn_protobuf(
                    self._client.ConfirmMessageReceived, self._node, run
                ),
                return_type=Message,
            )
        except (ValueError, TypeError, KeyError) as error:
            raise BrokenMessage(str(error)) from error
        # A message's id is that of its bytes, so it cannot stand in them.
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def context(self, message: Message) -> Context:
        """What an app is called with; nothing is kept in it."""
        return Context(
            run_id=message.metadata.run_id,
            node_id=self._number,
            node_config={},
            state=RecordDict(),
            run_config={},
            series_id=0,
        )

    def send(self, reply: Message) -> None:
        """Send an answer, its arrays in pieces."""
        run = reply.metadata.run_id
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            answer = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[get_object_tree(reply)],
                    clientapp_runtime_list=[0.0],
                )
            )
            push_objects(
                get_all_nested_objects(reply),
                make_push_object_fn_protobuf(
                    self._client.PushObject, self._node, run, answer.session_id
                ),
                object_ids_to_push=set(answer.objects_to_push),
            )


@contextmanager
def connected(
    server: Server, key: "EllipticCurvePrivateKey | None", meter: Meter
) -> Iterator[Node]:
    """A node that the server counts as present, until the block is left.

    Args:
        server: Where to.
        key: Known to the server, which then need not be asked to register this device; one for
            this connection alone when None.
        meter: Counts what goes to and fro.

    Raises:
        NotAdmitted: The server does not take this device.
        httpx.HTTPError: It does not answer.
    """
    address, secure = server.address
    private, public = generate_key_pairs() if key is None else (key, key.public_key())
    named = public_key_to_bytes(public)
    client = FleetHttpClient.from_server_address(
        address,
        not secure,
        (server.authority or None) if secure else None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(private, public),
            meter,
        ],
    )
    with client:
        number = _enter(client, server, named, register=key is None)
        beat = HeartbeatSender(lambda: _alive(client, number))
        beat.start()
        try:
            yield Node(client, number)
        finally:
            if beat.is_running:
                beat.stop()
            _leave(client, number, unregister=key is None)


def _enter(client: FleetHttpClient, server: Server, named: bytes, *, register: bool) -> int:
    try:
        if register:
            client.RegisterNode(RegisterNodeFleetRequest(public_key=named))
        asked = ActivateNodeRequest(public_key=named, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        return int(client.ActivateNode(asked).node_id)
    except httpx.HTTPStatusError as error:
        if error.response.is_client_error:
            raise NotAdmitted(server.url) from error
        raise


def _alive(client: FleetHttpClient, number: int) -> bool:
    """One sign of life; a failure is tried again, and the loop that asks for messages sees the cause."""
    asked = SendNodeHeartbeatRequest(
        node=NodeNumber(node_id=number), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL
    )
    try:
        return bool(client.SendNodeHeartbeat(asked).success)
    except (httpx.HTTPError, RuntimeError):
        return False


def _leave(client: FleetHttpClient, number: int, *, unregister: bool) -> None:
    # The server may be gone already; it forgets a device that it hears nothing of.
    with suppress(httpx.HTTPError, RuntimeError):
        client.DeactivateNode(DeactivateNodeRequest(node_id=number))
        if unregister:
            client.UnregisterNode(UnregisterNodeFleetRequest(node_id=number))


def take_part(
    server: Server,
    app: ClientApp,
    *,
    key: "EllipticCurvePrivateKey | None",
    wait: float,
    answered: Callable[[Message, Exception | None], bool],
    leaving: Callable[[int], None],
    traffic: Callable[[int, int], None],
    note: Callable[[str], None],
) -> None:
    """Answer the server's messages until ``answered`` says that it was the last one.

    A server that goes away is waited for: it may be started again, and goes on where it was.

    Args:
        server: Where to.
        app: Answers messages.
        key: See ``connected``.
        wait: Seconds for which a server that does not answer is tried.
        answered: Told of every message that was answered, and why it was refused if it was; whether
            it was the last.
        leaving: Told how many bytes of an answer are about to leave; whatever it raises keeps them here.
        traffic: Told of bytes that went up and came down.
        note: Told what a person should know.

    Raises:
        ServerAway: It has not answered for ``wait`` seconds.
        NotAdmitted, BadServerAddress: See ``connected``.
    """
    meter, deadline, known_away = Meter(), time.monotonic() + wait, False
    while True:
        try:
            with connected(server, key, meter) as node:
                if known_away:
                    note("the server is back")
                known_away = False
                while not _exchange(node, app, answered, leaving):
                    deadline = time.monotonic() + wait
                    traffic(*meter.take())
                # The server takes answers of devices that are there; this one is to be read before it goes.
                time.sleep(LINGER)
                return
        except (httpx.HTTPError, ObjectPullError, ObjectPushError, OSError) as error:
            if time.monotonic() >= deadline:
                raise ServerAway(server.url, _reason(error)) from error
            if not known_away:
                note(f"the server is away ({_reason(error)}); trying again")
            known_away = True
            time.sleep(AGAIN)
        finally:
            traffic(*meter.take())


def _exchange(
    node: Node,
    app: ClientApp,
    answered: Callable[[Message, Exception | None], bool],
    leaving: Callable[[int], None],
) -> bool:
    """Answer one message if there is one; whether it was the last."""
    message = node.receive()
    if message is None:
        time.sleep(PAUSE)
        return False
    refusal: Exception | None = None
    try:
        reply = app(message, node.context(message))
    except (DeviceError, Fault, ValueError) as error:
        # Its name and no more: a sentence may hold a path or a number of this device.
        reply = Message(
            Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__), reply_to=message
        )
        refusal = error
    leaving(sum(len(held.deflate()) for held in get_all_nested_objects(reply).values()))
    node.send(reply)
    return answered(message, refusal)


def _reason(error: Any) -> str:
    return str(error).split("\n")[0] or type(error).__name__
