"""
The manifest of a compiled kit: what the files beside it are and how the device is to use them.

A device reads manifests from strangers. Every name is safe as a file's name, every size and shape
is within limits, and nothing in a manifest is a path.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from protocol.encoding import MOST_WIDTH, Measured
from protocol.errors import MalformedMessage, UnknownCodec
from protocol.facts import MOST_HIDDEN, MOST_LAYERS, MOST_TOKENS
from protocol.fields import Fields, is_file_name

LOSSES = ("full", "shortlist")
GATE_ROW, GATE_BIAS = "gate_row", "gate_bias"
"""Names of the weights, (H,) and (), of a classifier that says which tokens need the device."""
MOST_FILES = 64
MOST_WEIGHTS = 8192
MOST_AXES = 8
MOST_VALUES = 2**31
"""Numbers in one weight."""
MOST_ENCODINGS = 256
MOST_FILE_BYTES = 16 * 2**30
_MOST_STEPS = 2**31


@dataclass(frozen=True, slots=True)
class KitFile:
    """One file of a kit.

    Attributes:
        sha256: Its digest, 64 hexadecimal digits.
        size: Its bytes.
    """

    sha256: str
    size: int

    @classmethod
    def from_json(cls, data: object) -> "KitFile":
        """Read what ``KitManifest.to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "kit file")
        return cls(read.digest("sha256"), read.integer("size", 0, MOST_FILE_BYTES))


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """One weight that is trained.

    Attributes:
        name: Its name in the graphs and in the plugin's file.
        shape: Its shape; a scalar has none.
    """

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        values = 1
        for side in self.shape:
            values *= side
        if not is_file_name(self.name) or values > MOST_VALUES:
            raise MalformedMessage(reason=f"weight {self.name} of shape {self.shape}")

    @classmethod
    def from_json(cls, data: object) -> "WeightSpec":
        """Read what ``KitManifest.to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "weight")
        return cls(read.file_name("name"), read.integers("shape", MOST_AXES, 1))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The recipe's defaults for training.

    Attributes:
        rate: Peak learning rate.
        warmup: Share of the steps that warm up, 0 to 1.
        epochs: Times the texts are read at most.
        batch_tokens: Tokens a step.
        segment: Tokens in a row that stay together.
        patience: Epochs without a better validation after which training ends.
        answers: Times an epoch reads what was said in conversations; documents are read once.
    """

    rate: float
    warmup: float
    epochs: int
    batch_tokens: int
    segment: int
    patience: int
    answers: int

    @classmethod
    def from_json(cls, data: object) -> "Schedule":
        """Read what ``KitManifest.to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "schedule")
        return cls(
            rate=read.positive("rate"),
            warmup=read.number("warmup", 0.0, 1.0),
            epochs=read.integer("epochs", 1, _MOST_STEPS),
            batch_tokens=read.integer("batch_tokens", 1, _MOST_STEPS),
            segment=read.integer("segment", 1, _MOST_STEPS),
            patience=read.integer("patience", 0, _MOST_STEPS),
            answers=read.integer("answers", 1, _MOST_STEPS),
        )


@dataclass(frozen=True, slots=True)
class BasisSpec:
    """How wide the kit's public basis is; see ``protocol.basis``.

    Attributes:
        final: Coordinates of a final state, F.
        taps: Coordinates of all taps of a token together, G.
    """

    final: int
    taps: int

    @classmethod
    def from_json(cls, data: object) -> "BasisSpec":
        """Read what ``KitManifest.to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "basis")
        return cls(read.integer("final", 1, MOST_WIDTH), read.integer("taps", 0, MOST_WIDTH))


