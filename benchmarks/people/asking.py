"""Questions put to a voice, with or without notes in the prompt."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.people.examples import Past, Question, TaskOfPerson
from benchmarks.people.scoring import Scoring
from benchmarks.retrieval import Bm25
from benchmarks.voice import Voice

OPTION_TOKENS = 32
"""Room that is left for an option."""


def answers(
    voice: Voice,
    scoring: Scoring,
    task: TaskOfPerson,
    questions: Sequence[Question],
    size: int,
    k: int,
) -> dict[str, Any]:
    """
    Answers and their figures: the likeliest option where a question has options, else what is written.

    Args:
        voice: Who is asked.
        scoring: Of the task.
        task: Whose profile has the notes.
        questions: What is asked.
        size: Of the profile.
        k: How many notes of it are put before each question: those that resemble it most. Fewer where
            they do not fit the backbone's context.

    """
    notes = [past.note for past in task.profile(size)]
    index = Bm25(notes)
    given = []
    for question in questions:
        best = [notes[place] for place in index.best(question.text, k)]
        room = scoring.answer_tokens or OPTION_TOKENS
        prompt = prompt_with(best, question.text, lambda text, room=room: voice.fits(text, room))
        given.append(_answer(voice, scoring, question, prompt))
    return {"answers": given, **scoring.figures(given, questions)}


def prompt_with(notes: Sequence[str], question: str, fits: Callable[[str], bool]) -> str:
    """The question behind as many notes as fit, the most alike nearest to it; ``notes`` come best first."""
    for count in range(len(notes), 0, -1):
        lines = "\n".join(f"- {note}" for note in reversed(notes[:count]))
        prompt = f"Some of my notes:\n{lines}\n\n{question}"
        if fits(prompt):
            return prompt
    return question


def _answer(voice: Voice, scoring: Scoring, question: Question, prompt: str) -> str:
    if not question.options:
        return voice.write(prompt, scoring.answer_tokens)
    likelihoods = voice.log_likelihoods(prompt, question.options)
    return question.options[int(np.argmax(likelihoods))]


def words_in(profile: Sequence[Past]) -> int:
    """Words of notes and conversations, to foresee what reading them costs."""
    return sum(len(f"{past.note} {past.question} {past.answer}".split()) for past in profile)
