"""A device's part in a round: train the shared weights on its own texts, and give what that added.

It knows no engine and no sockets. What a round asks for is checked against this device's own kit, and
against what its person allows, before anything is computed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, time

import numpy as np
from numpy.typing import NDArray

from device_agent.cloud.link import Link
from device_agent.daemon.policy import within
from device_agent.data.prefix import NO_PREFIX
from device_agent.errors import DeviceError
from device_agent.federated.own import Own
from device_agent.federated.residual import sparse_update
from device_agent.federated.shared import CHECKPOINT, FOLDER, Shared, keep
from device_agent.runtime.arithmetic import one_thread
from device_agent.runtime.head import Head
from device_agent.runtime.kits import Kit
from device_agent.runtime.plugin_kinds import plugin_of
from device_agent.training.batches import FeatureRows
from device_agent.training.corpus import Corpus, collect, digests, matching_kit
from device_agent.training.evaluate import evaluate
from device_agent.training.learning import NothingToLearn
from device_agent.training.lock import training_lock
from device_agent.training.options import TrainingOptions
from device_agent.training.start import Start
from device_agent.training.trainer import Trainer
from device_agent.training.watcher import Watcher
from protocol.federation import Round, Shapes, packed
from protocol.kit import KitManifest

Floats = NDArray[np.float32]


class NotAllowed(DeviceError):
    """The person does not let this device take part."""

    hint = 'Allow it with --federated on, or `federated = "on"` in config.toml; README says what leaves then.'

    def __init__(self) -> None:
        super().__init__("learning together with other devices is switched off")


class OtherKit(DeviceError):
    """The round is about another kit or backbone than this device's."""

    hint = "Choose the recipe of that federation with --recipe, or connect to its cloud."

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"the round is about kit {got[:12]}, but this device has {expected[:12]}")


class NotNow(DeviceError):
    """The person's hours of training are over."""

    hint = "Change train_hours, or wait for them."

    def __init__(self, hours: str) -> None:
        super().__init__(f"this device trains at {hours} only")


@dataclass(frozen=True, slots=True)
class Update:
    """What local training gave."""

    added: Mapping[str, Floats]
    """New shared weights less those that came, by name."""
    tokens: int
    """Learned from."""
    loss: float
    """Mean over the steps."""
    held_out: float
    """Negative log-likelihood of the device's held-out tokens afterwards."""


@dataclass(frozen=True, slots=True)
class Received:
    """How the last weights do here."""

    tokens: int
    """Held-out ones that were scored."""
    base: float
    """Negative log-likelihood by the frozen backbone."""
    shared: float
    """By the shared weights."""


