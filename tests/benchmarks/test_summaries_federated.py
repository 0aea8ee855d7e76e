"""How summaries are divided among clients."""

import pytest

from benchmarks.errors import TextError
from benchmarks.package_summaries import Summary
from benchmarks.summaries_federated import LEAST, divided

PAIRS = [Summary(f"long text {n}", f"{n}") for n in range(60)]


def test_every_pair_goes_to_one_client_and_every_client_has_some():
    shares = divided(PAIRS, 4, seed=0)
    assert [one for share in shares for one in share] == PAIRS
    sizes = [len(share) for share in shares]
    assert min(sizes) >= LEAST
    assert max(sizes) > 2 * min(sizes)
    assert divided(PAIRS, 4, seed=0) == shares
    assert [len(share) for share in divided(PAIRS, 4, seed=1)] != sizes


def test_too_few_pairs_are_refused():
    assert list(map(len, divided(PAIRS[:16], 4, seed=0))) == [4, 4, 4, 4]
    with pytest.raises(TextError, match="15 summaries are too few for 4 clients"):
        divided(PAIRS[:15], 4, seed=0)
