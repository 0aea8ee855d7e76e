"""One good example of each message and document."""

from dataclasses import replace

import numpy as np

from protocol.codecs import CODEC_NAMES
from protocol.encoding import Encoding, Measured, Section
from protocol.errors import Fault, SessionNotFound
from protocol.facts import BackboneFacts
from protocol.gate import Gate
from protocol.kit import BasisSpec, KitFile, KitManifest, Schedule, WeightSpec
from protocol.limits import Limits
from protocol.messages import (
    Candidates,
    Coordinates,
    Message,
    PrefixKept,
    SessionOpened,
    SessionRequest,
    States,
    Tokens,
    Wants,
)

TOKENS = Tokens(
    step=0x0102030405060708, position=3, wanted=1, ids=np.array([1, 258, 65539], np.uint32)
)


def numbers(*shape: int) -> np.ndarray:
    """Exact eighths from -6.25 to 6.25, the same on every machine."""
    count = np.arange(np.prod(shape), dtype=np.int64)
    return ((count * 37 % 101 - 50) / 8).astype(np.float32).reshape(shape)


# 70 is one whole block of int8 and a short one.
STATES = States(
    position=41,
    layers=(0, 3, 30),
    taps=numbers(3, 2, 70),
    final=numbers(2, 70) + np.float32(1),
    log_z=np.array([10.5, 11.25], np.float32),
    candidates=Candidates(
        np.array([[7, 300], [9, 70000]], np.uint32),
        np.array([[9.5, 8.25], [10.0, -1.5]], np.float32),
    ),
)
COORDINATES = Coordinates(
    position=41,
    final=numbers(2, 70),
    taps=numbers(2, 40) + np.float32(1),
    log_z=STATES.log_z,
    candidates=STATES.candidates,
    drafted=np.array([70000], np.uint32),
)
BARE_COORDINATES = Coordinates(0, np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32))
ENCODING = Encoding(
    final=(Section("int8", 32), Section("int6", 38)), taps=(Section("int4", 33), Section("f16", 7))
)
DRAFTING_TOKENS = replace(TOKENS, drafts=5)
GATED_TOKENS = replace(TOKENS, alone=6)
SOURCE_TOKENS = replace(TOKENS, position=0, source=2, drafts=5)
DRAFTED_STATES = replace(STATES, drafted=np.array([70000], np.uint32))
SPOKEN_STATES = States(
    position=41,
    layers=(),
    taps=numbers(0, 1, 70),
    final=numbers(1, 70),
    spoken=np.array([7, 70000], np.uint32),
)
SPOKEN_COORDINATES = replace(
    COORDINATES,
    final=COORDINATES.final[:1],
    taps=COORDINATES.taps[:1],
    log_z=None,
    candidates=None,
    drafted=np.empty(0, np.uint32),
    spoken=SPOKEN_STATES.spoken,
)
BARE_STATES = States(position=0, layers=(), taps=np.zeros((0, 1, 2), np.float32))
FAULT = SessionNotFound(session="früh")

WANTS = Wants(layers=(0, 3, 30), final=True, log_z=True, candidates=8, codec="f16")
ENCODED_WANTS = replace(WANTS, basis="ladder-0123abcd", encoding=ENCODING)
SESSION_REQUEST = SessionRequest(WANTS, prefix="0a1b")
GATED_REQUEST = SessionRequest(WANTS, gate=Gate(0.25, (0.5, -2.0, 1e-9), -0.125))
SESSION_OPENED = SessionOpened(session="aB3-_", position=0, limit=2048, idle_seconds=600.0)
PREFIX_KEPT = PrefixKept(prefix="0a1b", position=1024, idle_seconds=3600.0)

FACTS = BackboneFacts(
    name="tiny",
    fingerprint="0123abcd",
    family="llama",
    layers=4,
    hidden=64,
    vocabulary=512,
    positions=2048,
    tokenizer_sha256="a" * 64,
    chat_template="{{ messages }}\n",
    bos_token=None,
    eos_token="<|end|>",
    stop_tokens=(2, 511),
    dtype="f32",
    logit_softcap=30.0,
    protocol=("1.2",),
    codecs=CODEC_NAMES,
    limits=Limits(tokens=4096),
)

ENCODING_FACTS = replace(FACTS, decoder_start=(2, 0), encoder_layers=6)

KIT = KitManifest(
    id="ladder-0123abcd",
    recipe="ladder",
    recipe_json={"name": "ladder", "width": 32, "betas": [0.9, 0.95]},
    backbone="org/Tiny",
    fingerprint="0123abcd",
    tokenizer_sha256="a" * 64,
    layers=4,
    hidden=64,
    vocabulary=512,
    taps=(0, 2, 4),
    loss="shortlist",
    shortlist=256,
    negatives=64,
    mask=(4, 32),
    dropout=0.1,
    cache=(2, 2, 4, 16),
    weights=(WeightSpec("blocks.0.down", (64, 32)), WeightSpec("gate", ())),
    schedule=Schedule(
        rate=1e-3, warmup=0.1, epochs=10, batch_tokens=512, segment=64, patience=2, answers=4
    ),
    head_block=32,
    softcap=None,
    files={"infer.onnx": KitFile("b" * 64, 1234), "head.codes": KitFile("c" * 64, 0)},
    basis=BasisSpec(70, 40),
    encodings=(Measured(ENCODING, 0.004, 152),),
)

DOCUMENTS = (
    FACTS,
    ENCODING_FACTS,
    KIT,
    WANTS,
    ENCODED_WANTS,
    SESSION_REQUEST,
    GATED_REQUEST,
    GATED_REQUEST.gate,
    SESSION_OPENED,
    PREFIX_KEPT,
    FACTS.limits,
)
"""Everything that travels as JSON and is no fault."""


def same(first: object, second: object) -> bool:
    """Say whether two messages are equal, arrays to the last bit and in dtype."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Fault) and isinstance(second, Fault):
        return first.to_json() == second.to_json()
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        same_form = first.shape == second.shape and first.dtype == second.dtype
        return same_form and first.tobytes() == second.tobytes()
    if isinstance(first, Tokens | States | Coordinates | Candidates):
        names = type(first).__slots__
        return all(same(getattr(first, name), getattr(second, name)) for name in names)
    return first == second


MESSAGES: tuple[Message, ...] = (
    TOKENS,
    DRAFTING_TOKENS,
    SOURCE_TOKENS,
    GATED_TOKENS,
    STATES,
    DRAFTED_STATES,
    SPOKEN_STATES,
    BARE_STATES,
    COORDINATES,
    SPOKEN_COORDINATES,
    BARE_COORDINATES,
    FAULT,
)
