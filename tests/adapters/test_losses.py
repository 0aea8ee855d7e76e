import pytest
import torch

from adapters.losses import LOSSES
from tests.adapters import reference

TOKENS, HIDDEN, VOCABULARY = 9, 24, 400


@pytest.fixture
def head():
    generator = torch.Generator().manual_seed(0)
    rows = 0.3 * torch.randn(VOCABULARY, HIDDEN, generator=generator)
    return rows, 0.5 * torch.randn(VOCABULARY, generator=generator)


@pytest.fixture
def states():
    """The base state, and one that a plugin has moved a little."""
    generator = torch.Generator().manual_seed(1)
    final = torch.randn(TOKENS, HIDDEN, generator=generator)
    return final, final + 0.2 * torch.randn(TOKENS, HIDDEN, generator=generator)


def batch_of(head, final, *, inside, outside, softcap=None):
    """Rows up to ``inside`` are the shortlist, ``outside`` are rows behind it."""
    rows, bias = head
    base = reference.logits(final, rows, bias, softcap)
    return {
        "final": final,
        "targets": torch.arange(TOKENS) * 7 % inside,
        "scored": torch.tensor([1.0, 1, 0.5, 0, 1, 2, 1, 0, 1]),
        "rest": base[:, inside:].logsumexp(1),
        "outside": rows[outside],
        "outside_bias": bias[outside],
        "rows": rows[:inside],
        "bias": bias[:inside],
    }


def whole(head, batch):
    return {**batch, "rows": head[0], "bias": head[1]}


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_autograd_s(name, softcap, head, states):
    final, state = states
    batch = batch_of(head, final, inside=300, outside=slice(320, 370), softcap=softcap)
    leaf = state.clone().requires_grad_()
    expected = reference.LOSSES[name](leaf, batch, softcap)
    expected.backward()
    value, gradient = LOSSES[name](state, batch, softcap)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_shortlist_of_the_whole_vocabulary_is_the_full_softmax(softcap, head, states):
    final, state = states
    batch = batch_of(head, final, inside=VOCABULARY, outside=slice(0, 10), softcap=softcap)
    assert torch.isinf(batch["rest"]).all()
    for ours, exact in zip(
        LOSSES["shortlist"](state, batch, softcap),
        LOSSES["full"](state, batch, softcap),
        strict=True,
    ):
        torch.testing.assert_close(ours, exact)


def test_a_sample_of_all_the_rest_is_the_full_softmax(head, states):
    final, state = states
    batch = batch_of(head, final, inside=100, outside=slice(100, VOCABULARY))
    ours, ours_gradient = LOSSES["shortlist"](state, batch, None)
    exact, exact_gradient = LOSSES["full"](state, whole(head, batch), None)
    torch.testing.assert_close(ours, exact)
    torch.testing.assert_close(ours_gradient, exact_gradient, rtol=1e-3, atol=1e-5)


def test_a_sample_of_some_of_the_rest_is_nearer_to_the_full_softmax_than_a_frozen_rest(
    head, states
):
    final, _ = states
    state = 1.3 * final  # a plugin that is surer: the rest of the vocabulary moves with it
    batch = batch_of(head, final, inside=200, outside=slice(200, 300))
    frozen = {**batch, "outside": torch.zeros(1, HIDDEN), "outside_bias": torch.zeros(1)}
    exact, exact_gradient = LOSSES["full"](state, whole(head, batch), None)

    def distance(fed):
        value, gradient = LOSSES["shortlist"](state, fed, None)
        return abs(value - exact) / exact, (gradient - exact_gradient).norm()

    (off, gradient_off), (frozen_off, frozen_gradient_off) = distance(batch), distance(frozen)
    assert off < 0.01
    assert off < 0.5 * frozen_off
    assert gradient_off < frozen_gradient_off


@pytest.mark.parametrize("name", LOSSES)
def test_tokens_that_are_not_scored_do_not_count(name, head, states):
    final, state = states
    batch = batch_of(head, final, inside=300, outside=slice(320, 370))
    others = {**batch, "targets": torch.where(batch["scored"] > 0, batch["targets"], 0)}
    value, gradient = LOSSES[name](state, batch, None)
    same, _ = LOSSES[name](state, others, None)
    assert torch.equal(value, same)
    assert not gradient[batch["scored"] == 0].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_scored_token_moves_nothing(name, head, states):
    final, state = states
    batch = batch_of(head, final, inside=300, outside=slice(320, 370))
    value, gradient = LOSSES[name](state, {**batch, "scored": torch.zeros(TOKENS)}, None)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_large_logits_do_not_overflow(name, head, states):
    final, state = (100 * part for part in states)
    batch = batch_of(head, final, inside=300, outside=slice(320, 370))
    value, gradient = LOSSES[name](state, batch, None)
    torch.testing.assert_close(value, reference.LOSSES[name](state, batch, None), rtol=1e-4, atol=0)
    assert torch.isfinite(gradient).all()
