"""Twenty prompts of many kinds: half put as a chat, half as raw text to go on with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked, and whether the backbone's chat template is put around it."""

    text: str
    chat: bool


_CHATS = (
    "What is the capital of Portugal, and which river does it lie on?",
    "Write a short poem about a lighthouse that is being taken apart.",
    "I have three apples, eat one and buy five more. How many do I have? Explain each step.",
    "Give me four names for a small bakery that opens at five in the morning.",
    "Explain to a child of six why the moon seems to follow the car.",
    "Translate into French: The train leaves at half past eight, so please do not be late.",
    "Write a Python function that returns the longest word of a sentence.",
    "My neighbour plays the drums at night. Help me write him a polite note.",
    "List the planets of the solar system from the largest to the smallest.",
    "Sum this up in one sentence: The council met on Tuesday. It spoke about the bridge for three "
    "hours, heard two engineers and a fisherman, and in the end put the vote off until spring.",
)

_RAW = (
    "Once upon a time, in a valley where it never stopped raining,",
    "The three most important things to check before you rent a flat are",
    "def fibonacci(n: int) -> int:\n    ",
    "Dear Sir or Madam,\n\nI am writing to complain about the kettle I bought from you on",
    "Ingredients: 200 g flour, 3 eggs, half a litre of milk, a pinch of salt.\nMethod:",
    "Zwei Freunde gingen am Abend durch den Wald, als plötzlich",
    '{"name": "Ada", "born": 1815, "works": [',
    "Q: Why is the sky blue?\nA:",
    "1, 1, 2, 3, 5, 8, 13,",
    "SCENE ONE. A kitchen at night. MARTA stands at the window; the telephone rings.\n\nMARTA:",
)

PROMPTS = tuple(
    prompt
    for chat, raw in zip(_CHATS, _RAW, strict=True)
    for prompt in (Prompt(chat, chat=True), Prompt(raw, chat=False))
)
"""Chat and raw in turn, so that any beginning of the list has both."""
