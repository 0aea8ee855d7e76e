"""Entries of both dictionaries, from excerpts in the public domain laid out as their files are."""

import gzip

import pytest

from benchmarks import dictionaries
from benchmarks.dictionaries import Entry, bierce_entries, entries_of, jargon_entries
from benchmarks.errors import TextError

BIERCE = """\
ACCORD, n.  Harmony.

ACCORDION, n.  An instrument in harmony with the sentiments of an
assassin.

ABDICATION, n.  An act whereby a sovereign attests his sense of the
high temperature of the throne.

    Poor Isabella's Dead, whose abdication
    Set all tongues wagging in the Spanish nation.

ABRACADABRA.

    By _Abracadabra_ we signify

ZIGZAG, v.t.  To move forward uncertainly, from side to side, as one
carrying the white man's burden.
"""

JARGON = """\
   Words before the first entry.

   :breath-of-life packet: n.

   [XEROX PARC] An Ethernet packet that contains bootstrap (see {boot})
   code.

   A second paragraph.

   :breedle: n.

   See {feep}.

   :break: /brayk/

   1. vt. To cause to be {broken} in any sense of the word.

   2. v. (of a program) To stop temporarily.
"""


def test_bierce_is_prose_without_verse_or_single_words():
    assert list(bierce_entries(BIERCE)) == [
        Entry("accordion", "An instrument in harmony with the sentiments of an assassin."),
        Entry(
            "abdication",
            "An act whereby a sovereign attests his sense of the high temperature of the throne.",
        ),
        Entry(
            "zigzag",
            "To move forward uncertainly, from side to side, as one carrying the white man's burden.",
        ),
    ]


def test_jargon_is_the_first_paragraph_of_the_first_sense_without_marks():
    assert list(jargon_entries(JARGON)) == [
        Entry(
            "breath-of-life packet",
            "[XEROX PARC] An Ethernet packet that contains bootstrap (see boot) code.",
        ),
        Entry("break", "To cause to be broken in any sense of the word."),
    ]


def test_a_file_that_lies_there_is_read_and_the_first_explanation_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDEPLUG_CACHE", str(tmp_path))
    (tmp_path / "texts").mkdir()
    twice = BIERCE + "\nACCORDION, n.  A second explanation of the same word as above.\n"
    with gzip.open(tmp_path / "texts" / "devil.dict.dz", "wt", encoding="utf-8") as file:
        file.write(twice)
    assert [entry.word for entry in entries_of("Bierce")] == ["accordion", "abdication", "zigzag"]
    assert entries_of("Bierce")[0].definition.startswith("An instrument")


def test_a_machine_without_debian_is_told_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDEPLUG_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TextError, match=r"jargon-text.*texts/jargon\.txt\.gz"):
        entries_of("Jargon")
    assert list(tmp_path.rglob("*.gz")) == []


@pytest.mark.slow
def test_the_packages_hold_hundreds_of_entries(tmp_path, monkeypatch):
    monkeypatch.setenv("SIDEPLUG_CACHE", str(tmp_path))
    sizes = {name: len(entries_of(name)) for name in dictionaries.SOURCES}
    assert sizes["Bierce"] > 700
    assert sizes["Jargon"] > 1500
