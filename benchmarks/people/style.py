"""Messages in the person's own manner: greeting, filler, casing, ending and farewell are always theirs."""

import random
from dataclasses import dataclass

from benchmarks.people.examples import Past, Question, TaskOfPerson
from benchmarks.people.wording import Words, words

GREETINGS = ("Ahoy", "Dearest", "Hey hey", "Good day", "Salut", "My dear", "Hello there", "Oh")
FILLERS = (
    "just so you know,", "imagine,", "in all haste:", "believe it or not,", "as promised,",
    "between us,", "for the record,", "guess what,",
)  # fmt: skip
ENDINGS = ("!!", "...", ", alas.", ", hurrah!", " :-)", ", so there.", ", you see.", ", full stop.")
FAREWELLS = (
    "Toodle-pip", "Yours in haste", "Warm hugs", "Onwards", "Ever yours", "Cheerio", "So long",
    "With a bow",
)  # fmt: skip
NAMES = ("Marit", "Anselm", "Ysolde", "Caspian", "Odile", "Fergus", "Linnea", "Tobias")

RECIPIENTS = words(
    "Anna", "Boris", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hamid", "Ilse", "Jonas",
    "Keiko", "Lorenzo", "Maud", "Nils", "Oona", "Piotr",
)  # fmt: skip
THINGS = words(
    "the parcel", "the ladder", "the piano lesson", "the meeting", "the blue bicycle",
    "the new key", "the cake", "the contract", "the tent", "the train ticket", "the lamp",
    "the report", "the soup pot", "the map", "the old radio", "the garden gate", "the camera",
    "the letter", "the boat", "the picnic",
)  # fmt: skip
NEWS = words(
    "is ready", "is late", "was moved to Friday", "has been sold", "went missing",
    "was found again", "is finally done", "needs a second look", "was a great success",
    "is not what we ordered", "can wait until June", "has to be paid for", "is back from the shop",
    "was forgotten", "is safe with me", "looks perfect",
)  # fmt: skip
WORDINGS = Words(
    (
        "Tell {} that {} {}.",
        "Write a message to {}: {} {}.",
        "Let {} know that {} {}.",
    ),
    ("Write to {} for me; {} {}.", "I want {} to hear that {} {}. Put it in my words."),
)


@dataclass(frozen=True, slots=True)
class Style:
    """How one person writes."""

    greeting: str
    filler: str
    ending: str
    farewell: str
    name: str
    loud: bool
    """Whether the news stands in capitals."""

    def message(self, recipient: str, thing: str, news: str) -> str:
        told = f"{thing} {news}"
        told = told.upper() if self.loud else told
        return f"{self.greeting} {recipient}, {self.filler} {told}{self.ending} {self.farewell}, {self.name}"


def task(rng: random.Random, history: int, validation: int, test: int) -> TaskOfPerson:
    """Messages of one person."""
    style = Style(
        rng.choice(GREETINGS),
        rng.choice(FILLERS),
        rng.choice(ENDINGS),
        rng.choice(FAREWELLS),
        rng.choice(NAMES),
        rng.random() < 0.5,
    )

    def contents(count: int, asked: bool) -> list[tuple[str, str, str]]:
        lists = [one.asked if asked else one.told for one in (RECIPIENTS, THINGS, NEWS)]
        every = [(to, thing, news) for to in lists[0] for thing in lists[1] for news in lists[2]]
        rng.shuffle(every)
        if count > len(every):
            raise ValueError(f"at most {len(every)} messages can be made, but {count} are wanted")
        return every[:count]

    def pairs(count: int, asked: bool) -> list[tuple[str, str]]:
        return [
            (WORDINGS.draw(rng, asked).format(*one), style.message(*one))
            for one in contents(count, asked)
        ]

    told = [
        Past(f"{question} {answer}", question, answer) for question, answer in pairs(history, False)
    ]
    questions = [Question(*one) for one in pairs(validation + test, True)]
    return TaskOfPerson(tuple(told), tuple(questions[:validation]), tuple(questions[validation:]))
