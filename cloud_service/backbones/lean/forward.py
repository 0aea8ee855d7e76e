"""One pass through all layers of a model of the Llama shape, as one compiled function."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloud_service.backbones.lean.activations import Codes, room_for_codes
from cloud_service.backbones.lean.attention import Heads, attend, rotate_and_append
from cloud_service.backbones.lean.compiled import compiled, digest_of_sources
from cloud_service.backbones.lean.epilogue import ADD, GATE, WRITE
from cloud_service.backbones.lean.matrices import Matrix
from cloud_service.backbones.lean.norm import norm
from cloud_service.backbones.lean.products import multiply, prepare
from cloud_service.backbones.lean.sharing import done, ledger_of, take, wait

_PHASES = 10
"""Phases of a layer."""
_TOKENS = 4
"""Tokens that are one piece of work where each is worked on by itself."""


class Layers(NamedTuple):
    """The weights of all layers. Norms are float32, those of a layer behind one another."""

    qkv: Matrix  # (queries + 2 kv) * width rows
    output: Matrix
    gate_up: Matrix  # 16 rows of gate and 16 of up in turn
    down: Matrix
    input_norms: NDArray[np.float32]  # (L * H)
    middle_norms: NDArray[np.float32]  # (L * H), before the MLP
    final_norm: NDArray[np.float32]  # (H)
    query_norms: NDArray[np.float32]  # (L * width), or none
    key_norms: NDArray[np.float32]  # the same
    epsilon: np.float32
    windows: NDArray[np.int64]  # (L), positions that are looked back at; 0 for all


class Room(NamedTuple):
    """Space for what is computed on the way, for M tokens."""

    x: NDArray[np.float32]  # (M * H), the residual stream
    normed: NDArray[np.float32]  # (M * H)
    qkv: NDArray[np.float32]
    attended: NDArray[np.float32]
    inner: NDArray[np.float32]  # (M * I)
    codes: Codes  # of the widest of them


class Kept(NamedTuple):
    """Which rows are wanted of which taps, and where they go."""

    places: NDArray[np.int64]  # (M), where each token's states go, -1 where they are not wanted
    taps: NDArray[np.int64]  # (L + 1), place of each tap in ``states``, -1 where nobody wants it
    states: NDArray[np.float32]  # (K + 1, R, H); the last is the final state
    depth: int  # how many layers are run; short of all, there is no final state


def room_for(tokens: int, layers: Layers, heads: Heads) -> Room:
    """Return space for a pass of so many tokens."""
    hidden, inner = layers.qkv.columns, layers.down.columns
    attended = heads.queries * heads.width
    return Room(
        x=np.empty(tokens * hidden, np.float32),
        normed=np.empty(tokens * hidden, np.float32),
        qkv=np.empty(tokens * layers.qkv.rows, np.float32),
        attended=np.empty(tokens * attended, np.float32),
        inner=np.empty(tokens * inner, np.float32),
        codes=room_for_codes(tokens * max(hidden, inner, attended)),
    )


def ledger_for(heads: Heads) -> NDArray[np.int64]:
    """Return the counters of one pass."""
    return ledger_of(_PHASES * heads.layers + 1)


@njit(nogil=True)
def _forward(layers, heads, batch, room, store, kept, ledger):
    rows, codes = len(batch.positions), room.codes
    for layer in range(kept.depth):
        phase = layer * _PHASES
        _norm(layers.qkv, layers, layers.input_norms, layer, rows, room, kept, layer, ledger, phase)
        multiply(layers.qkv, layer, room.normed, codes, rows, WRITE, room.qkv, ledger, phase + 1)
        _append(layers, heads, batch, layer, room.qkv, store, ledger, phase + 2)
        _attend(layers, heads, batch, layer, room, store, ledger, phase + 3)
        _prepare(layers.output, room.attended, rows, codes, ledger, phase + 4)
        multiply(layers.output, layer, room.attended, codes, rows, ADD, room.x, ledger, phase + 5)
        _norm(
            layers.gate_up,
            layers,
            layers.middle_norms,
            layer,
            rows,
            room,
            kept,
            -1,
            ledger,
            phase + 6,
        )
        multiply(
            layers.gate_up, layer, room.normed, codes, rows, GATE, room.inner, ledger, phase + 7
        )
        _prepare(layers.down, room.inner, rows, codes, ledger, phase + 8)
        multiply(layers.down, layer, room.inner, codes, rows, ADD, room.x, ledger, phase + 9)
    phase = kept.depth * _PHASES
    _norm(layers.qkv, layers, layers.final_norm, 0, rows, room, kept, kept.depth, ledger, phase)


@njit(nogil=True)
def _norm(matrix, layers, weights, layer, rows, room, kept, tap, ledger, phase):
    """Norm the residual stream for a matrix; keep what is wanted of it as a tap, if it is one."""
    hidden = layers.qkv.columns
    pieces = -(-rows // _TOKENS)
    piece = take(ledger, phase)
    while piece < pieces:
        for row in range(piece * _TOKENS, min((piece + 1) * _TOKENS, rows)):
            start = row * hidden
            norm(room.x, start, hidden, weights, layer * hidden, layers.epsilon, room.normed)
            place = kept.places[row]
            if place >= 0 and tap >= 0:
                if kept.taps[tap] >= 0:
                    kept.states[kept.taps[tap], place] = room.x[start : start + hidden]
                if tap == len(kept.taps) - 1:
                    kept.states[len(kept.states) - 1, place] = room.normed[start : start + hidden]
            prepare(matrix, room.normed, row, room.codes)
        done(ledger, phase)
        piece = take(ledger, phase)
    wait(ledger, phase, pieces)


@njit(nogil=True)
def _prepare(matrix, x, rows, codes, ledger, phase):
    pieces = -(-rows // _TOKENS)
    piece = take(ledger, phase)
    while piece < pieces:
        for row in range(piece * _TOKENS, min((piece + 1) * _TOKENS, rows)):
            prepare(matrix, x, row, codes)
        done(ledger, phase)
        piece = take(ledger, phase)
    wait(ledger, phase, pieces)


@njit(nogil=True)
def _append(layers, heads, batch, layer, qkv, store, ledger, phase):
    rows = len(batch.positions)
    pieces = -(-rows // _TOKENS)
    piece = take(ledger, phase)
    while piece < pieces:
        for row in range(piece * _TOKENS, min((piece + 1) * _TOKENS, rows)):
            _norm_heads(layers, heads, layer, row, qkv)
            rotate_and_append(heads, batch, layer, row, qkv, store)
        done(ledger, phase)
        piece = take(ledger, phase)
    wait(ledger, phase, pieces)


@njit(nogil=True)
def _norm_heads(layers, heads, layer, row, qkv):
    """Norm each query and key by itself, where the family does."""
    if len(layers.query_norms) > 0:
        width = heads.width
        start = row * (heads.queries + 2 * heads.kv) * width
        for head in range(heads.queries + heads.kv):
            weights = layers.query_norms if head < heads.queries else layers.key_norms
            norm(qkv, start + head * width, width, weights, layer * width, layers.epsilon, qkv)


@njit(nogil=True)
def _attend(layers, heads, batch, layer, room, store, ledger, phase):
    pieces = len(batch.pieces) * heads.kv
    piece = take(ledger, phase)
    while piece < pieces:
        attend(
            heads,
            batch,
            layer,
            layers.windows[layer],
            piece // heads.kv,
            piece % heads.kv,
            room.qkv,
            store,
            room.attended,
        )
        done(ledger, phase)
        piece = take(ledger, phase)
    wait(ledger, phase, pieces)


def _compiled(sources: str) -> Any:
    @compiled
    def forward(layers, heads, batch, room, store, kept, ledger):
        """
        Read the tokens whose embeddings stand in ``room.x``; any number of threads call this at once.

        Args:
            layers: ``Layers``.
            heads: ``Heads``.
            batch: ``Batch`` of M tokens.
            room: ``Room`` for at least M tokens.
            store: Keys and values, see ``attention``.
            kept: ``Kept``, whose states are written.
            ledger: Of this pass, see ``sharing``.

        """
        if sources:
            _forward(layers, heads, batch, room, store, kept, ledger)

    return forward


forward = _compiled(digest_of_sources())
