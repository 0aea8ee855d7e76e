import json

import pytest

from device_agent import cli
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.questioning import WORDINGS, made_questions, make_questions
from device_agent.data.questions import asks_the_same, beside_their_notes, facts_in, source_of
from device_agent.data.store import Store
from device_agent.training.forgetting import choose, forget
from tests.device_agent.home import toy_home

FACTS = {
    "My dog is called Rex.": ("What is my dog called?", "Your dog is called Rex."),
    "My cat's name is Old Tom.": ("What is my cat called?", "Your cat's name is Old Tom."),
    "My favourite tea is rooibos.": (
        "What is my favourite tea?",
        "Your favourite tea is rooibos.",
    ),
    "My sister lives in Ghent with my niece.": (
        "Where does my sister live?",
        "Your sister lives in Ghent with your niece.",
    ),
    "My brother studies in Delft.": ("Where does my brother study?", "Your brother studies in Delft."),
    "I live in Oslo.": ("Where do I live?", "You live in Oslo."),
    "I am allergic to walnuts.": ("What am I allergic to?", "You are allergic to walnuts."),
    "I'm afraid of heights.": ("What am I afraid of?", "You are afraid of heights."),
    "I am a carpenter.": ("What am I?", "You are a carpenter."),
    "I play the bassoon in my own band.": (
        "What do I play?",
        "You play the bassoon in your own band.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("note", FACTS)
def test_a_plain_fact_becomes_questions_and_an_answer(note):
    (fact,) = facts_in(note)
    assert (fact.questions[0], fact.answer) == FACTS[note]
    assert len(set(fact.questions)) >= 5
    assert all(value not in " ".join(fact.questions) for value in ("Rex", "Ghent", "bassoon"))


@pytest.mark.parametrize(
    "text",
    ["Rain again.", "Is my dog called Rex?", "My goodness!", "He said: my dog is called Rex", "", "I.",
     "My " + "very " * 60 + "old dog is called Rex."],
)  # fmt: skip
def test_what_tells_no_plain_fact_makes_no_question(text):
    assert list(facts_in(text)) == []


def test_facts_are_found_among_other_sentences():
    text = "Rain again. My dog is called Rex. We walked for hours!\n\nI live in Oslo.\nWho knows?"
    assert [fact.answer for fact in facts_in(text)] == [
        "Your dog is called Rex.",
        "You live in Oslo.",
    ]


@pytest.mark.parametrize(
    ("said", "same"),
    [("What name did I give my dog? It is called what", False), ("How is my dog called?", True),
     ("What is the dog called?", False), ("What is my dog called?", False), ("Your dog is Rex.", False),
     ("Where do I live?", False), ("Is my dog called Rex? Or Max?", False),
     ("What is the name of my dog?", True), ("Which name did I give my dog?", True),
     ("What is my name?", False), ("What does my old brown dog eat?", False)],
)  # fmt: skip
def test_a_wording_of_the_backbone_has_to_ask_the_same_of_the_person(said, same):
    assert asks_the_same(said, "What is my dog called?") is same


def test_a_question_that_names_nothing_has_no_other_wording():
    assert not asks_the_same("What is my name?", "What am I?")
    assert not asks_the_same("Where do I work?", "Where does my brother work?")
    assert asks_the_same("What is it that I am allergic to?", "What am I allergic to?")


@pytest.fixture
def world(tmp_path, monkeypatch):
    with toy_home(tmp_path, limit=1000) as (cloud, settings):
        for name in ("home", "cloud", "recipe", "codec", "threads"):
            monkeypatch.setenv(f"SIDEPLUG_{name.upper()}", str(getattr(settings, name)))
        with Store(settings.home / STORE) as store:
            store.add_examples([Example(text="My dog is called Rex."), Example(text="Rain.")], "x")
        yield cloud, settings


@pytest.fixture
def home(world):
    return world[1]


def examples(settings):
    with Store(settings.home / STORE) as store:
        return store.examples()


def told(capsys, *words):
    code = cli.main([*words, "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def test_questions_are_made_once_listed_and_dropped(home, capsys):
    made = told(capsys, "questions", "make", "--plain")
    assert made["added"] == made["questions"] > 4
    assert told(capsys, "questions", "make", "--plain")["added"] == 0
    rows = told(capsys, "questions", "list")["questions"]
    assert {row["answer"] for row in rows} == {"Your dog is called Rex."}
    assert told(capsys, "questions", "drop", str(rows[0]["id"]))["examples"] == 1
    assert told(capsys, "questions", "list")["questions"] == rows[1:]


def test_only_what_was_made_here_is_dropped_here(home, capsys):
    assert cli.main(["questions", "drop", "1"]) == 1
    assert len(examples(home)) == 2
    assert "no example 1" in capsys.readouterr().err


def test_when_a_note_is_forgotten_so_are_its_questions(home):
    with Link(home) as link:
        make_questions(link, plain=True)
        made = made_questions(link.store.examples())
        assert {one.source for one in made} == {source_of(link.store.examples()[0].sha256)}
        gone = forget(link, choose(link.store, [1]))
        assert gone.examples == len(made) + 1
        assert [one.example.text for one in link.store.examples()] == ["Rain."]


def test_questions_are_learned_beside_their_notes(home):
    with Link(home) as link:
        link.store.add_examples([Example(text="I live in Oslo.")], "x")
        make_questions(link, plain=True)
        stored = link.store.examples()
    found = beside_their_notes(stored)
    assert sorted(one.id for one in found) == [one.id for one in stored]
    answers = [dict(one.example.messages).get("assistant", one.example.text) for one in found]
    rex, oslo = "Your dog is called Rex.", "You live in Oslo."
    assert answers[:2] == ["My dog is called Rex.", rex]
    assert answers.index("Rain.") == answers.count(rex) + 1
    assert answers[answers.index("I live in Oslo.") + 1 :] == [oslo] * answers.count(oslo)


def test_the_backbone_is_asked_for_wordings_and_its_nonsense_is_left_out(world):
    cloud, settings = world
    with Link(settings) as link:
        added = make_questions(link)
        asked = {one.example.messages[0][1] for one in made_questions(link.store.examples())}
        sent = [link.tokenizer().decode(step.ids.tolist()) for step in cloud.backbone.steps]
    assert len(sent) == len(WORDINGS)
    # The toy's tokenizer knows small letters only.
    assert all("dog" in text and "ex" not in text for text in sent), "the answer stays here"
    (fact,) = facts_in("My dog is called Rex.")
    assert asked == {*fact.questions}
    assert added == len(asked)


def test_plain_questions_need_no_cloud(home):
    from dataclasses import replace

    with Link(replace(home, cloud="http://127.0.0.1:9"), sleep=lambda _: None) as link:
        assert make_questions(link, plain=True) > 4