@dataclass(frozen=True, slots=True)
class KitManifest:
    """A kit: recipe and backbone, compiled.

    Attributes:
        id: Content address of recipe and backbone, safe as a file's name.
        recipe: Name of the recipe.
        recipe_json: The whole recipe, for the record.
        backbone: Name of the backbone.
        fingerprint: Digest of the backbone's weights.
        tokenizer_sha256: Digest of the tokenizer's file.
        layers: Layers of the backbone.
        hidden: H.
        vocabulary: V.
        taps: Layers that the side network reads, ascending.
        loss: "full" or "shortlist".
        shortlist: Tokens on the shortlist; not used by the full loss.
        negatives: N, rows that stand for the rest of the vocabulary.
        mask: (M, R) of the dropout mask (M, T, R), or () without dropout.
        dropout: Share of the side state that is dropped, below 1.
        cache: Shape of what the device keeps of each token for those that follow it, or () where
            tokens are independent of one another.
        weights: What is trained, in the order of the graphs' inputs.
        schedule: Defaults for training.
        head_block: Numbers that share a scale in the head's codes.
        softcap: ``cap`` of ``cap * tanh(logits / cap)``, or None.
        files: Every file of the kit, by name.
        basis: Its public basis, or None: states travel whole.
        shared: Names of the weights that a federation moves, where it is not all of them.
        encodings: What states can travel in by that basis, measured; the names of newer codecs
            are left out by a reader that does not know them.
    """

    id: str
    recipe: str
    recipe_json: Mapping[str, object]
    backbone: str
    fingerprint: str
    tokenizer_sha256: str
    layers: int
    hidden: int
    vocabulary: int
    taps: tuple[int, ...]
    loss: str
    shortlist: int
    negatives: int
    mask: tuple[int, ...]
    dropout: float
    cache: tuple[int, ...]
    weights: tuple[WeightSpec, ...]
    schedule: Schedule
    head_block: int
    softcap: float | None
    files: Mapping[str, KitFile]
    basis: BasisSpec | None = None
    encodings: tuple[Measured, ...] = ()
    shared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise MalformedMessage(reason=f"kit {self.id}: {problem}")

    @property
    def sequential(self) -> bool:
        """Whether the tokens of a text are computed with what came before them."""
        return bool(self.cache)

    @property
    def federated(self) -> tuple[WeightSpec, ...]:
        """The weights that a federation moves, in their order."""
        return tuple(one for one in self.weights if one.name in (self.shared or (one.name,)))

    @property
    def gated(self) -> bool:
        """Whether a classifier is trained along that says which tokens need the device."""
        return {GATE_ROW, GATE_BIAS} <= {weight.name for weight in self.weights}

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        plain = replace(self, recipe_json=dict(self.recipe_json), files=dict(self.files))
        return asdict(plain)

    @classmethod
    def from_json(cls, data: object) -> "KitManifest":
        """Read what ``to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "kit manifest")
        return cls(
            id=read.file_name("id"),
            recipe=read.file_name("recipe"),
            recipe_json=dict(read.mapping("recipe_json", 256)),
            backbone=read.label("backbone"),
            fingerprint=read.label("fingerprint"),
            tokenizer_sha256=read.digest("tokenizer_sha256"),
            layers=read.integer("layers", 1, MOST_LAYERS),
            hidden=read.integer("hidden", 1, MOST_HIDDEN),
            vocabulary=read.integer("vocabulary", 1, MOST_TOKENS),
            taps=read.integers("taps", MOST_LAYERS + 1),
            loss=read.one_of("loss", LOSSES),
            shortlist=read.integer("shortlist", 0, MOST_TOKENS),
            negatives=read.integer("negatives", 0, MOST_TOKENS),
            mask=read.integers("mask", 2, 1, MOST_HIDDEN),
            dropout=read.number("dropout", 0.0, 1.0),
            cache=read.optional("cache", lambda name: read.integers(name, MOST_AXES, 1)) or (),
            weights=tuple(map(WeightSpec.from_json, read.values("weights", MOST_WEIGHTS))),
            schedule=Schedule.from_json(read.value("schedule")),
            head_block=read.integer("head_block", 1, MOST_HIDDEN),
            softcap=read.maybe("softcap", read.positive),
            files={
                name: KitFile.from_json(file)
                for name, file in read.mapping("files", MOST_FILES).items()
            },
            basis=read.optional("basis", lambda name: BasisSpec.from_json(read.value(name))),
            encodings=_known(
                read.optional("encodings", lambda name: read.values(name, MOST_ENCODINGS)) or ()
            ),
            shared=read.optional("shared", lambda name: _names(read.values(name, MOST_WEIGHTS)))
            or (),
        )

    def _problem(self) -> str:
        """Say what the fields contradict each other in, or nothing."""
        names = [weight.name for weight in self.weights]
        checks = {
            f"taps {self.taps} must ascend within 0 to {self.layers}": (
                list(self.taps) == sorted(set(self.taps))
                and max(self.taps, default=0) <= self.layers
            ),
            f"mask {self.mask} must be (M, R) or empty": len(self.mask) in (0, 2),
            f"cache {self.cache} must be of 4 axes, or empty": len(self.cache) in (0, 4),
            f"dropout {self.dropout} must be below 1": self.dropout < 1,
            f"shortlist of {self.shortlist} with loss {self.loss}": (
                self.shortlist > 0 or self.loss == "full"
            ),
            "an encoding is wider than the basis": all(map(self._has_basis_for, self.encodings)),
            "two weights share a name": len(set(names)) == len(names),
            "it shares what is no weight of it": (
                set(self.shared) <= set(names) and len(set(self.shared)) == len(self.shared)
            ),
            "a file's name is not plain": all(map(is_file_name, self.files)),
        }
        return next((problem for problem, holds in checks.items() if not holds), "")

    def _has_basis_for(self, measured: Measured) -> bool:
        final, taps = measured.encoding.widths
        return self.basis is not None and final <= self.basis.final and taps <= self.basis.taps


def _names(values: Sequence[object]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise MalformedMessage(reason="kit manifest: shared must be names of weights")
    return tuple(map(str, values))


def _known(encodings: Sequence[object]) -> tuple[Measured, ...]:
    """Read the encodings whose codecs this side has."""
    found = []
    for data in encodings:
        with suppress(UnknownCodec):
            found.append(Measured.from_json(data))
    return tuple(found)
