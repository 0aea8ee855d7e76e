"""What comes out of verified drafts is distributed as what comes out without: by chi-square, on 16 tokens."""

import numpy as np
import pytest
from scipy import stats

from device_agent.generation.sampling import Sampling
from device_agent.generation.verification import ROWS, Verifier
from device_agent.runtime.head import Head
from protocol.messages import States
from tests.device_agent.generation.test_sampling import nucleus, softmax, top_k
from tests.device_agent.small_kit import HIDDEN, random_head, small_kit

VOCABULARY = 16
PAST = [3, 5, 5]
TRIES = 6000


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    written = random_head(4, vocabulary=VOCABULARY)
    return Head(small_kit(tmp_path_factory.mktemp("kit"), written), threads=1), written


def states_of(rows, seed=0):
    final = np.random.default_rng(seed).standard_normal((rows, HIDDEN)).astype(np.float32)
    return States(0, (), np.empty((0, rows, HIDDEN), np.float32), final)


def only(states, row):
    return States(row, (), states.taps[:, [row]], states.final[[row]])


def textbook(logits, past, sampling):
    """Probabilities by the definitions."""
    out = np.array(logits, np.float64)
    for token in set(past):
        out[token] *= sampling.repetition if out[token] < 0 else 1 / sampling.repetition
    kept = softmax(out / sampling.temperature)
    if sampling.top_k:
        kept = top_k(kept, sampling.top_k)
    return nucleus(kept, sampling.top_p) if sampling.top_p < 1 else kept


def drawn(head, states, drafted, changes):
    """How often each token came at each place where the drafts before it were accepted."""
    seen = np.zeros((1 + len(drafted), VOCABULARY))
    for seed in range(TRIES):
        verifier = Verifier(None, head, None, Sampling(seed=seed, **changes), list(PAST))
        for place, (token, _) in enumerate(verifier.choices(states, drafted)):
            seen[place, token] += 1
    return seen


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1.0},
        {"temperature": 0.6},
        {"temperature": 1.5, "top_k": 5},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.0, "repetition": 1.8},
        {"temperature": 0.9, "top_k": 9, "top_p": 0.9, "repetition": 1.3},
    ],
    ids=str,
)
def test_every_token_comes_as_often_as_without_drafts(head, changes):
    device, written = head
    states, sampling = states_of(3), Sampling(**changes)
    logits = written.logits(states.final)
    first = textbook(logits[0], PAST, sampling)
    # The likeliest token and a middling one are drafted, so that both often are and often are not accepted.
    drafted = [int(first.argmax())]
    second = textbook(logits[1], [*PAST, *drafted], sampling)
    drafted.append(int(np.argsort(second)[-2]))
    third = textbook(logits[2], [*PAST, *drafted], sampling)
    seen = drawn(device, states, drafted, changes)
    for place, expected in enumerate([first, second, third]):
        assert not seen[place][expected == 0].any()
        possible = expected > 0
        told = expected[possible] / expected[possible].sum() * seen[place].sum()
        assert stats.chisquare(seen[place][possible], told).pvalue > 1e-3
    assert seen[0].sum() == TRIES
    # A draft is accepted with the probability that the device itself gives it.
    for place, token in enumerate(drafted):
        assert seen[place + 1].sum() == seen[place][token]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_seed_draws_the_same_tokens_drafted_or_not(head, temperature):
    device, _ = head
    states, sampling = states_of(6, seed=1), Sampling(temperature, seed=7)

    def alone():
        verifier, tokens = Verifier(None, device, None, sampling, list(PAST)), []
        for row in range(6):
            (choice,) = verifier.choices(only(states, row), [])
            tokens.append(choice[0])
        return tokens

    truth = alone()
    together = Verifier(None, device, None, sampling, list(PAST)).choices(states, truth[:5])
    assert [token for token, _ in together] == truth


def test_the_first_token_that_was_not_drafted_is_the_last(head):
    device, written = head
    states = states_of(4, seed=2)
    likeliest = written.logits(states.final).argmax(axis=1).tolist()
    other = (likeliest[1] + 1) % VOCABULARY
    past = []
    verifier = Verifier(None, device, None, Sampling(), past)
    chosen = [token for token, _ in verifier.choices(states, [likeliest[0], other, likeliest[2]])]
    assert chosen == past == likeliest[:2]


def test_rows_behind_a_refusal_cost_nothing_beyond_those_computed_together(head):
    device, _ = head
    states = states_of(3 * ROWS, seed=3)
    verifier = Verifier(None, device, None, Sampling(), [])
    list(verifier.choices(states, [VOCABULARY + 1] * (3 * ROWS - 1)))
    assert verifier.rows == ROWS
    assert verifier.seconds > 0


def test_long_drafts_are_verified_like_short_ones(head):
    device, written = head
    states = states_of(2 * ROWS + 3, seed=4)
    likeliest = written.logits(states.final).argmax(axis=1).tolist()
    verifier = Verifier(None, device, None, Sampling(), [])
    chosen = list(verifier.choices(states, likeliest[:-1]))
    assert [token for token, _ in chosen] == likeliest
    assert verifier.rows == len(likeliest)
    for row, (_, logits) in zip(written.logits(states.final), chosen, strict=True):
        np.testing.assert_allclose(logits, row, atol=1e-4)


def test_states_without_the_final_one_are_refused(head):
    device, _ = head
    states = States(0, (1,), np.zeros((1, 1, HIDDEN), np.float32))
    with pytest.raises(ValueError, match="final"):
        next(Verifier(None, device, None, Sampling(), []).choices(states, []))
