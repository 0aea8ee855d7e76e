"""What is forgotten is gone from every byte of the home, and the home is as if it had never been there."""

import json
import random
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from device_agent import cli
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.plugins import PluginStore
from device_agent.training.forgetting import NoSuchExample, NothingToForget, choose, forget
from device_agent.training.learning import learn
from device_agent.training.lock import AlreadyTraining, training_lock
from device_agent.training.remembering import catch_up
from device_agent.training.watcher import Watcher
from tests.device_agent.home import LETTERS
from tests.device_agent.serving import served
from tests.device_agent.teaching import ALPHABET, teaching_home

SECRET = "".join(random.Random(5).choices(LETTERS[:25], k=240))
ASKED, SAID = SECRET[:20], SECRET[20:60]
CHAT = Example(messages=(("user", ASKED), ("assistant", SAID)))
DIARY = Example(text=SECRET)
NOBODY = "http://127.0.0.1:9"
GRAM = 8


class Stopping(Watcher):
    def __init__(self, steps):
        self._left = steps

    def training(self, progress):
        self._left -= 1

    def stop(self):
        return self._left <= 0


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    """A cloud, and a home that has made everything of a secret that can be made of it."""
    with teaching_home(tmp_path_factory.mktemp("school"), positions=128) as (cloud, settings):
        settings = replace(settings, memory="on", prefix=40)
        yield cloud, settings, teach(settings)


def teach(settings):
    """Gives the bytes of the first version's memory before it knew the secret."""
    give(settings, Example(text=ALPHABET))
    assert train(settings).promoted
    remembered = PluginStore(settings.home).current().memory_path.read_bytes()
    give(settings, DIARY, source="/people/ada/diary.md")
    with Store(settings.home / STORE) as store:
        store.add_feedback("me", [("user", ASKED)], "no", "down", SAID)
        store.add_feedback("me", [("user", ASKED)], "yes", "up", None)
        store.add_feedback("me", [("user", "abc")], "def", "up", None)
    with Link(settings, "memory") as link:
        assert catch_up(link, Watcher()) > 0
    train(settings)
    train(settings, Stopping(1), seed=3)
    return remembered


@pytest.fixture
def learned(school, tmp_path):
    """A copy of that home, and the memory from before."""
    _, settings, remembered = school
    shutil.copytree(settings.home, tmp_path / "home", copy_function=shutil.copy2)
    return replace(settings, home=tmp_path / "home"), remembered


def give(settings, *examples, source="test"):
    with Store(settings.home / STORE) as store:
        store.add_examples(examples, source)


def train(settings, watcher=None, **chosen):
    with Link(settings, "train", sleep=lambda _: None) as link:
        return learn(link, {"threads": 1, "epochs": 1, **chosen}, watcher or Watcher())


def forgotten(settings, **meant):
    with Link(settings, "forget", sleep=lambda _: None) as link:
        return forget(link, choose(link.store, **meant))


