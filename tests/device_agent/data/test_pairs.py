import numpy as np
import pytest

from device_agent.data.documents import BadDocument, examples_in
from device_agent.data.examples import WINDOW, Example
from device_agent.data.pairs import SOURCE, opened, pairs, source_of
from tests.device_agent.data.test_examples import CHAT, END, byte_tokenizer
from tests.device_agent.small_kit import small_facts

START = (3, 1)


def facts_of(positions=2048, **fields):
    return small_facts(
        decoder_start=START,
        encoder_layers=2,
        eos_token="<|im_end|>",
        stop_tokens=(END,),
        positions=positions,
        vocabulary=512,
        **fields,
    )


@pytest.fixture
def tokenizer(tmp_path):
    return byte_tokenizer(tmp_path, first=True)


def parts(tokenizer, pair):
    """Source, what stands before what is foreseen, and that."""
    ids, begin = pair.ids, int(np.flatnonzero(pair.scored)[0]) + 1
    assert pair.scored[begin - 1 :].all()
    assert (pair.first, len(pair.targets)) == (begin - 1, len(ids) - begin)
    return (
        tokenizer.decode(ids[: pair.source]),
        tuple(ids[pair.source : begin].tolist()),
        tokenizer.decode(ids[begin:]),
    )


def test_each_answer_is_a_target_behind_all_that_was_said_before(tokenizer):
    found = pairs(Example(messages=CHAT), tokenizer, facts_of())
    assert [parts(tokenizer, one) for one in found] == [
        ("Name?", START, "Ada."),
        ("Name?\nAda.\nAge?", START, "Nine."),
    ]
    for one in found:
        assert one.ids[0] == 0, "what the tokenizer puts before a text"
        assert one.ids[-1] == END, "how an answer ends"
        assert not one.document


def test_what_is_asked_of_a_conversation_is_what_was_learned_from(tokenizer):
    (pair, _) = pairs(Example(messages=CHAT), tokenizer, facts_of())
    asked = tokenizer.encode(source_of([{"role": "user", "content": "Name?"}])).tolist()
    assert opened(asked, facts_of()) == pair.ids[: pair.source + len(START)].tolist()


def test_a_document_is_halves_of_windows(tokenizer):
    text = "ab" * (WINDOW // 2) + "uvwxyz"
    first, last = pairs(Example(text=text), tokenizer, facts_of())
    half = "ab" * (WINDOW // 4)
    assert parts(tokenizer, first) == (half, START, half)
    assert parts(tokenizer, last) == ("uvw", START, "xyz")


def test_a_text_of_one_token_has_nothing_to_foresee(tokenizer):
    assert pairs(Example(text="a"), tokenizer, facts_of()) == []


@pytest.mark.parametrize("positions", [64, 200, 2048])
def test_a_long_source_loses_its_end_and_what_surrounds_it_stays(tokenizer, positions):
    chat = (("user", "x" * 3000), ("assistant", "y" * 3000))
    (pair,) = pairs(Example(messages=chat), tokenizer, facts_of(positions))
    assert pair.source == min(SOURCE, positions // 2)
    assert pair.ids[0] == 0
    assert len(pair.ids) <= positions
    assert 0 < len(pair.targets) <= WINDOW


def test_without_a_token_that_ends_answers_the_first_stop_does(tokenizer):
    facts = facts_of()
    object.__setattr__(facts, "eos_token", None)
    assert pairs(Example(messages=CHAT), tokenizer, facts)[0].ids[-1] == END


def test_a_pair_in_a_file_is_a_conversation(tmp_path):
    line = b'{"source": "Long.", "target": "Short."}\n'
    (found,) = examples_in(tmp_path / "pairs.jsonl", line)
    assert found == Example(messages=(("user", "Long."), ("assistant", "Short.")))


@pytest.mark.parametrize(
    "line",
    [
        '{"source": "a"}',
        '{"source": "", "target": "b"}',
        '{"source": "a", "target": 3}',
        '{"source": "a", "target": "b", "text": "c"}',
        '{"target": "b"}',
    ],
)
def test_half_a_pair_is_refused(tmp_path, line):
    with pytest.raises(BadDocument, match="line 1"):
        examples_in(tmp_path / "pairs.jsonl", line.encode())
