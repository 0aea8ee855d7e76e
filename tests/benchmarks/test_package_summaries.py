import shutil

import pytest

from benchmarks.package_summaries import LEAST, installed, summaries_in

LONG = "one two three four five six seven eight\n nine ten eleven twelve thirteen fourteen fifteen"


def told(synopsis, text):
    return f"{synopsis}\n {text}\n"


def test_a_description_is_one_line_and_its_synopsis_another():
    (found,) = summaries_in([told("counts things", f"{LONG}\n .\n Then more.\n  - a point")])
    assert found.target == "counts things"
    assert found.source == " ".join(LONG.split()) + " Then more. - a point"


def test_of_packages_that_begin_alike_one_is_kept():
    found = summaries_in(
        [told("a", LONG), told("b", f"{LONG}\n .\n This is b."), told("c", LONG + " c")]
    )
    assert sorted(one.target for one in found) == ["a", "c"]


@pytest.mark.parametrize("text", ["", "word " * (LEAST - 1)])
def test_what_says_hardly_more_than_its_synopsis_is_left_out(text):
    assert summaries_in([told("a", text), "\n", ""]) == []


def test_the_order_does_not_hang_on_that_of_the_packages():
    some = [told(str(number), f"{LONG} {number}") for number in range(9)]
    assert summaries_in(some) == summaries_in(some[::-1])


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no Debian")
def test_this_machines_packages_are_told():
    found = installed()
    assert all(one.target and "\n" not in one.source for one in found)
    assert len({one.source for one in found}) == len(found)
