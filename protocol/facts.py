"""What a device must know about the backbone before it sends a token."""

from dataclasses import asdict, dataclass
from typing import TypedDict

from protocol.errors import MalformedMessage
from protocol.fields import Fields
from protocol.limits import Limits

MOST_LAYERS = 4096
MOST_HIDDEN = 2**20
MOST_TOKENS = 2**24
"""The largest vocabulary."""
_MOST_POSITIONS = 2**31 - 1
_MOST_NAMES = 64


class EncoderFields(TypedDict):
    """What is there of a backbone with an encoder alone."""

    decoder_start: tuple[int, ...]
    encoder_layers: int


def encoder_fields(read: Fields) -> EncoderFields:
    """Read what peers that know of no encoder leave out, or raise ``MalformedMessage``."""
    start = read.optional(
        "decoder_start", lambda name: read.integers(name, _MOST_NAMES, 0, MOST_TOKENS)
    )
    layers = read.optional("encoder_layers", lambda name: read.integer(name, 0, MOST_LAYERS))
    return {"decoder_start": start or (), "encoder_layers": layers or 0}


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """The backbone as the service describes it.

    Attributes:
        name: What the service calls it.
        fingerprint: Digest of its weights; a plugin fits one fingerprint only.
        family: Its Hugging Face model type.
        layers: Number of layers; taps go from 0 to this.
        hidden: Width of a hidden state.
        vocabulary: Rows of the LM head.
        positions: Longest context.
        tokenizer_sha256: Digest of the tokenizer's file.
        chat_template: Jinja source, or None for a model that does not chat.
        bos_token: Text of the token that begins a text, or None.
        eos_token: Text of the token that ends a text, or None.
        stop_tokens: Ids that end an answer.
        dtype: What its weights are kept in: "f32", "bf16", "int8" or "int4".
        logit_softcap: ``cap`` of ``cap * tanh(logits / cap)``, or None.
        protocol: Versions spoken, each "major.minor".
        codecs: Names of the codecs that hidden states can travel in.
        limits: What the service reads at most.
        decoder_start: Ids that every target begins with; empty for a model without an encoder.
        encoder_layers: Number of the encoder's layers; 0 without one.
    """

    name: str
    fingerprint: str
    family: str
    layers: int
    hidden: int
    vocabulary: int
    positions: int
    tokenizer_sha256: str
    chat_template: str | None
    bos_token: str | None
    eos_token: str | None
    stop_tokens: tuple[int, ...]
    dtype: str
    logit_softcap: float | None
    protocol: tuple[str, ...]
    codecs: tuple[str, ...]
    limits: Limits
    decoder_start: tuple[int, ...] = ()
    encoder_layers: int = 0

    def __post_init__(self) -> None:
        if any(token >= self.vocabulary for token in self.stop_tokens):
            raise MalformedMessage(reason=f"stop tokens {self.stop_tokens} leave the vocabulary")
        if bool(self.decoder_start) != bool(self.encoder_layers):
            raise MalformedMessage(reason="an encoder and what targets begin with come together")
        if any(token >= self.vocabulary for token in self.decoder_start):
            raise MalformedMessage(reason=f"targets begin with {self.decoder_start}: no such token")

    @property
    def encodes(self) -> bool:
        """Whether sessions and texts begin with a source, which an encoder reads."""
        return self.encoder_layers > 0

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "BackboneFacts":
        """Read what ``to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "backbone facts")
        return cls(
            name=read.label("name"),
            fingerprint=read.label("fingerprint"),
            family=read.label("family"),
            layers=read.integer("layers", 1, MOST_LAYERS),
            hidden=read.integer("hidden", 1, MOST_HIDDEN),
            vocabulary=read.integer("vocabulary", 1, MOST_TOKENS),
            positions=read.integer("positions", 1, _MOST_POSITIONS),
            tokenizer_sha256=read.digest("tokenizer_sha256"),
            chat_template=read.maybe("chat_template", read.text),
            bos_token=read.maybe("bos_token", read.text),
            eos_token=read.maybe("eos_token", read.text),
            stop_tokens=read.integers("stop_tokens", _MOST_NAMES, 0, MOST_TOKENS),
            dtype=read.label("dtype"),
            logit_softcap=read.maybe("logit_softcap", read.positive),
            protocol=read.labels("protocol", _MOST_NAMES),
            codecs=read.labels("codecs", _MOST_NAMES),
            limits=Limits.from_json(read.value("limits")),
            **encoder_fields(read),
        )
