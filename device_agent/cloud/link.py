"""What most commands begin with: the store, the cloud with its traffic on record, the backbone's facts."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.atomic import write_whole
from device_agent.closing import Closing
from device_agent.cloud.client import CloudClient, CloudUnreachable
from device_agent.cloud.traffic import Purpose
from device_agent.data.store import Store
from device_agent.data.tokenizer import Tokenizer
from device_agent.egress.account import Egress
from device_agent.egress.ledger import Ledger
from device_agent.egress.policy import PolicyFile
from device_agent.errors import DeviceError
from device_agent.runtime.kits import Kit, KitStore, Progress
from device_agent.settings import Settings
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


class Link(Closing):
    """The cloud as one home folder sees it. A context manager.

    Args:
        settings: Which home and which cloud.
        purpose: Why anything is sent, for the ledger.
        transport: How bytes travel; the network when None.
        sleep: Waits that many seconds before a request is tried again.
    """

    def __init__(
        self,
        settings: Settings,
        purpose: Purpose = "program",
        transport: "httpx.BaseTransport | None" = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.store = Store(settings.home / STORE)
        self.egress = Egress(PolicyFile(settings.home), Ledger(self.store, purpose))
        self._facts: BackboneFacts | None = None
        self._away = False
        self.cloud = CloudClient(
            settings.cloud,
            transport=transport,
            sleep=sleep,
            account=self.egress,
            patience=settings.patience,
            key=settings.key,
            authority=settings.ca,
        )

    def close(self) -> None:
        """Give the connection and the store back."""
        self.cloud.close()
        try:
            self.egress.flush()
        finally:
            self.store.close()

    @property
    def up(self) -> int:
        """Bytes of bodies that have left."""
        return self.egress.up

    @property
    def down(self) -> int:
        """Bytes of bodies that have come."""
        return self.egress.down

    @property
    def prefix(self) -> int:
        """Most tokens of a personal prefix: as the settings have it, none where the policy keeps it here.

        Raises:
            BadPolicy: It is not known what the policy says.
        """
        return 0 if "prefix" in self.egress.policy.never else self.settings.prefix

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

    def stay_here(self) -> bool:
        """Go by what the cloud said last, without asking; whether that and the tokenizer are here."""
        self._facts, self._away = _read_facts(self.settings.home / LAST_FACTS), True
        return self._facts is not None and self._tokenizer_path().is_file()

    def tokenizer(self) -> Tokenizer:
        """The backbone's tokenizer, fetched when it is not here yet.

        Raises:
            WrongTokenizer: Another one came than the facts name.
        """
        expected = self.facts().tokenizer_sha256
        path = self._tokenizer_path()
        if not (path.is_file() and _sha256(path) == expected):
            data = self.cloud.tokenizer()
            got = hashlib.sha256(data).hexdigest()
            if got != expected:
                raise WrongTokenizer(expected, got)
            write_whole(path, data)
        return Tokenizer.load(path)

    def _tokenizer_path(self) -> Path:
        return self.settings.home / "tokenizers" / f"{self.facts().tokenizer_sha256}.json"

    def kit(self, recipe: str | None = None, on_progress: Progress | None = None) -> Kit:
        """A kit by recipe or id, the settings' recipe by default; see ``KitStore.obtain``."""
        store, name = KitStore(self.settings.home), recipe or self.settings.recipe
        self.facts()
        # Nobody waits a second time for a cloud that has just been found away.
        known = store.find(name) if self._away else None
        return known or store.obtain(self.cloud, name, on_progress)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_facts(path: Path) -> BackboneFacts | None:
    try:
        return BackboneFacts.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, Fault):
        return None
