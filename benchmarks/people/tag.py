"""Notes and the person's own tags: six odd words, given by topic or by who is concerned."""

import random

from benchmarks.people.examples import Past, Question, TaskOfPerson
from benchmarks.people.wording import Words, balanced, distinct, sentence, words

TAGS = (
    "amber", "harbour", "thistle", "copper", "lantern", "meadow", "pebble", "saffron", "willow",
    "cobalt", "ember", "juniper", "marble", "onyx", "quartz", "raven", "sorrel", "tundra",
    "velvet", "walnut", "yarrow", "birch", "plume", "flint",
)  # fmt: skip

WHO = {
    "family": words(
        "my sister", "my uncle", "my grandmother", "my cousin", "my nephew", "my aunt"
    ),
    "neighbours": words(
        "the man downstairs", "the couple next door", "the lady across the hall",
        "the family upstairs", "the people opposite", "the tenant on the third floor",
    ),
    "work": words(
        "my boss", "a colleague", "the new intern", "someone from the office", "my deputy",
        "the project lead",
    ),
    "officials": words(
        "the tax clerk", "an inspector", "the police officer", "a customs man", "the mayor",
        "the registrar",
    ),
    "friends": words(
        "my oldest friend", "a friend from school", "my chess partner", "an old flatmate",
        "my best friend", "a friend from the club",
    ),
    "strangers": words(
        "a stranger", "some tourist", "a passer-by", "an unknown caller", "a man in a hat",
        "a woman on the bus",
    ),
}  # fmt: skip

TOPICS = {
    "money": words(
        "asked about the bill", "paid the rent late", "borrowed twenty euros",
        "worried about the mortgage", "got a tax refund", "argued over an invoice",
        "saved for a deposit", "lost a purse full of cash",
    ),
    "health": words(
        "caught a bad cold", "had a tooth pulled", "sprained an ankle", "started taking vitamins",
        "had a fever all night", "booked an eye test", "complained of a sore back",
        "coughed without end",
    ),
    "food": words(
        "baked a plum cake", "burnt the rice", "brought fresh bread", "tried the new noodle bar",
        "made too much soup", "shared a jar of honey", "ordered dumplings", "picked ripe figs",
    ),
    "travel": words(
        "missed the early train", "bought tickets to the coast", "came back from the mountains",
        "lost a suitcase", "planned a week by the sea", "took the ferry north",
        "got stuck at the airport", "booked a sleeper to Vienna",
    ),
    "repairs": words(
        "fixed the dripping tap", "painted the back door", "broke a window", "changed the lock",
        "patched the roof", "replaced a fuse", "sanded the stairs", "glued the chair leg",
    ),
    "music": words(
        "practised the cello", "sang in the choir", "tuned the old piano",
        "played records all evening", "joined a brass band", "hummed the same tune",
        "went to a concert", "bought new guitar strings",
    ),
}  # fmt: skip

WHEN = words(
    "this morning", "after lunch", "on Tuesday", "late last night", "before the storm",
    "in the pouring rain", "without a word", "for the second time", "over the weekend",
    "at the worst moment",
)  # fmt: skip

WORDINGS = Words(
    (
        "Tag this note the way I do: {}",
        "Which tag do I put on this? {}",
        "What would my tag be for: {}",
    ),
    ("Here is a note. {} How would I tag it?", "Give the tag I would use. {}"),
)

SCHEMES = {"topic": tuple(TOPICS), "who": tuple(WHO)}


def task(rng: random.Random, history: int, validation: int, test: int) -> TaskOfPerson:
    """What one person tags, and how."""
    scheme = rng.choice(tuple(SCHEMES))
    tags = tuple(rng.sample(TAGS, len(SCHEMES[scheme])))
    tag_of = dict(zip(SCHEMES[scheme], tags, strict=True))
    taken: set[str] = set()

    def notes(count: int, asked: bool) -> list[tuple[str, str]]:
        kinds = balanced(rng, SCHEMES[scheme], count)

        def make(kind: str) -> str:
            who = kind if scheme == "who" else rng.choice(tuple(WHO))
            topic = kind if scheme == "topic" else rng.choice(tuple(TOPICS))
            subject, deed = WHO[who].draw(rng, asked), TOPICS[topic].draw(rng, asked)
            return sentence(f"{subject} {deed} {WHEN.draw(rng, asked)}")

        return [
            (text, tag_of[kind])
            for text, kind in zip(distinct(make, kinds, taken), kinds, strict=True)
        ]

    def question(text: str, tag: str) -> Question:
        return Question(WORDINGS.draw(rng, asked=True).format(text), tag, tags)

    past = [
        Past(f"{text} Tag: {tag}", WORDINGS.draw(rng, asked=False).format(text), tag)
        for text, tag in notes(history, asked=False)
    ]
    questions = [question(text, tag) for text, tag in notes(validation + test, asked=True)]
    return TaskOfPerson(tuple(past), tuple(questions[:validation]), tuple(questions[validation:]))
