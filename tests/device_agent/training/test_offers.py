"""A recipe is chosen among the kits that a cloud offers, by what they cost here."""

import json
from dataclasses import replace

import pytest

from device_agent import cli
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.hardware.cost_file import FILE, CostFile
from device_agent.runtime.kits import KitStore
from device_agent.training.bounds import Bounds
from device_agent.training.choosing import NothingFits
from device_agent.training.offers import choose_here
from device_agent.training.watcher import Watcher
from protocol.kit import KitFile
from tests.device_agent.teaching import ALPHABET, SCHEDULE, teaching_home

GENEROUS = Bounds(memory=2_000_000_000, seconds=3600)


class Noting(Watcher):
    def __init__(self):
        self.notes = []

    def note(self, sentence):
        self.notes.append(sentence)


@pytest.fixture
def world(tmp_path):
    """A cloud with the teaching kit, and with one that is said to learn by forward passes."""
    with teaching_home(tmp_path) as (cloud, settings):
        forward = {"name": "forward", "rule": "mempepita"}
        other = replace(cloud.manifest, id="forward-1", recipe="forward", recipe_json=forward)
        cloud.offer(other)
        with Store(settings.home / STORE) as store:
            store.add_examples([Example(text=ALPHABET)], "test")
        yield cloud, settings


def choose(settings, bounds, recipe=None, threads=1, **chosen):
    watcher = Noting()
    with Link(settings) as link:
        costs = CostFile(settings.home)
        examples = link.store.examples()
        choice = choose_here(link, examples, bounds, chosen, recipe, threads, watcher, costs)
    return choice, watcher.notes


def test_kits_are_measured_once_and_the_exact_gradient_is_chosen(world):
    _, settings = world
    choice, notes = choose(settings, GENEROUS)
    assert (choice.recipe, choice.tokens, choice.epochs) == ("teaching", 32, SCHEDULE.epochs)
    assert "forward would learn less" in choice.reason
    assert notes == [
        "measuring teaching, 32 tokens a step, threads: 1",
        "measuring forward, 32 tokens a step, threads: 1",
    ]
    again, notes = choose(settings, GENEROUS)
    assert (again.recipe, notes) == ("teaching", [])


def test_what_was_measured_is_what_counts(world):
    cloud, settings = world
    choose(settings, GENEROUS)
    path = settings.home / FILE
    known = json.loads(path.read_text())
    # More than the kits' files, which are counted before anything is fetched.
    size = sum(file.size for file in cloud.manifest.files.values())
    for name, cost in known["costs"].items():
        cost["peak"] = size + (1000 if name.startswith("forward") else 3000)
    path.write_text(json.dumps(known))
    assert choose(settings, Bounds(memory=size + 2000))[0].recipe == "forward"
    assert choose(settings, Bounds(memory=size + 3000))[0].recipe == "teaching"


def test_as_many_threads_are_taken_as_are_fastest_here(world):
    _, settings = world
    path = settings.home / FILE
    choice, notes = choose(settings, GENEROUS, "teaching", threads=3)
    assert [note.rpartition(" ")[2] for note in notes] == ["1", "2", "3"]
    assert choice.threads in (1, 2, 3)
    known = json.loads(path.read_text())
    for steps, fastest in (((3.0, 1.0, 2.0), 2), ((1.0, 1.5, 2.0), 1), ((3.0, 2.0, 1.0), 3)):
        for cost, step in zip(known["costs"].values(), steps, strict=True):
            cost["step"], cost["peak"] = step, 2**20
        path.write_text(json.dumps(known))
        assert choose(settings, GENEROUS, "teaching", threads=3)[0].threads == fastest
    # What is faster and takes too much memory is out of the question.
    list(known["costs"].values())[2]["peak"] = GENEROUS.memory + 1
    path.write_text(json.dumps(known))
    assert choose(settings, GENEROUS, "teaching", threads=3)[0].threads == 2


def test_a_named_recipe_is_the_only_one_measured(world):
    _, settings = world
    choice, notes = choose(settings, GENEROUS, "forward", batch_tokens=16, epochs=1)
    assert (choice.recipe, choice.tokens, choice.epochs) == ("forward", 16, 1)
    assert notes == ["measuring forward, 16 tokens a step, threads: 1"]


def test_what_is_too_large_by_its_files_is_not_even_fetched(world):
    cloud, settings = world
    files = {**cloud.manifest.files, "frozen.bin": KitFile("0" * 64, 10**9)}
    cloud.offer(replace(cloud.manifest, id="huge-1", recipe="huge", files=files))
    choice, _ = choose(settings, Bounds(memory=900_000_000))
    assert choice.recipe == "teaching"
    assert KitStore(settings.home).find("huge") is None
    with pytest.raises(NothingFits, match="no recipe on offer trains in 900 MB"):
        choose(settings, Bounds(memory=900_000_000), "huge")


def test_a_kit_that_cannot_train_is_left_out(world):
    cloud, settings = world
    manifest = cloud.manifest
    without = {name: file for name, file in manifest.files.items() if name != "train.onnx"}
    cloud.offer(replace(manifest, id="broken-1", recipe="broken", files=without))
    choice, notes = choose(settings, GENEROUS)
    assert choice.recipe == "teaching"
    assert any(note.startswith("left out: recipe broken could not be measured") for note in notes)


def test_nothing_fits_says_how_much_would(world):
    _, settings = world
    with pytest.raises(NothingFits, match="in 5 MB: the smallest"):
        choose(settings, Bounds(memory=5_000_000))


def test_the_smallest_is_named_where_more_threads_are_faster_and_larger(world):
    _, settings = world
    choose(settings, GENEROUS, "teaching", threads=2, batch_tokens=32)
    path = settings.home / FILE
    known = json.loads(path.read_text())
    for cost, peak, step in zip(known["costs"].values(), (6e6, 8e6), (2.0, 1.0), strict=True):
        cost["peak"], cost["step"] = int(peak), step
    path.write_text(json.dumps(known))
    with pytest.raises(NothingFits, match=r"in 5 MB: the smallest.* 6 MB"):
        choose(settings, Bounds(memory=5_000_000), "teaching", threads=2, batch_tokens=32)


def test_the_command_trains_by_what_was_chosen_and_says_why(world, capsys, monkeypatch):
    _, settings = world
    for name in ("home", "cloud", "threads", "prefix"):
        monkeypatch.setenv(f"SIDEPLUG_{name.upper()}", str(getattr(settings, name)))
    words = ["train", "--memory", "2GB", "--time", "10min", "--memory", "off", "--json"]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["choice"].startswith("training by teaching, 32 tokens a step")
    assert told["choice"] in err
    assert told["validation"]["memory"] is None
    assert told["promoted"]
    assert cli.main(["train", "--memory", "lots"]) == 2
    assert "must be a size such as 128MB" in capsys.readouterr().err
