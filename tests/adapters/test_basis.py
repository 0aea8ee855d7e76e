"""The public basis against its definition: curvature by autograd, principal directions by SVD."""

import numpy as np
import pytest
import torch

from adapters.basis import fisher, make_basis
from adapters.encodings import PRICES, make_wire, rows_of, sections_of
from adapters.head import HeadWeights
from adapters.plan import make_plan
from protocol import versions
from protocol.codecs import codec_named
from protocol.encoding import width_of
from protocol.messages import States
from tests.adapters.samples import HIDDEN, LADDER, SPA, public, tiny_facts, tiny_head


@pytest.fixture(scope="module")
def states():
    return public()


@pytest.mark.parametrize("bias", [False, True])
def test_the_fisher_matrix_is_the_curvature_of_the_divergence(bias):
    head = tiny_head(bias=bias)
    final = torch.from_numpy(public(5).final)
    logs = torch.log_softmax(head.logits(final), 1).double()

    def divergence(move: torch.Tensor) -> torch.Tensor:
        moved = HeadWeights(head.rows.double(), head.bias, None)
        logits = (final.double() + move) @ moved.rows.t() + (0 if head.bias is None else head.bias)
        return (logs.exp() * (logs - torch.log_softmax(logits, 1))).sum(1).mean()

    still = torch.zeros(HIDDEN, dtype=torch.float64)
    curvature = torch.autograd.functional.hessian(divergence, still)
    assert torch.allclose(fisher(final, head), curvature, atol=1e-5)


def test_an_error_costs_half_its_square_in_every_coordinate(states):
    head = tiny_head()
    basis = make_basis(states, head, 8)
    exact = torch.log_softmax(head.logits(torch.from_numpy(states.final)), 1)
    rng = np.random.default_rng(1)
    written = basis.written(states, basis.widths)
    for part in (slice(0, 8), slice(20, 40)):
        moved = basis.written(states, basis.widths)
        error = 0.1 * rng.standard_normal(written.final[:, part].shape).astype(np.float32)
        moved.final[:, part] += error
        back = torch.log_softmax(head.logits(torch.from_numpy(basis.read(moved).final)), 1)
        cost = float((exact.exp() * (exact - back)).sum(1).mean())
        assert cost == pytest.approx(0.5 * float(np.square(error).sum(1).mean()), rel=0.25)


def test_the_final_state_comes_back_from_all_of_its_coordinates(states):
    basis = make_basis(states, tiny_head(), 8)
    back = basis.read(basis.written(states, basis.widths))
    assert np.allclose(back.final, states.final, atol=1e-2)


def test_coordinates_of_the_final_state_repeat_nothing_and_fall(states):
    basis = make_basis(states, tiny_head(), 8)
    final = basis.written(states, basis.widths).final
    together = np.cov(final.T)
    sizes = np.diag(together)
    assert (np.diff(sizes) <= 1e-3 * sizes[0]).all()
    assert np.abs(together - np.diag(sizes)).max() < 1e-2 * sizes[0]


def test_the_taps_directions_are_the_principal_ones_of_evened_channels(states):
    basis = make_basis(states, tiny_head(), 16)
    flat = np.concatenate(list(states.taps), axis=1).astype(np.float64)
    evened = (flat - flat.mean(0)) / flat.std(0, ddof=1)
    _, _, axes = np.linalg.svd(evened, full_matrices=False)
    best = evened @ axes[:16].T @ axes[:16]
    back = basis.read(basis.written(states, basis.widths)).taps
    ours = (np.concatenate(list(back), axis=1) - flat.mean(0)) / flat.std(0, ddof=1)
    lost, least = (np.square(evened - some).sum() for some in (ours, best))
    assert lost == pytest.approx(least, rel=0.02)


def test_a_channel_that_never_moves_does_no_harm():
    states = public(100)
    states.taps[0, :, 7] = 4.0
    basis = make_basis(states, tiny_head(), 8)
    back = basis.read(basis.written(states, basis.widths))
    assert np.allclose(back.taps[0, :, 7], 4.0)


def test_without_taps_there_is_only_the_final_state():
    states = public(100)
    assert make_basis(states, tiny_head(), 0).taps is None
    bare = States(0, (), states.taps[:0], states.final)
    assert make_basis(bare, tiny_head(), 8).taps is None


def test_a_byte_that_costs_more_buys_fewer_bits():
    sizes = (10 * 0.97 ** np.arange(300)).tolist()
    found = [sections_of(sizes, price) for price in PRICES]

    def bytes_of(sections):
        return sum(codec_named(one.codec).size((one.width,)) for one in sections)

    taken = [bytes_of(sections) for sections in found]
    assert taken == sorted(taken)
    assert taken[0] < taken[-1]
    assert [one.codec for one in sections_of(sizes, 1e9)] == ["int4"]
    assert all(width_of(sections) == 300 for sections in found)
    assert [one.codec for one in sections_of(sizes, 1e-12)] == ["int8"]
    assert width_of(sections_of(sizes, 1e-12)) == 300


def test_the_same_states_make_the_same_basis(states):
    first, again = (make_basis(states, tiny_head(), 16) for _ in range(2))
    assert first.to_bytes() == again.to_bytes()


@pytest.mark.parametrize("recipe", [LADDER, SPA], ids=["ladder", "spa"])
def test_each_encoding_costs_what_was_measured(recipe, states):
    facts, head = tiny_facts(), tiny_head()
    plan, target = make_plan(recipe, facts)
    states = public(taps=len(plan.layers))
    wire = make_wire(states, target, head, 12)
    assert wire.encodings
    costs = [one.kl for one in wire.encodings]
    assert costs[-1] < costs[0]
    assert costs[-1] < 0.01
    text = rows_of(states, slice(450, 600))
    exact = torch.log_softmax(head.logits(torch.from_numpy(text.final)), 1)
    for one in wire.encodings:
        written = wire.basis.written(text, one.encoding.widths)
        back = wire.basis.read(versions.decode(versions.encode(written, one.encoding)))
        found = torch.log_softmax(head.logits(torch.from_numpy(back.final)), 1)
        base = float((exact.exp() * (exact - found)).sum(1).mean())
        assert one.kl >= base - 1e-4
        row = wire.basis.written(rows_of(text, slice(0, 1)), one.encoding.widths)
        assert one.bytes == len(versions.encode(row, one.encoding))
