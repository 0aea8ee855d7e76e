from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from device_agent.cloud.connection import TRIES, CloudUnreachable
from device_agent.cloud.link import LAST_FACTS, Link, WrongTokenizer
from device_agent.egress.ledger import totals
from device_agent.settings import Settings
from tests.device_agent.home import toy_home
from tests.device_agent.scripted_cloud import Answer, json_answer


@pytest.fixture
def toy(tmp_path):
    with toy_home(tmp_path) as (cloud, settings):
        yield cloud, settings


def away(settings):
    """A link of the same home, with nobody at the cloud's address."""
    nobody = Settings(home=settings.home, cloud="http://127.0.0.1:9", recipe="small", threads=1)
    return Link(nobody, sleep=lambda _: None)


def test_facts_are_asked_for_once(toy):
    cloud, settings = toy
    with Link(settings) as link:
        assert link.facts() is link.facts()
    assert cloud.paths() == ["GET /v1/backbone"]


def test_the_tokenizer_is_fetched_once_for_all_commands(toy):
    cloud, settings = toy
    for _ in range(2):
        with Link(settings) as link:
            assert link.tokenizer().encode("abc").tolist() == [0, 1, 2]
    assert cloud.paths().count("GET /v1/tokenizer") == 1


def test_what_was_seen_once_works_without_the_cloud(toy):
    _, settings = toy
    with Link(settings) as link:
        before = link.facts()
        link.tokenizer()
        link.kit()
    with away(settings) as link:
        assert link.facts() == before
        assert link.tokenizer().decode([1]) == "b"
        assert link.kit().manifest.recipe == "small"


def test_facts_are_written_down_again_only_when_they_have_changed(toy):
    cloud, settings = toy
    seen = []
    for name in ("toy", "toy", "other"):
        changed = replace(cloud.facts, name=name)
        cloud.backbone.other["/v1/backbone"] = json_answer(changed.to_json())
        with Link(settings) as link:
            link.facts()
        seen.append((settings.home / LAST_FACTS).stat().st_ino)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("content", [None, b"{}", b"no"])
def test_without_the_cloud_and_facts_the_cloud_is_missed(toy, content):
    _, settings = toy
    if content is not None:
        settings.home.mkdir()
        (settings.home / LAST_FACTS).write_bytes(content)
    with away(settings) as link, pytest.raises(CloudUnreachable):
        link.facts()


def test_another_tokenizer_than_announced_is_refused_and_not_kept(toy):
    cloud, settings = toy
    cloud.backbone.other["/v1/tokenizer"] = Answer(b"{}")
    with Link(settings) as link, pytest.raises(WrongTokenizer):
        link.tokenizer()
    assert not list(settings.home.glob("tokenizers/*"))


def test_without_the_cloud_it_is_not_waited_for_again_and_again(toy):
    _, settings = toy
    with Link(settings) as link:
        link.kit()
    pauses = []
    nobody = Settings(home=settings.home, cloud="http://127.0.0.1:9", recipe="small", threads=1)
    with Link(nobody, sleep=pauses.append) as link:
        link.facts()
        link.kit()
    assert len(pauses) == TRIES - 1


def test_a_tokenizer_that_rotted_is_fetched_again(toy):
    cloud, settings = toy
    with Link(settings) as link:
        link.tokenizer()
        (path,) = settings.home.glob("tokenizers/*")
        path.write_bytes(b"rotten")
        assert link.tokenizer().decode([1]) == "b"
    assert cloud.paths().count("GET /v1/tokenizer") == 2


def test_every_byte_is_entered_in_the_ledger(toy):
    cloud, settings = toy
    with Link(settings, "train") as link:
        link.tokenizer()
        link.kit()
        link.egress.flush()
        rows = {row.group["kind"]: row for row in totals(link.store)}
        assert {row.group["host"] for row in rows.values()} == {urlsplit(settings.cloud).netloc}
        assert {row.group["purpose"] for row in rows.values()} == {"train"}
        assert rows["tokenizer"].down > len(cloud.backbone.other["/v1/tokenizer"].body)
        assert rows["facts"].exchanges == 2
        assert rows["kit"].down > sum(file.size for file in cloud.manifest.files.values())
        assert link.down < sum(row.down for row in rows.values()), "heads are not in it"
        assert link.up < sum(row.up for row in rows.values())
