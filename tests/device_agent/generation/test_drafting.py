import numpy as np
import pytest

from device_agent.generation.drafting import MOST, PROBE, Draft, Drafting, Share, Tally

CHOSEN = list(range(100, 200))


class Line:
    """A cloud and a device whose times are known, and drafts that agree with a given chance."""

    def __init__(self, drafting, *, request, drafted, sent=0.0005, row=0.0005, seed=0):
        self.drafting, self.rng = drafting, np.random.default_rng(seed)
        self.request, self.drafted, self.sent, self.row = request, drafted, sent, row

    def ask(self, cloud=1.0, own=None, room=1000):
        """One request; its draft."""
        guess = [] if own is None else self.guess(own)
        draft = self.drafting.next(room, guess)
        seconds = self.request + self.drafted * draft.asked + self.sent * len(draft.own)
        self.drafting.learn_request(draft, draft.asked, seconds)
        drafted = [*draft.own, *self.guess(cloud)[: draft.asked]]
        agreed = next((i for i, (a, b) in enumerate(zip(drafted, CHOSEN)) if a != b), len(drafted))  # noqa: B905
        self.drafting.learn_choices(draft, drafted, CHOSEN[: agreed + 1], guess)
        self.drafting.learn_rows(1 + len(drafted), self.row * (1 + len(drafted)))
        return draft

    def guess(self, chance):
        agree = self.rng.random(MOST) < chance
        return [token if one else 0 for token, one in zip(CHOSEN, agree)]  # noqa: B905

    def settled(self, **options):
        """The last of many."""
        return [self.ask(**options) for _ in range(150)][-1]


def expected_rate(share, count, request, drafted, row=0.0005):
    """By its definition: the tokens of each outcome, times its probability, over the time."""
    tokens = sum((1 + n) * share**n * (1 - share if n < count else 1) for n in range(count + 1))
    return tokens / (request + row + count * (drafted + row))


def test_the_first_requests_may_draft_1_3_7_15_31_tokens_at_most():
    line = Line(Drafting(), request=0.1, drafted=0.001)
    asked = [line.ask().asked for _ in range(30)]
    assert asked[0] == 1
    assert all(count < 2 ** (number + 1) for number, count in enumerate(asked))
    assert max(asked) > 20


@pytest.mark.parametrize("request_seconds", [0.008, 0.055, 0.105])
@pytest.mark.parametrize("drafted", [0.003, 0.03])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95])
def test_the_draft_is_near_the_best_for_what_was_measured(request_seconds, drafted, share):
    line = Line(Drafting(), request=request_seconds, drafted=drafted)
    for _ in range(150):
        line.ask(share)
    rates = [expected_rate(share, k, request_seconds, drafted) for k in range(MOST + 1)]
    taken = [expected_rate(share, line.ask(share).asked, request_seconds, drafted) for _ in range(40)]  # fmt: skip
    assert np.median(taken) >= 0.88 * max(rates)


def test_what_is_always_accepted_over_a_long_way_is_drafted_at_length():
    assert Line(Drafting(), request=0.1, drafted=0.003).settled().asked > 20


def test_what_is_never_accepted_is_not_drafted_but_for_a_try_now_and_then():
    line = Line(Drafting(), request=0.01, drafted=0.005)
    line.settled(cloud=0.0)
    asked = [line.ask(cloud=0.0).asked for _ in range(2 * (PROBE + 1))]
    assert sum(asked) == 2
    assert max(asked) == 1


def test_what_pays_again_is_drafted_again():
    line = Line(Drafting(), request=0.05, drafted=0.01)
    line.settled(cloud=0.0)
    for _ in range(1000):
        line.ask(cloud=1.0)
    assert line.ask(cloud=1.0).asked > 4


def test_a_draft_that_costs_as_much_as_a_request_is_not_asked_for():
    line = Line(Drafting(), request=0.005, drafted=0.05)
    asked = [line.ask(cloud=0.8).asked for _ in range(150)][10:]
    assert np.mean(asked) < 0.1


def test_the_devices_own_guess_is_sent_where_it_is_better_than_the_clouds():
    line = Line(Drafting(), request=0.02, drafted=0.01, sent=0.0002)
    assert line.settled(cloud=0.3, own=0.95).own
    line = Line(Drafting(), request=0.02, drafted=0.002, sent=0.002)
    assert not line.settled(cloud=0.95, own=0.2).own


def test_an_own_guess_is_judged_without_being_sent():
    line = Line(Drafting(), request=0.05, drafted=0.001)
    drafts = [line.ask(cloud=1.0, own=0.0) for _ in range(40)]
    assert all(not draft.own for draft in drafts[5:])


def test_no_more_is_drafted_than_there_is_room_for():
    line = Line(Drafting(), request=0.1, drafted=0.001)
    line.settled()
    assert [line.ask(room=room).asked for room in (3, 1, 0, -2)] == [3, 1, 0, 0]
    assert line.ask(own=1.0, room=0) == Draft()


def test_a_number_is_always_asked_for():
    drafting = Drafting("6")
    line = Line(drafting, request=0.001, drafted=0.1)
    assert {line.ask(cloud=0.0, own=1.0) for _ in range(20)} == {Draft(asked=6)}
    assert line.ask(room=2) == Draft(asked=2)
    assert not drafting.adapts


def test_off_drafts_nothing():
    drafting = Drafting("off")
    line = Line(drafting, request=0.1, drafted=0.0)
    assert {line.ask(own=1.0) for _ in range(40)} == {Draft()}
    assert drafting.tally == Tally()


def test_drafted_and_accepted_tokens_are_counted():
    drafting = Drafting("4")
    drafting.learn_choices(Draft(asked=4), [1, 2, 3, 4], [1, 2, 9], [])
    drafting.learn_choices(Draft(asked=4), [1, 2, 3, 4], [1, 2, 3, 4, 5], [])
    assert drafting.tally == Tally(8, 6)
    assert drafting.tally - Tally(4, 2) == Tally(4, 4)


def test_an_answer_that_ends_within_a_draft_has_refused_nothing():
    drafting = Drafting("4")
    drafting.learn_choices(Draft(asked=4), [1, 2, 3, 4], [1, 2], [])
    assert drafting.tally == Tally(4, 2)


def test_the_share_follows_the_last_tokens():
    share = Share()
    assert share.value == pytest.approx(2 / 3)
    for _ in range(60):
        share.learn(4, False)
    assert share.value > 0.98
    for _ in range(200):
        share.learn(0, True)
    assert share.value < 0.05


def test_the_share_is_that_of_the_trials():
    rng, share = np.random.default_rng(3), Share()
    values = []
    for _ in range(3000):
        accepted = int(min(rng.geometric(1 - 0.7) - 1, 5))
        share.learn(accepted, accepted < 5)
        values.append(share.value)
    assert np.mean(values[200:]) == pytest.approx(0.7, abs=0.02)
