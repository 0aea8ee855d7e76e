"""Letters and the folders they go to; a while ago every kind moved to another folder."""

import random

from benchmarks.people.examples import Past, Question, TaskOfPerson
from benchmarks.people.wording import Words, balanced, distinct, sentence, words

CHANGED = 40
"""How many of the newest letters went where letters of their kind go now."""

FOLDERS = (
    "attic", "cellar", "pantry", "porch", "studio", "garage", "balcony", "hallway", "garden",
    "tower", "drawer", "shelf",
)  # fmt: skip

KINDS = {
    "invoice": words(
        "an invoice", "a bill to be paid", "a payment slip", "a receipt", "a price quote",
        "a bank statement", "a final demand", "a request for payment",
    ),
    "invitation": words(
        "an invitation to a wedding", "a birthday invitation", "an invitation to tea",
        "an invitation to a dinner", "an invitation to a premiere", "a card for a garden party",
        "an invitation to a christening", "an invitation to the summer ball",
    ),
    "delivery": words(
        "a parcel notice", "a tracking number", "a delivery slip", "news of a late parcel",
        "a note that a crate has come", "a customs form for a parcel", "a pick-up code",
        "a courier's card",
    ),
    "newsletter": words(
        "a newsletter", "the monthly bulletin", "a circular", "the club gazette",
        "an annual report", "the parish magazine", "a trade journal", "a digest of articles",
    ),
    "complaint": words(
        "a complaint about noise", "an angry letter", "a complaint about the bins",
        "a protest", "a list of grievances", "a rude message", "a bitter reply",
        "a complaint about parking",
    ),
    "greeting": words(
        "a postcard", "a note of thanks", "a greeting card", "a letter with kind regards",
        "a Christmas card", "a friendly hello", "good wishes", "a picture postcard of a beach",
    ),
}  # fmt: skip

SENDERS = words(
    "Hagen & Sons", "the Lindqvists", "Mr Okafor", "the Riverside Club", "Dr Ferreira",
    "Nakamura Ltd", "Aunt Judith", "the town council", "Pavel", "the bookshop", "Mrs Aydin",
    "the sailing school", "Bertrand", "the insurance", "Ines", "the cousins in Graz",
)  # fmt: skip

WHEN = words(
    "came today", "came on Monday", "lay in the box", "was under the door", "arrived early",
    "reached me at last", "came with the noon post", "turned up on Friday", "came by courier",
    "was on the mat",
)  # fmt: skip

WORDINGS = Words(
    (
        "Where do I file this? {}",
        "Which folder do I put this in? {}",
        "File this for me. {}",
    ),
    ("{} In which folder does it belong?", "Name the folder I would choose. {}"),
)


def task(rng: random.Random, history: int, validation: int, test: int) -> TaskOfPerson:
    """What one person files, where it went, and where it goes now."""
    kinds = tuple(KINDS)
    folders = tuple(rng.sample(FOLDERS, len(kinds)))
    turn = rng.randrange(1, len(kinds))
    before = dict(zip(kinds, folders, strict=True))
    # A rotation: no kind stays where it was, so that the old rule is always wrong.
    now = dict(zip(kinds, folders[turn:] + folders[:turn], strict=True))
    taken: set[str] = set()

    def letters(count: int, asked: bool) -> list[tuple[str, str]]:
        wanted = balanced(rng, kinds, count)

        def make(kind: str) -> str:
            thing, sender = KINDS[kind].draw(rng, asked), SENDERS.draw(rng, asked)
            return sentence(f"{thing} from {sender} {WHEN.draw(rng, asked)}")

        return list(zip(distinct(make, wanted, taken), wanted, strict=True))

    def past(place: int, text: str, kind: str) -> Past:
        folder = (now if history - place <= CHANGED else before)[kind]
        question = WORDINGS.draw(rng, asked=False).format(text)
        return Past(f"{text} Folder: {folder}", question, folder)

    told = [past(place, *letter) for place, letter in enumerate(letters(history, asked=False))]
    questions = [
        Question(WORDINGS.draw(rng, asked=True).format(text), now[kind], folders)
        for text, kind in letters(validation + test, asked=True)
    ]
    return TaskOfPerson(tuple(told), tuple(questions[:validation]), tuple(questions[validation:]))
