"""What most commands begin with: the store, the cloud with its traffic on record, the backbone's facts."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from device_agent.atomic import write_whole
from device_agent.cloud import CloudClient, CloudUnreachable, Traffic
from device_agent.errors import DeviceError
from device_agent.kits import Kit, KitStore, Progress
from device_agent.settings import Settings
from device_agent.store import Store
from device_agent.tokenizer import Tokenizer
from protocol.errors import Fault
from protocol.facts import BackboneFacts

if TYPE_CHECKING:
    import httpx

STORE = "store.sqlite"
LAST_FACTS = "backbone.json"
"""Facts of the backbone seen last, for work without the cloud."""


class WrongTokenizer(DeviceError):
    """The cloud sent another tokenizer than its facts name."""

    hint = "Something between here and the cloud changes files, or the cloud is being updated; try again."

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"tokenizer {expected[:12]} was announced, {got[:12]} came")


class Link:
    """The cloud as one home folder sees it. A context manager.

    Args:
        settings: Which home and which cloud.
        transport: How bytes travel; the network when None.
        sleep: Waits that many seconds before a request is tried again.
    """

    def __init__(
        self,
        settings: Settings,
        transport: "httpx.BaseTransport | None" = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.store = Store(settings.home / STORE)
        self.up = self.down = 0
        self._facts: BackboneFacts | None = None
        self._away = False
        self.cloud = CloudClient(
            settings.cloud,
            transport=transport,
            sleep=sleep,
            on_traffic=self._record,
            patience=settings.patience,
            key=settings.key,
            authority=settings.ca,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection and the store back."""
        self.cloud.close()
        self.store.close()

    def facts(self) -> BackboneFacts:
        """What the cloud says of its backbone; what it said last when it cannot be reached.

        Raises:
            CloudUnreachable: It cannot be reached and never was.
        """
        if self._facts is None:
            path = self.settings.home / LAST_FACTS
            try:
                self._facts = self.cloud.facts()
                if self._facts != _read_facts(path):
                    write_whole(path, json.dumps(self._facts.to_json()).encode())
            except CloudUnreachable:
                self._facts, self._away = _read_facts(path), True
                if self._facts is None:
                    raise
        return self._facts

    def tokenizer(self) -> Tokenizer:
        """The backbone's tokenizer, fetched when it is not here yet.

        Raises:
            WrongTokenizer: Another one came than the facts name.
        """
        expected = self.facts().tokenizer_sha256
        path = self.settings.home / "tokenizers" / f"{expected}.json"
        if not (path.is_file() and _sha256(path) == expected):
            data = self.cloud.tokenizer()
            got = hashlib.sha256(data).hexdigest()
            if got != expected:
                raise WrongTokenizer(expected, got)
            write_whole(path, data)
        return Tokenizer.load(path)

    def kit(self, recipe: str | None = None, on_progress: Progress | None = None) -> Kit:
        """A kit by recipe or id, the settings' recipe by default; see ``KitStore.obtain``."""
        store, name = KitStore(self.settings.home), recipe or self.settings.recipe
        self.facts()
        # Nobody waits a second time for a cloud that has just been found away.
        known = store.find(name) if self._away else None
        return known or store.obtain(self.cloud, name, on_progress)

    def _record(self, traffic: Traffic) -> None:
        self.up += traffic.up
        self.down += traffic.down
        self.store.record_traffic(self.cloud.host, traffic.kind, traffic.up, traffic.down)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_facts(path: Path) -> BackboneFacts | None:
    try:
        return BackboneFacts.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, Fault):
        return None
