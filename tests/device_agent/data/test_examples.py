from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from device_agent.data.chat_template import NoChatTemplate, render
from device_agent.data.examples import WINDOW, Encoded, Example, encode, windows
from device_agent.data.tokenizer import Tokenizer
from tests.device_agent.small_kit import small_facts

MARKS = ("<s>", "<|im_start|>", "<|im_end|>", "<think>")
END = 2

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETFUL = (
    "{% for message in messages %}{% if message.role == 'assistant' %}>"
    "{{ message.content if loop.last else '…' }}{% else %}{{ message.content }}{% endif %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)
THINKING = (
    "{% for message in messages %}{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<think>{% endif %}"
)
CHAT = (("user", "Name?"), ("assistant", "Ada."), ("user", "Age?"), ("assistant", "Nine."))


def byte_tokenizer(folder: Path, *, first: bool = False) -> Tokenizer:
    """One token a byte, and the marks; with ``first`` every text begins with ``<s>``."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {mark: place for place, mark in enumerate(MARKS)}
    words |= {letter: len(MARKS) + place for place, letter in enumerate(alphabet)}
    core = tokenizers.Tokenizer(models.BPE(words, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(MARKS))
    if first:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    core.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder / "tokenizer.json")


def facts_of(template: str | None) -> object:
    return small_facts(chat_template=template, eos_token="<|im_end|>", stop_tokens=(END,))


def told(encoded: Encoded) -> str:
    """What has to be foreseen, each run of it in brackets."""
    out, inside = "", False
    for token, weight in zip(encoded.ids[1:], encoded.scored, strict=True):
        if bool(weight) != inside:
            out += "[" if weight else "]"
            inside = bool(weight)
        out += MARKS[token] if token < len(MARKS) else ""
        if token >= len(MARKS) and weight:
            out += sorted(pre_tokenizers.ByteLevel.alphabet())[token - len(MARKS)]
    return out + ("]" if inside else "")


def test_every_next_token_of_a_text_counts(tmp_path):
    encoded = encode(Example(text="abc"), byte_tokenizer(tmp_path), facts_of(None))
    assert len(encoded.ids) == 3
    assert encoded.scored.tolist() == [1, 1]
    assert encoded.fed.tolist() == encoded.ids[:2].tolist()
    assert encoded.targets.tolist() == encoded.ids[1:].tolist()


def test_of_a_chat_the_answers_count_with_their_ends(tmp_path):
    encoded = encode(Example(messages=CHAT), byte_tokenizer(tmp_path), facts_of(CHATML))
    marked = told(encoded)
    assert marked == (
        "<|im_end|><|im_start|>[Ada.<|im_end|>]<|im_start|><|im_end|><|im_start|>[Nine.<|im_end|>]"
    )


def test_the_tokens_of_a_chat_are_the_templates_text(tmp_path):
    tokenizer, facts = byte_tokenizer(tmp_path), facts_of(CHATML)
    encoded = encode(Example(messages=CHAT), tokenizer, facts)
    turns = [{"role": role, "content": said} for role, said in CHAT]
    whole = tokenizer.encode(render(facts, turns, answer_next=False), special=False)
    assert encoded.ids.tolist() == whole.tolist()
    prompt = tokenizer.encode(render(facts, turns[:3], answer_next=True), special=False)
    assert encoded.ids[: len(prompt)].tolist() == prompt.tolist()
    assert encoded.scored[len(prompt) - 1] == 1


def test_a_question_behind_the_last_answer_is_left_out(tmp_path):
    tokenizer = byte_tokenizer(tmp_path)
    asked = encode(Example(messages=(*CHAT, ("user", "Why?"))), tokenizer, facts_of(CHATML))
    plain = encode(Example(messages=CHAT), tokenizer, facts_of(CHATML))
    assert asked.ids.tolist() == plain.ids.tolist()


@pytest.mark.parametrize("template", [FORGETFUL, THINKING])
def test_a_template_that_tells_the_past_differently_teaches_the_last_answer(tmp_path, template):
    encoded = encode(Example(messages=CHAT), byte_tokenizer(tmp_path), facts_of(template))
    assert told(encoded).endswith("[Nine.<|im_end|>]")
    assert told(encoded).count("[") == 1


def test_without_a_token_that_ends_turns_all_that_the_template_adds_counts(tmp_path):
    plain = "{% for message in messages %}{{ message.content }}|{% endfor %}"
    encoded = encode(Example(messages=CHAT), byte_tokenizer(tmp_path), facts_of(plain))
    assert told(encoded) == "[Ada.|][Nine.|]"


def test_without_a_template_a_chat_cannot_be_learned(tmp_path):
    with pytest.raises(NoChatTemplate):
        encode(Example(messages=CHAT), byte_tokenizer(tmp_path), facts_of(None))


def test_windows_hold_every_token_once():
    ids = np.arange(600, dtype=np.uint32)
    cut = windows(Encoded(ids, np.ones(599, np.float32)))
    assert [len(window.ids) for window in cut] == [WINDOW, WINDOW, 600 - 2 * WINDOW]
    assert np.concatenate([window.ids for window in cut]).tolist() == ids.tolist()
    assert all(len(window.scored) == len(window.ids) - 1 for window in cut)


@pytest.mark.parametrize("length", [0, 1])
def test_what_holds_nothing_to_foresee_has_no_windows(length):
    scored = np.ones(max(0, length - 1), np.float32)
    assert windows(Encoded(np.arange(length, dtype=np.uint32), scored)) == []


def test_a_window_of_one_token_is_left_out():
    cut = windows(Encoded(np.arange(9, dtype=np.uint32), np.ones(8, np.float32)), 4)
    assert [len(window.ids) for window in cut] == [4, 4]


def test_windows_in_which_nothing_counts_are_left_out():
    scored = np.zeros(11, np.float32)
    scored[9] = 1
    (window,) = windows(Encoded(np.arange(12, dtype=np.uint32), scored), 4)
    assert window.ids.tolist() == [8, 9, 10, 11]
    assert (window.first, window.targets.tolist()) == (1, [10])


def test_what_the_backbone_expects_first_stands_before_every_window(tmp_path):
    tokenizer = byte_tokenizer(tmp_path, first=True)
    encoded = encode(Example(text="abcdefg"), tokenizer, facts_of(None))
    assert encoded.lead == 1
    cut = windows(encoded, 4)
    assert [window.ids[0] for window in cut] == [0, 0, 0][: len(cut)]
    assert np.concatenate([window.ids[1:] for window in cut]).tolist() == encoded.ids[1:7].tolist()
    assert [window.scored.tolist() for window in cut] == [[0, 1, 1], [0, 1, 1]]


def test_an_example_is_named_by_its_content():
    assert Example.from_body("text", Example(text="ä").body) == Example(text="ä")
    chat = Example(messages=CHAT)
    assert Example.from_body("chat", chat.body) == chat
    assert len({Example(text="a").sha256, Example(text="b").sha256, chat.sha256}) == 3
