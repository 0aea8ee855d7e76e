"""How text is divided among the devices of a federation."""

import pytest

from benchmarks.division import LEAST_TOKENS, Share, by_person, by_quantity
from benchmarks.errors import TextError
from benchmarks.texts import Document


def size(text):
    return len(text.split())


def people(count=4):
    return {
        f"p{number}": [
            Document(f"{number}-{i}", " ".join(f"w{number}.{i}.{j}." for j in range(300)))
            for i in range(4)
        ]
        for number in range(count)
    }


def test_each_person_keeps_their_own_text_and_the_last_is_the_test():
    shares = by_person(people(), size, training=250, test=100)
    assert [share.name for share in shares] == ["p0", "p1", "p2", "p3"]
    for number, share in enumerate(shares):
        assert share.tokens <= 250
        assert all(f"w{number}." in text for text in (*share.training, *share.test))
        assert all(text.startswith(f"w{number}.3.") for text in share.test)


def paragraphs(count=4, each=120):
    text = "\n\n".join(" ".join(f"p{i}w{j}" for j in range(20)) for i in range(each))
    return [
        Share(n, f"p{n}", [text.replace("p", f"{n}p")], 20 * each, [f"t{n}"]) for n in range(count)
    ]


def test_quantity_gives_every_paragraph_away_once():
    shares = by_quantity(paragraphs(), size, seed=3)
    whole = [p for share in shares for text in share.training for p in text.split("\n\n")]
    before = [p for share in paragraphs() for text in share.training for p in text.split("\n\n")]
    assert sorted(whole) == sorted(before)
    assert all(share.tokens >= LEAST_TOKENS - 20 for share in shares)
    sizes = [share.tokens for share in shares]
    assert max(sizes) > 1.5 * min(sizes)
    assert [share.test for share in shares] == [["t0", "t1", "t2", "t3"]] * 4
    assert by_quantity(paragraphs(), size, seed=3) == shares
    assert by_quantity(paragraphs(), size, seed=4) != shares


def test_too_little_text_is_told():
    with pytest.raises(TextError):
        by_quantity(paragraphs(each=5), size, seed=0)
