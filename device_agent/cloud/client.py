"""What can be asked of the cloud: messages in, messages out; nothing else here knows its addresses.

Besides the faults that the cloud answers with, anything may raise ``CloudUnreachable``, and
``protocol.errors.ProtocolError`` when the answer is not what the protocol says.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from device_agent.closing import Closing
from device_agent.cloud.connection import (
    PATIENT_TRIES,
    TRIES,
    CloudUnreachable,
    Connection,
    T,
)
from device_agent.cloud.traffic import Account, Kind, StepKind
from protocol import versions
from protocol.basis import Basis
from protocol.errors import Fault, MalformedMessage, UnsupportedVersion
from protocol.facts import BackboneFacts
from protocol.fields import Fields, read_json
from protocol.gate import SINCE
from protocol.kit import KitManifest
from protocol.limits import Limits, smaller_of
from protocol.messages import (
    Coordinates,
    PrefixKept,
    SessionOpened,
    SessionRequest,
    States,
    Tokens,
    Wants,
)
from protocol.stream import FrameReader

if TYPE_CHECKING:
    import httpx

__all__ = ["PATIENT_TRIES", "TRIES", "CloudClient", "CloudUnreachable"]

BATCH_TOKENS = 8192
BATCH_TEXTS = 256
"""One features request stays so small that its body fits the sockets' buffers: the client writes
all of it before it reads, and a cloud that answers meanwhile must never have to wait for that."""

MOST_KITS = 256
"""That one cloud may offer."""


class OtherBackbone(CloudUnreachable):
    """The address hosts another backbone than the one that was asked so far."""

    hint = "Leave that address out, or wait until the cloud hosts the same backbone again."


class CloudClient(Closing):
    """One connection that is kept open, bounded retries, a limit on everything that comes in.

    Args:
        url: ``http://host:port`` of the cloud, or several separated by commas: the next one is
            asked when one is away. They must host the same backbone.
        limits: Most this side will read; made smaller by what the cloud says in its facts.
        transport: How bytes travel; the network when None.
        sleep: Waits that many seconds between tries.
        random: Spreads the waits, so that devices do not come back all at once.
        account: Told of every request before it leaves, which it may forbid, and after.
        patience: Seconds to wait for an answer's next bytes.
        key: Sent with every request when the cloud wants one.
        authority: PEM file of whom to trust for https; those of the system when empty.
    """

    def __init__(
        self,
        url: str,
        *,
        limits: Limits | None = None,
        transport: "httpx.BaseTransport | None" = None,
        sleep: Callable[[float], None] = time.sleep,
        random: Random | None = None,
        account: Account | None = None,
        patience: float = 300.0,
        key: str = "",
        authority: str = "",
    ) -> None:
        self.limits = limits or Limits()
        self._fingerprint: str | None = None
        self._minor = 0
        """The least minor version that what was opened needs."""
        self._connection = Connection(
            url,
            limits=self.limits,
            transport=transport,
            sleep=sleep,
            random=random or Random(),
            account=account,
            patience=patience,
            key=key,
            authority=authority,
            identify=self._identify,
        )

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    @property
    def url(self) -> str:
        """Address of the cloud that is asked at present."""
        return self._connection.url

    def facts(self) -> BackboneFacts:
        """What the cloud says of its backbone.

        Raises:
            UnsupportedVersion: It speaks no version of the protocol that this side speaks.
        """
        facts = BackboneFacts.from_json(self._json("facts", "GET", "/v1/backbone"))
        _check_spoken(facts)
        self._fingerprint = facts.fingerprint
        self.limits = smaller_of(self.limits, facts.limits)
        return facts

    def tokenizer(self) -> bytes:
        """The backbone's ``tokenizer.json``."""
        return self._connection.whole(
            "tokenizer", "GET", "/v1/tokenizer", limit=self.limits.frame_bytes
        )

    def kits(self) -> list[str]:
        """Names of the recipes whose kits are ready."""
        found = Fields(self._json("kit", "GET", "/v1/kits"), "kits")
        offers = [Fields(offer, "offer") for offer in found.values("kits", MOST_KITS)]
        return [offer.label("recipe") for offer in offers if offer.flag("ready")]

    def kit(self, name: str) -> KitManifest:
        """The manifest of a kit, by recipe name or kit id.

        Raises:
            KitNotReady: It is being compiled; ask again after a while.
        """
        return KitManifest.from_json(self._json("kit", "GET", f"/v1/kits/{quote(name, safe='')}"))

    def kit_file(self, kit_id: str, name: str) -> Iterator[bytes]:
        """One file of a kit in chunks, unchecked: the manifest knows its size and sha256.

        Raises:
            CloudUnreachable: Also on the way; wrap the whole download in ``retry``.
        """
        with self._connection.answer("kit", "GET", f"/v1/kits/{kit_id}/files/{name}") as answer:
            yield from answer.chunks()

    def keep_prefix(
        self, ids: Sequence[int] | NDArray[np.uint32], tries: int = TRIES
    ) -> PrefixKept:
        """Have the cloud read tokens and keep them, unless it has; safe to repeat.

        Args:
            ids: (P,), at least one.
            tries: How often it is asked at most.
        """
        array = np.asarray(ids, np.uint32)
        content = versions.encode(Tokens(step=0, position=0, wanted=1, ids=array))
        limit = self.limits.json_bytes
        body = self._connection.whole(
            "prefix", "POST", "/v1/prefixes", content, limit=limit, tries=tries, tokens=len(array)
        )
        kept = PrefixKept.from_json(read_json(body, limit))
        if kept.position != len(array):
            raise MalformedMessage(
                reason=f"a prefix of {len(array)} tokens was sent, one of {kept.position} is kept"
            )
        return kept

    def open_session(self, request: SessionRequest, tries: int = TRIES) -> SessionOpened:
        """Begin a session; its wants hold for all of its steps."""
        if request.gate is not None:
            self._minor = SINCE
        # A classifier is personal: that it leaves is an entry of its own.
        kind: Kind = "session" if request.gate is None or request.gate.row is None else "gate"
        return SessionOpened.from_json(
            self._json(kind, "POST", "/v1/sessions", request.to_json(), tries)
        )

    def step(
        self,
        session: str,
        tokens: Tokens,
        tries: int = TRIES,
        basis: Basis | None = None,
        kind: StepKind = "prompt",
    ) -> States:
        """Send tokens, get the states of the last ``tokens.wanted`` of them.

        With a ``basis`` they come as coordinates in it.

        Safe to repeat: the cloud answers a step id it has just seen with the same bytes.
        """
        path, content = f"/v1/sessions/{session}/step", versions.encode(tokens)
        body = self._connection.whole(
            kind,
            "POST",
            path,
            content,
            limit=self.limits.frame_bytes,
            tries=tries,
            tokens=len(tokens.ids),
        )
        return _states(body, self.limits, tokens, basis)

    def crop(self, session: str, position: int, tries: int = TRIES) -> int:
        """Forget the session's tokens from ``position`` on; gives the position it is at now."""
        path = f"/v1/sessions/{session}/crop"
        data = self._json("session", "POST", path, {"position": position}, tries)
        if not isinstance(data, dict) or data.get("position") != position:
            raise MalformedMessage(reason=f"a crop to {position} was not confirmed")
        return position

    def close_session(self, session: str) -> None:
        """Let the cloud forget the session now. Asked once: it is not worth a wait."""
        path = f"/v1/sessions/{session}"
        self._connection.whole("session", "DELETE", path, limit=self.limits.json_bytes, tries=1)

    def features(
        self,
        texts: Sequence[NDArray[np.uint32]],
        wants: Wants,
        rows: Sequence[int] | None = None,
        prefix: PrefixKept | None = None,
        basis: Basis | None = None,
        sources: Sequence[int] | None = None,
    ) -> Generator[States, None, None]:
        """States of whole texts, one each, in order, as they come.

        What has come is never asked for again: a broken request goes on with the next text.

        Args:
            texts: Ids, (T,) each.
            wants: What is read of every token.
            rows: Of how many of its last tokens each text brings states; of all when None.
            prefix: What each text stands behind.
            basis: The one that the wants name, if they do.
            sources: How many of its tokens, from the first on, an encoder reads of each text.

        Raises:
            PrefixNotFound: The cloud has forgotten the prefix.
        """
        position = 0 if prefix is None else prefix.position
        sizes = [len(ids) for ids in texts] if rows is None else rows
        asked = [
            Tokens(step=step, position=position, wanted=wanted, ids=ids, source=source)
            for step, (ids, wanted, source) in enumerate(
                zip(texts, sizes, sources or [0] * len(texts), strict=True), 1
            )
        ]
        done = failures = 0
        while done < len(asked):
            try:
                batch = asked[done : _batch_end(texts, done)]
                for states in self._batch(batch, wants, prefix, basis):
                    done, failures = done + 1, 0
                    yield states
            except (CloudUnreachable, Fault) as error:
                failures += 1
                tries = PATIENT_TRIES if done else TRIES
                self._connection.pause_or_raise(failures, error, tries)

    def retry(self, call: Callable[[], T]) -> T:
        """Give what ``call`` gives, trying again while the cloud is away or too busy for now."""
        return self._connection.retry(call)

    def doubt(self) -> None:
        """Have the cloud say which backbone it hosts before anything else is asked of it."""
        self._connection.doubt()

    def _identify(self) -> None:
        """Raise ``OtherBackbone`` when the backbone is not the one of the facts, or its cloud too old."""
        if self._fingerprint is None:
            return
        limit = self.limits.json_bytes
        with self._connection.answer("facts", "GET", "/v1/backbone") as answer:
            facts = BackboneFacts.from_json(read_json(answer.read(limit), limit))
        if facts.fingerprint != self._fingerprint:
            raise OtherBackbone(self.url, f"it hosts another backbone ({facts.name}) than before")
        if not versions.speaks(facts.protocol, self._minor):
            raise OtherBackbone(self.url, "it is too old for the gate that is used")

    def _batch(
        self,
        asked: Sequence[Tokens],
        wants: Wants,
        prefix: PrefixKept | None,
        basis: Basis | None,
    ) -> Iterator[States]:
        """One features request."""
        content = b"".join(versions.encode(tokens) for tokens in asked)
        query = {"wants": json.dumps(wants.to_json(), separators=(",", ":"))}
        if prefix is not None:
            query["prefix"] = prefix.prefix
        reader, waiting = FrameReader(self.limits), iter(asked)
        size = sum(len(tokens.ids) for tokens in asked)
        with self._connection.answer(
            "features", "POST", "/v1/features", content, query, size
        ) as answer:
            for chunk in answer.chunks():
                for frame in reader.feed(chunk):
                    yield _states(frame, self.limits, next(waiting, None), basis)
        reader.close()
        left = sum(1 for _ in waiting)
        if left:
            raise MalformedMessage(reason=f"the states of {left} of {len(asked)} texts are missing")

    def _json(
        self, kind: Kind, method: str, path: str, data: object = None, tries: int = TRIES
    ) -> object:
        content = b"" if data is None else json.dumps(data).encode()
        limit = self.limits.json_bytes
        body = self._connection.whole(kind, method, path, content, limit=limit, tries=tries)
        return read_json(body, limit)