class Participant:
    """One home folder in a federation. Raises NotAllowed unless its person allows it.

    Args:
        link: The cloud and the home folder.
        watcher: Sees what happens, and may end the training of a round.
        now: The time of the day.
    """

    def __init__(
        self, link: Link, watcher: Watcher, now: Callable[[], time] = lambda: datetime.now().time()
    ) -> None:
        if link.settings.federated != "on":
            raise NotAllowed()
        self._home, self._settings = link.settings.home, link.settings
        self._watcher, self._now = watcher, now
        self._kit, self._corpus = _prepared(link, watcher)
        self._own = Own(self._home, self._kit) if self._kit.manifest.shared else None
        self._options = TrainingOptions.of(
            self._kit.manifest.schedule, {"threads": link.settings.threads, "patience": 0}
        )

    @property
    def shapes(self) -> Shapes:
        """Of the weights that are shared, by name."""
        return shapes_of(self._kit.manifest)

    def check(self, asked: Round) -> None:
        """Refuse what this device does not take part in.

        Raises:
            OtherKit: It is about another kit.
            NotNow: It is outside of the person's hours.
        """
        manifest = self._kit.manifest
        if (asked.kit, asked.fingerprint) != (manifest.id, manifest.fingerprint):
            raise OtherKit(manifest.id, asked.kit)
        if not within(self._settings.train_hours, self._now()):
            raise NotNow(self._settings.train_hours)

    def train(self, asked: Round, weights: Mapping[str, Floats]) -> Update:
        """Train the shared weights; a round that was killed goes on where it was.

        Raises:
            OtherKit, NotNow: See ``check``.
            AlreadyTraining: Another training run is going on here.
            Diverged: The rate of the round is too high for this text.
        """
        self.check(asked)
        shared = Shared(asked.kit, asked.number, asked.rounds, weights)
        options = TrainingOptions.of(
            self._kit.manifest.schedule,
            asdict(self._options)
            | {"rate": asked.rate, "epochs": asked.epochs, "seed": asked.seed + asked.number},
        )
        path = self._home / FOLDER / CHECKPOINT
        begun = dict(weights) if self._own is None else self._own.begun(asked.number, weights)
        with training_lock(self._home), one_thread():
            rows = self._corpus.training()
            trainer = Trainer(
                self._kit,
                Head(self._kit, options.threads),
                rows,
                self._held_out(),
                options,
                self._run(replace(shared, weights=begun), options, asked),
                path,
                Start(begun, rival=False, proximal=asked.proximal),
            )
            trained = trainer.train(self._watcher.training, self._watcher.stop)
            if trained.ending == "stopped":
                raise KeyboardInterrupt
            path.unlink(missing_ok=True)
        if self._own is not None:
            self._own.keep(asked.number, trained.weights, weights)
        keep(self._home, shared)
        last = trained.course.history[-1]
        added = {name: np.asarray(trained.weights[name] - array) for name, array in weights.items()}
        return Update(added, len(rows), last["loss"], last["validation"])

    def wire(self, asked: Round, update: Update) -> Mapping[str, NDArray[np.generic]]:
        """An update as it travels: all of it in 16 bits, or the share that the round asks for.

        Raises:
            MalformedMessage: A number is not finite, or too large for 16 bits.
        """
        if not asked.kept:
            return packed(update.added)
        return sparse_update(self._home, asked, update.added, self.shapes)

    def receive(self, asked: Round, weights: Mapping[str, Floats]) -> Received:
        """Keep the weights that the federation ends with, and see how they do.

        Raises:
            OtherKit, NotNow: See ``check``.
        """
        self.check(asked)
        every = dict(weights)
        if self._own is not None:
            # They come behind the last round, as those of another round would.
            every = self._own.begun(asked.number + 1, weights)
            self._own.keep(asked.number + 1, every, weights)
        keep(self._home, Shared(asked.kit, asked.number, asked.rounds, weights))
        with one_thread():
            head = Head(self._kit, self._options.threads)
            plugin = plugin_of(self._kit, every, self._options.threads)
            scored = evaluate(self._kit.manifest, head, plugin, self._held_out())
        shared = scored.base if scored.plugin is None else scored.plugin
        return Received(scored.tokens, scored.base, shared)

    def _held_out(self) -> FeatureRows:
        prefix = self._corpus.prefixed.prefix
        return self._corpus.held_out(self._options.validation_tokens, prefix)

    def _run(self, shared: Shared, options: TrainingOptions, asked: Round) -> str:
        """Names everything that decides the numbers of a round."""
        about = {
            "kit": asked.kit,
            "round": asked.number,
            "shared": shared.digest,
            "proximal": asked.proximal,
            "options": options.identity(),
            "training": digests(self._corpus.prefixed.windows),
            "validation": digests(self._corpus.split.validation),
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def shapes_of(manifest: KitManifest) -> Shapes:
    """Shapes of the weights that a kit shares, by name."""
    return {weight.name: tuple(weight.shape) for weight in manifest.federated}


def _prepared(link: Link, watcher: Watcher) -> tuple[Kit, Corpus]:
    """The kit, and everything that the person gave with its features at hand."""
    examples = link.store.examples()
    if not examples:
        raise NothingToLearn()
    kit = matching_kit(link, link.settings.recipe, watcher)
    return kit, collect(link, kit, examples, NO_PREFIX, watcher)
