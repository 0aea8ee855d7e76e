import pytest

from benchmarks.people.known_facts import FACTS
from demo.person import Question, share_right, synthetic_person


def test_the_same_seed_makes_the_same_person():
    assert synthetic_person(3) == synthetic_person(3)


def test_another_seed_makes_another_person():
    assert synthetic_person(3) != synthetic_person(4)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.values[0])
def test_no_tested_wording_is_taught(fact):
    assert not set(fact.asked) & set(fact.held_out)


def test_no_tested_question_stands_in_any_chat_or_note():
    person = synthetic_person(0)
    taught = {chat[0]["content"] for chat in person.chats} | set(person.notes)
    assert not taught & {question.text for question in person.questions}


def test_every_fact_is_told_in_a_note():
    person = synthetic_person(0)
    told = " ".join(person.notes)
    assert all(question.value in told for question in person.questions)


def test_an_answer_is_right_when_it_contains_the_value_in_any_case():
    questions = (Question("?", "lapsang souchong"), Question("?", "Ghent"))
    assert share_right(["It is Lapsang Souchong.", "Paris."], questions) == 0.5
