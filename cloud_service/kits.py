"""Compiled kits: found in the cache, or made in a process of its own while others are served."""

import asyncio
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapters.errors import AdapterError
from adapters.plan import kit_id
from adapters.recipe import RECIPES
from cloud_service.backbones.block_weights import block_weights
from cloud_service.backbones.head_weights import head_weights
from cloud_service.errors import CompileFailed
from cloud_service.packages import Say
from cloud_service.registry import Pulled
from protocol.basis import FILE as BASIS
from protocol.basis import Basis
from protocol.errors import Fault, KitNotFound, KitNotReady, MalformedMessage, UnknownRecipe
from protocol.facts import BackboneFacts
from protocol.fields import read_json
from protocol.kit import KitFile, KitManifest
from protocol.messages import Wants

MANIFEST = "manifest.json"
COMPILER = (sys.executable, "-m", "cloud_service", "compile")
"""The command that makes a kit in a process of its own."""
_LARGEST_MANIFEST = 16 * 2**20
_KIT_ID = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger("sideplug.cloud")


def require_known(recipes: Sequence[str]) -> None:
    """Refuse the name of no recipe with ``CompileFailed``."""
    for name in recipes:
        if name not in RECIPES:
            raise CompileFailed(f"there is no recipe {name}", f"Known: {', '.join(RECIPES)}.")


def compile_recipe(recipe: str, pulled: Pulled, cache: Path, say: Say) -> KitManifest:
    """
    Compile the kit of a recipe for a backbone; at once when the cache has it.

    Raises:
        CompileFailed: There is no such recipe, or it cannot be compiled.

    """
    # The exporter is large, and a service never needs it in its own process.
    from adapters.compile import compile_kit
    from cloud_service.public_states import public_states, public_texts

    require_known([recipe])
    facts = pulled.record.facts()
    chosen, head = RECIPES[recipe], head_weights(pulled.folder)
    folder = cache / "kits" / kit_id(chosen, facts)
    sample = partial(public_states, pulled, cache)
    blocks = block_weights(pulled.folder) if chosen.target == "tail" else None
    try:
        texts = partial(public_texts, pulled, cache)
        return compile_kit(chosen, facts, head, folder, say, sample, blocks, texts)
    except AdapterError as error:
        raise CompileFailed(f"recipe {recipe} cannot be compiled: {error}") from error


@dataclass(frozen=True, slots=True)
class Offer:
    """A kit that is there, or soon will be."""

    id: str
    recipe: str
    ready: bool


class Kits:
    """The kits of one backbone."""

    def __init__(self, cache: Path, facts: BackboneFacts, recipes: Sequence[str]) -> None:
        """
        Args:
            cache: The service's cache; kits are in its folder ``kits``.
            facts: Of the backbone.
            recipes: Whose kits are made when they are missing.

        Raises:
            CompileFailed: There is no such recipe.

        """
        require_known(recipes)
        self._cache = cache
        self._root = cache / "kits"
        self._facts = facts
        self._recipes = tuple(recipes)
        self._read: dict[str, KitManifest] = {}
        self._bases: dict[str, Basis] = {}
        self._failed: dict[str, str] = {}

    def offers(self) -> list[Offer]:
        """Return the kits of all known recipes that are ready or on the way."""
        return list(self._offers())

    def missing(self) -> list[str]:
        """Return the recipes whose kits have to be made."""
        return [name for name in self._recipes if not self._is_ready(self._id(name))]

    def manifest(self, name: str) -> KitManifest:
        """
        Return the manifest of a kit, by the name of its recipe or its id.

        Raises:
            KitNotReady: It is being compiled.
            UnknownRecipe: No recipe of that name is offered.
            KitNotFound: No kit has that id.

        """
        if _KIT_ID.fullmatch(name):
            return self._by_id(name)
        offer = next((offer for offer in self._offers() if offer.recipe == name), None)
        if offer is None:
            raise UnknownRecipe(recipe=name, known=", ".join(o.recipe for o in self._offers()))
        if not offer.ready:
            raise KitNotReady(recipe=name)
        return self._by_id(offer.id)

    def file(self, kit: str, name: str) -> tuple[Path, KitFile]:
        """Return a file of a kit and what the manifest says of it, or raise ``KitNotFound``."""
        manifest = self._by_id(kit)
        if name not in manifest.files:
            raise KitNotFound(kit=f"{kit}/{name}")
        return self._root / kit / name, manifest.files[name]

    def basis(self, wants: Wants) -> Basis | None:
        """
        Return the basis in which an answer is to be written, None where it travels whole.

        Raises:
            KitNotFound: No kit has the id that is wanted, or it has no basis.
            MalformedMessage: It has another layers, or fewer coordinates than are wanted.

        """
        if wants.basis is None or wants.encoding is None:
            return None
        manifest = self._by_id(wants.basis)
        if manifest.basis is None:
            raise KitNotFound(kit=wants.basis)
        room, (final, taps) = manifest.basis, wants.encoding.widths
        if final > room.final or taps > room.taps or wants.layers not in ((), manifest.taps):
            raise MalformedMessage(
                reason=f"the basis has {room.final} coordinates of the final state and {room.taps}"
                f" of the taps {list(manifest.taps)}"
            )
        if manifest.id not in self._bases:
            self._bases[manifest.id] = Basis.from_bytes(
                (self._root / manifest.id / BASIS).read_bytes(),
                manifest.taps,
                manifest.hidden,
                (room.final, room.taps),
            )
        return self._bases[manifest.id]

    async def compile_missing(self) -> None:
        """Make the missing kits one after the other; what fails is logged and no longer offered."""
        for recipe in self.missing():
            log.info("compiling the kit of recipe %s", recipe)
            complaint = await _compile_apart(recipe, self._cache, self._facts.name)
            if complaint:
                self._failed[recipe] = complaint
                log.error("the kit of recipe %s could not be compiled: %s", recipe, complaint)
            else:
                log.info("the kit of recipe %s is ready", recipe)

    def _offers(self) -> Iterator[Offer]:
        for name in RECIPES:
            kit = self._id(name)
            ready = self._is_ready(kit)
            if ready or (name in self._recipes and name not in self._failed):
                yield Offer(kit, name, ready)

    def _id(self, recipe: str) -> str:
        return kit_id(RECIPES[recipe], self._facts)

    def _is_ready(self, kit: str) -> bool:
        return kit in self._read or (self._root / kit / MANIFEST).is_file()

    def _by_id(self, kit: str) -> KitManifest:
        # Only a digest becomes part of a path.
        if not _KIT_ID.fullmatch(kit) or not self._is_ready(kit):
            raise KitNotFound(kit=kit)
        if kit not in self._read:
            self._read[kit] = _read_manifest(self._root / kit)
        manifest = self._read[kit]
        if manifest.fingerprint != self._facts.fingerprint:
            raise KitNotFound(kit=kit)
        return manifest


async def _compile_apart(recipe: str, cache: Path, backbone: str) -> str:
    """Compile in another process, which gives way to the model; return its complaint, if any."""
    command = [*COMPILER, recipe, "--background", "--backbone", backbone, "--cache", str(cache)]
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaint = await process.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    if process.returncode == 0:
        return ""
    lines = complaint.decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else f"exit code {process.returncode}"


def _read_manifest(folder: Path) -> KitManifest:
    try:
        data = (folder / MANIFEST).read_bytes()
        return KitManifest.from_json(read_json(data, _LARGEST_MANIFEST))
    except Fault as error:
        raise CompileFailed(
            f"the kit in {folder} cannot be read: {error}", "Delete that folder; it is made again."
        ) from None