def _check_spoken(facts: BackboneFacts) -> None:
    ours = {version.split(".")[0] for version in versions.SPOKEN}
    theirs = {version.split(".")[0] for version in facts.protocol}
    if not ours & theirs:
        raise UnsupportedVersion(major=", ".join(facts.protocol), spoken=", ".join(versions.SPOKEN))


def _states(frame: bytes, limits: Limits, asked: Tokens | None, basis: Basis | None) -> States:
    """The states in a frame, if they are the ones that were asked for, and as they were."""
    message = versions.decode(frame, limits)
    if isinstance(message, Fault):
        raise message
    if isinstance(message, Coordinates) and basis is not None:
        message = basis.read(message)
    elif not isinstance(message, States) or basis is not None:
        came, expected = type(message).__name__, "States" if basis is None else "Coordinates"
        raise MalformedMessage(reason=f"{came} came where {expected} were expected")
    if asked is None:
        raise MalformedMessage(reason="more states came than texts were sent")
    drafted, spoken = len(message.drafted), len(message.spoken)
    if drafted > asked.drafts or spoken > asked.alone:
        raise MalformedMessage(
            reason=f"asked for {asked.drafts} drafts and for {asked.alone} tokens to be said,"
            f" {drafted} and {spoken} came"
        )
    first = asked.position + len(asked.ids) - asked.wanted + spoken
    rows = message.taps.shape[1]
    if message.position != first or rows != asked.wanted + drafted:
        raise MalformedMessage(
            reason=f"asked for {asked.wanted} states from position {first} on,"
            f" {rows} from {message.position} on came"
        )
    return message


def _batch_end(texts: Sequence[NDArray[np.uint32]], start: int) -> int:
    """Where the batch that begins with text ``start`` ends: one text at least."""
    tokens, end = len(texts[start]), start + 1
    while end < min(len(texts), start + BATCH_TEXTS) and tokens + len(texts[end]) <= BATCH_TOKENS:
        tokens, end = tokens + len(texts[end]), end + 1
    return end