def forms_of(text, examples):
    """Every form in which a piece of a text, or the name of an example of it, can lie in a file."""
    ids = [LETTERS.index(letter) for letter in text]
    for place in range(0, len(text) - GRAM, GRAM // 2):
        piece = ids[place : place + GRAM]
        yield text[place : place + GRAM].encode()
        yield b",".join(b"%d" % one for one in piece)
        for kind in ("<u2", "<u4", "<i8", "<f4"):
            yield np.array(piece, kind).tobytes()
    for example in examples:
        yield example.sha256.encode()
        yield bytes.fromhex(example.sha256)


def traces(home, text=SECRET, examples=(DIARY, CHAT)):
    """Files of the home in which any of a text is, or the name of an example."""
    forms, found = list(forms_of(text, examples)), set()
    for path in home.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for seen in (data, b"".join(data.split())):  # JSON may be written with spaces
            if any(form in seen for form in forms):
                found.add(path.relative_to(home).as_posix())
    return found


def features(home):
    return {
        path.relative_to(home): path.read_bytes() for path in (home / "features").rglob("*.taps")
    }


def test_nothing_of_it_is_left_in_any_byte_of_the_home(learned):
    settings, remembered = learned
    home = settings.home
    aside = home / "plugins" / "mine" / ".9.killed.part"
    aside.mkdir()
    (aside / "prefix.json").write_text(SECRET)
    folder = next((home / "features").rglob("*.taps")).parent
    (folder / ".name.killed.part").write_text(SECRET)
    (home / "federated").mkdir()
    for unsent in ("round.safetensors", "residual.safetensors"):
        (home / "federated" / unsent).write_text(SECRET)
    with Store(
        home / STORE
    ) as another:  # keeps the log from being deleted with the last connection
        number = another.examples()[-1].id
        found = traces(home)
        plugins = PluginStore(home)
        told = {version.version for version in plugins.versions()}
        assert told == {"1", "2", "3"}
        for part in (STORE, "plugins/mine/1/memory.bin", "plugins/mine/2/memory.bin",
                     "plugins/mine/2/prefix.json", "plugins/mine/2/adapter_config.json"):  # fmt: skip
            assert part in found, "else this test could not fail"
        assert (home / "runs" / "checkpoint.safetensors").exists()
        gone = forgotten(settings, files=["/people/ada/diary.md"], numbers=[number])
        assert traces(home) == set()
        assert (gone.examples, gone.feedback, gone.versions) == (2, 2, ["2", "3"])
        assert gone.features > 0
        assert gone.rows > 0
        assert [one.example.text for one in another.examples()] == [ALPHABET]
        assert another.count_feedback()["up"] == 1
    assert traces(home) == set()
    assert plugins.current().version == "1"
    assert plugins.current().memory_path.read_bytes() == remembered
    assert not list(home.glob("runs/*"))


def test_afterwards_the_home_is_as_if_it_had_never_been_there(learned, school, tmp_path):
    (settings, _), (cloud, *_) = learned, school
    forgotten(settings, matching=SECRET[:12].upper(), numbers=[3])
    never = replace(settings, home=tmp_path / "never")
    give(never, Example(text=ALPHABET))
    train(never)
    assert features(settings.home).items() <= features(never.home).items()
    read = len(cloud.read)
    again, first = train(settings, seed=7), train(never, seed=7)
    assert len(cloud.read) == read, "what may stay was not deleted: nothing leaves a second time"
    assert again.version.version == "4", "a name that answers carry is never given again"
    assert (again.version.weights()["scale"] == first.version.weights()["scale"]).all()
    assert again.version.prefix.tolist() == first.version.prefix.tolist()
    assert again.version.memory_path.read_bytes() == first.version.memory_path.read_bytes()


def test_it_works_without_the_cloud_and_against_any_policy(learned):
    settings, _ = learned
    (settings.home / "policy.toml").write_text("broken = ")
    forgotten(replace(settings, cloud=NOBODY), matching=SECRET[:12])
    assert traces(settings.home) == set()


def test_a_version_that_does_not_tell_what_it_knows_counts_as_knowing_all(learned):
    settings, _ = learned
    path = settings.home / "plugins" / "mine" / "1" / "adapter_config.json"
    told = json.loads(path.read_bytes())
    del told["sideplug"]["examples"]
    path.write_text(json.dumps(told))
    assert forgotten(settings, matching=SECRET[:12]).versions == ["1", "2", "3"]
    assert PluginStore(settings.home).current() is None


def test_all_examples_can_be_forgotten(learned):
    settings, _ = learned
    forgotten(settings, numbers=[1, 2, 3])
    assert features(settings.home) == {}
    assert PluginStore(settings.home).versions() == []
    assert traces(settings.home, ALPHABET) == traces(settings.home) == set()


def test_what_was_never_trained_on_takes_no_version_along(learned):
    settings, _ = learned
    give(settings, Example(text="some other words"))
    gone = forgotten(settings, matching="OTHER words")
    assert (gone.examples, gone.versions, gone.rows) == (1, [], 0)
    assert len(PluginStore(settings.home).versions()) == 3


def test_feedback_alone_can_be_forgotten(learned):
    settings, _ = learned
    gone = forgotten(settings, matching="def")
    assert (gone.examples, gone.feedback, gone.versions) == (1, 1, ["1", "2", "3"])  # the alphabet
    with Store(settings.home / STORE) as store:
        store.add_feedback("me", [("user", "what?")], "that!", "up", None)
    gone = forgotten(settings, matching="that!")
    assert (gone.examples, gone.feedback, gone.versions) == (0, 1, [])


def test_what_is_not_there_is_told_and_nothing_goes(learned):
    settings, _ = learned
    before = {path: path.read_bytes() for path in settings.home.rglob("*.json")}
    with pytest.raises(NoSuchExample):
        forgotten(settings, numbers=[1, 99])
    with pytest.raises(NothingToForget):
        forgotten(settings, files=["/no/such"], matching="no such words")
    assert {path: path.read_bytes() for path in settings.home.rglob("*.json")} == before


def test_while_a_person_trains_nothing_is_forgotten(learned):
    settings, _ = learned
    with training_lock(settings.home), pytest.raises(AlreadyTraining):
        forgotten(settings, numbers=[1])
    with Store(settings.home / STORE) as store:
        assert len(store.examples()) == 3


@pytest.fixture
def desk(learned, capsys, monkeypatch):
    settings, _ = learned
    for name in ("home", "cloud", "recipe", "threads", "prefix", "memory"):
        monkeypatch.setenv(f"SIDEPLUG_{name.upper()}", str(getattr(settings, name)))

    def desk(*words):
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return desk


def test_by_command_it_is_forgotten_and_trained_anew(desk, learned):
    settings, _ = learned
    listed = json.loads(desk("forget", "--json")[1])["examples"]
    assert [(one["id"], one["kind"]) for one in listed] == [(1, "text"), (2, "text"), (3, "chat")]
    assert "/people/ada/diary.md" in desk("forget")[1]
    code, out, err = desk("forget", 3, "--file", "/people/ada/diary.md")
    assert code == 0, err
    for part in ("2 examples are gone", "version 2, 3; version 1 speaks", "version 4:"):
        assert part in out
    assert traces(settings.home) == set()
    assert [one.version for one in PluginStore(settings.home).versions()] == ["1", "4"]


def test_by_command_it_can_be_left_at_forgetting(desk, learned):
    settings, _ = learned
    told = json.loads(desk("forget", 2, 3, "--no-train", "--json")[1])
    assert (told["versions"], told["job"]) == (["2", "3"], None)
    assert [one.version for one in PluginStore(settings.home).versions()] == ["1"]
    assert desk("forget", 99)[0] == 1


def test_without_the_cloud_the_new_training_is_queued(desk, learned, monkeypatch):
    settings, _ = learned
    monkeypatch.setattr("device_agent.cloud.connection.FIRST_PAUSE", 0)
    give(settings, Example(text=LETTERS[::-1] * 9))  # of which there are no features yet
    told = json.loads(desk("forget", 2, "--cloud", NOBODY, "--json")[1])
    with Store(settings.home / STORE) as store:
        assert store.next_job().id == told["job"]
    assert traces(settings.home, SECRET[60:], [DIARY]) == set()


def test_the_agent_forgets_in_the_middle_of_training_and_trains_anew(learned):
    settings, _ = learned
    with served(settings, train_when="always") as agent, agent.http() as http:
        long = {"options": {"epochs": 100_000, "patience": 0}}
        number = http.post("/v1/jobs", json=long).json()["id"]
        wait_until(lambda: http.get(f"/v1/jobs/{number}").json()["state"] == "running")
        wait_until(lambda: http.get(f"/v1/jobs/{number}").json()["progress"])
        answer = http.delete("/v1/examples/2?train=false")
        told = answer.json()
        assert (answer.status_code, told["id"], told["deleted"]) == (200, 2, True)
        assert (told["versions"], told["job"]) == (["2", "3"], None)
        assert traces(settings.home, SECRET[60:], [DIARY]) == set()
        assert http.get(f"/v1/jobs/{number}").json()["state"] in ("queued", "running")
        http.post(f"/v1/jobs/{number}/cancel")
        wait_until(lambda: http.get(f"/v1/jobs/{number}").json()["state"] == "cancelled")
        told = http.delete("/v1/examples", params={"matching": ASKED}).json()
        assert (told["examples"], told["versions"], told["job"]) == (1, [], None)
        assert http.delete("/v1/examples", params={"matching": ASKED}).status_code == 404
        assert http.delete("/v1/examples").status_code == 400
        assert http.delete("/v1/examples/1?train=maybe").status_code == 400
        http.post("/v1/examples", json={"text": LETTERS[::-1] * 9})
        told = http.delete("/v1/examples/1").json()
        assert told["versions"] == ["1"]
        wait_until(
            lambda: http.get(f"/v1/jobs/{told['job']}").json()["state"] in ("done", "failed")
        )
        assert http.get("/v1/plugins").json()["data"][0]["version"] == "4"


def wait_until(true):
    while not true():
        time.sleep(0.1)
