import json

import pytest

from benchmarks.errors import TextError
from benchmarks.texts import PRESIDENT, Document, cut, from_file, president


def words(text):
    return len(text.split())


def letters(count, sentences=10):
    """Documents of ``sentences`` five-word sentences; no two sentences anywhere are alike."""
    return [
        Document(f"letter {n}", " ".join(f"L{n} s{i} a b c." for i in range(sentences)))
        for n in range(count)
    ]


def sentences(documents):
    return {part.strip() for d in documents for part in d.text.split(".") if part.strip()}


def test_no_sentence_is_in_two_parts():
    split = cut(letters(8), words, training=130, held_out=60)
    parts = [sentences(part) for part in split.parts().values()]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]
    assert not parts[0] & parts[2]


def test_no_document_is_in_two_parts():
    split = cut(letters(8), words, training=130, held_out=60)
    names = [{d.name for d in part} for part in split.parts().values()]
    assert sum(map(len, names)) == len(set.union(*names))


def test_the_test_comes_last_and_training_first():
    split = cut(letters(5), words, training=100, held_out=50)
    assert [[d.name for d in part] for part in split.parts().values()] == [
        ["letter 1", "letter 2"],
        ["letter 3"],
        ["letter 4"],
    ]


def test_parts_keep_to_their_tokens_and_to_whole_sentences():
    split = cut(letters(6), words, training=72, held_out=33)
    for part, limit in zip(split.parts().values(), (72, 33, 33), strict=True):
        size = sum(words(d.text) for d in part)
        assert limit - 5 < size <= limit
        assert all(d.text.endswith("c.") for d in part)


def test_little_text_leaves_every_part_something():
    split = cut(letters(3), words, training=20_000, held_out=5_000)
    assert all(split.parts().values())


def test_text_without_a_full_stop_is_cut_between_words():
    endless = [Document(f"{n}", " ".join(f"w{n}-{i}" for i in range(100))) for n in range(3)]
    split = cut(endless, words, training=70, held_out=30)
    assert split.training[0].text == " ".join(f"w0-{i}" for i in range(70))
    assert split.test[0].text.endswith(" w2-29")


def test_documents_of_a_word_are_too_short():
    with pytest.raises(TextError, match="too short"):
        cut([Document(f"{n}", "word") for n in range(3)], words)


def test_two_documents_are_too_few():
    with pytest.raises(TextError, match="at least 3 documents"):
        cut(letters(2), words)


def test_a_file_has_a_document_a_line(tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [json.dumps({"text": "One.\u2028Two."}, ensure_ascii=False), "", '{"text": "Three."}']
    file.write_text("\n".join(lines), encoding="utf-8")
    assert [d.text for d in from_file(file)] == ["One.\u2028Two.", "Three."]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "good"}\n{"text": ', "line 2: not JSON"),
        (b'{"text": "good"}\n["text"]', "line 2: expected"),
        (b'{"text": "good"}\n\n{"text": 7}', "line 3: expected"),
        (b'{"text": "  "}', "line 1: expected"),
        (b"\n\n", "has no documents"),
        (b'{"text": "\xff"}', "not UTF-8"),
    ],
    ids=["cut", "list", "number", "blank", "empty", "latin"],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, content, said):
    file = tmp_path / "mine.jsonl"
    file.write_bytes(content)
    with pytest.raises(TextError, match=said):
        from_file(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TextError, match=r"nothing\.jsonl"):
        from_file(tmp_path / "nothing.jsonl")


def test_the_built_in_president_comes_in_order_of_years_without_hard_wraps():
    documents = president(PRESIDENT)
    years = [int(d.name[:4]) for d in documents]
    assert years == sorted(years)
    assert len(documents) >= 3
    for document in documents:
        lone_breaks = document.text.replace("\n\n", "").count("\n")
        assert lone_breaks <= document.text.count("\n\n"), document.name


def test_presidents_of_one_surname_are_kept_apart():
    ours = {d.name for d in president("Andrew Johnson")}
    assert ours
    assert not ours & {d.name for d in president("Lyndon B. Johnson")}


def test_nobody_of_that_name():
    with pytest.raises(TextError, match="Nobody"):
        president("Nobody")
