"""Each benchmark from its command to its report: on a tiny backbone, and one on the real one."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks.processes import running
from benchmarks.services import cloud, pull
from benchmarks.voice import voice
from tests.tiny import TRAINING_TEXT, tiny_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    """A tiny backbone, a cache of its own, and a private text of ten short documents."""
    folder = tmp_path_factory.mktemp("world")
    text = folder / "mine.jsonl"
    documents = [" ".join(TRAINING_TEXT[i % 3 :] * 12) + f" Letter {i}." for i in range(10)]
    text.write_text("\n".join(json.dumps({"text": one}) for one in documents))
    return tiny_folder("llama", folder / "tiny-llama"), folder / "cache", text


def run(name, report, *words, cache=None):
    extra = {"SIDEPLUG_CACHE": str(cache)} if cache else {}
    command = [sys.executable, "-m", "benchmarks", name, "--json", str(report), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Not subprocess.run: when a test runs out of time it would leave the benchmark's own children.
    with running(command, extra, **pipes) as process:
        shown, said = process.communicate()
    assert process.returncode == 0, said
    assert psutil.Process().children(recursive=True) == []
    return json.loads(report.read_text()), shown


def words(world):
    backbone, _, text = world
    return ("--quick", "--threads", "1", "--backbone", str(backbone), "--text", str(text))


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("exactness", {"identical", "prompts"}),
        ("overhead", {"ratio", "taps_overhead"}),
        ("step", {"speedup_1", "speedup_1_drafts", "speedup_1_f32", "bound_ratio"}),
        ("edge", {"speedup", "memory_ratio", "nll_excess"}),
        ("serve", {"speedup_16", "speedup_16_f32", "stall"}),
    ],
)
def test_a_benchmark_gives_its_figures_on_a_tiny_backbone(small_world, tmp_path, name, figures):
    report, shown = run(name, tmp_path / "it.json", *words(small_world), cache=small_world[1])
    assert figures <= report.keys()
    assert figures <= report["results"].keys()
    assert all(figure in shown for figure in figures)


def test_lines_are_measured_with_drafts_and_without_on_a_tiny_backbone(small_world, tmp_path):
    report, _ = run("network", tmp_path / "it.json", *words(small_world), cache=small_world[1])
    assert {"draft_speedup_50ms", "draft_speedup_50ms_plugin", "ideal_share"} <= report.keys()
    assert report["identical"] == 1
    assert report["accepted_share"] > 0.9
    assert "proxy" in report["results"]["line"] or "netem" in report["results"]["line"]
    cells = report["results"]["cells"]
    assert {(cell["rtt_ms"], cell["mbit"]) for cell in cells} == {(0, 100), (0, 5), (50, 100), (50, 5)}  # fmt: skip
    for cell in cells:
        # No token comes sooner than a round trip allows.
        assert cell["tokens_per_second"]["plain"] * cell["rtt_ms"] <= 1000
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_clients_that_behave_badly_leave_nothing_on_a_tiny_backbone(small_world, tmp_path):
    report, _ = run("soak", tmp_path / "it.json", *words(small_world), cache=small_world[1])
    assert (report["errors_5xx"], report["sessions_left"]) == (0, 0)
    assert "rss_growth_mb" in report
    assert report["requests"] > 1000
    statuses = report["results"]["statuses"]
    assert {"200", "201", "204", "400", "404", "409", "413", "422"} <= statuses.keys()
    assert len(report["results"]["behaviours"]) == 9


def test_what_is_killed_on_a_tiny_backbone_goes_on_alike(small_world, tmp_path):
    report, _ = run("survive", tmp_path / "it.json", *words(small_world), cache=small_world[1])
    assert report["identical"] == report["generations"] == 4
    assert report["lost"] == 0
    assert len(report["results"]["start_seconds"]) == 5


def test_the_arms_of_training_score_the_same_tokens(small_world, tmp_path):
    report, _ = run("training", tmp_path / "it.json", *words(small_world), cache=small_world[1])
    assert {"gain_share", "cpu_ratio", "memory_ratio", "device_peak_mb"} <= report.keys()
    arms = report["results"]["arms"]
    assert arms["device"]["seeds"][0]["tokens"] == arms["lora"]["seeds"][0]["tokens"]
    assert arms["device"]["test_nll"] < arms["frozen"]["test_nll"]
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_every_encoding_is_tried_on_a_tiny_backbone(small_world, tmp_path):
    report, _ = run("wire", tmp_path / "it.json", *words(small_world), cache=small_world[1])
    assert {"bytes_per_token", "kl", "nll_lost", "bytes_per_training_token"} <= report.keys()
    rows = report["results"]["encodings"]
    whole = {row["name"]: row for row in rows if row["name"].startswith("whole")}
    assert whole["whole f32"]["kl_base"] < whole["whole int8"]["kl_base"]
    chosen = [row for row in rows if row["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["bytes"] < whole["whole int8"]["bytes"]


def test_gates_are_weighed_and_written_through_on_a_tiny_backbone(small_world, tmp_path):
    report, _ = run("gate", tmp_path / "it.json", *words(small_world), cache=small_world[1])
    assert {"bytes_cut_at_1_percent", "gain_kept", "bytes_cut_answers"} <= report.keys()
    rows = report["results"]["curve"]
    assert {row["arm"] for row in rows} == {"confidence", "mix", "errors"}
    for arm in ("confidence", "mix", "errors"):
        whole, none = (
            next(row for row in rows if row["arm"] == arm and row["opened"] == share)
            for share in (1, 0)
        )
        # With every token asked for the answers are what they are without a gate.
        assert whole["bytes_cloud"] == pytest.approx(whole["bytes_ungated"])
        assert none["bytes_cloud"] < whole["bytes_cloud"]
    whole = next(row for row in rows if row["arm"] == "confidence" and row["opened"] == 1)
    assert whole["kept"] == pytest.approx(1)
    for ways in report["results"]["written"].values():
        assert ways["gated"]["bytes_down"] <= ways["ungated"]["bytes_down"]
        assert ways["ungated"]["alone"] == 0
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_the_agent_is_measured_on_a_tiny_backbone(small_world, tmp_path):
    report, shown = run("agent", tmp_path / "it.json", *words(small_world), cache=small_world[1])
    figures = {"first_token_seconds", "rss_idle_mb", "rss_chatting_mb", "rss_training_mb"}
    assert figures | {"requests_per_second"} <= report.keys()
    assert all(figure in shown for figure in figures)
    stages = report["results"]["memory_mb"]
    # What never was asked has loaded no head; a job is a process of its own.
    assert stages["idle"]["rss"] < stages["chatting"]["rss"] < stages["training"]["rss"]
    assert stages["idle"]["children"] == 0 < stages["training"]["children"]
    assert report["results"]["job"]["state"] == "done"


def test_devices_learn_together_on_a_tiny_backbone(small_world, tmp_path):
    pytest.importorskip("flwr")
    file = tmp_path / "it.json"
    flags = (*words(small_world), "--kept", "0", "0.1", "--results", str(tmp_path / "kept"))
    flags = (*flags, "--recipes", "ladder", "ladder-thresholds")
    report, shown = run("federated", file, *flags, cache=small_world[1])
    figures = {"bytes_ratio_full", "gain_vs_alone", "better_than_alone", "worst_vs_alone"}
    figures |= {"gain_fedavg_0_1", "spread_fedavg_0_1"}
    assert figures <= report.keys()
    assert all(figure in shown for figure in figures)
    told = report["results"]["splits"]["person"]
    arms = {"frozen", "alone", "federated", "federated + personal", "pooled"}
    assert [set(row["nll"]) for row in told["people"]] == [arms] * 2
    dense, sparse, thresholds = told["federations"]
    for federation in (dense, sparse, thresholds):
        assert [line["answered"] for line in federation["log"]] == [2, 2]
    up, less, least = (sum(line["bytes_up"] for line in one["log"]) for one in told["federations"])
    assert least < less < up
    assert [one["sent"] for one in (dense, sparse)] == ["all", "0.1 of an update"]
    assert thresholds["federated_nll"] < report["results"]["means"]["person"]["frozen"]
    # A round's update and weights, in 16 bits, cannot take less than the plugin does.
    assert report["results"]["bytes_round_device"] > 4 * 1000
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")

    # A federation that was cut off goes on after its last round: these two are over.
    (cut,) = (tmp_path / "kept" / "person").glob("fedavg_0_1-0.json")
    cut.unlink()
    again, _ = run("federated", file, *flags, cache=small_world[1])
    assert again["results"]["splits"]["person"]["federations"] == told["federations"]


def test_quality_measures_every_arm_and_goes_on_where_it_was(small_world, tmp_path):
    where = ("--results", str(tmp_path / "kept"))
    file = tmp_path / "it.json"
    report, _ = run("quality", file, *words(small_world), *where, cache=small_world[1])
    arms = report["results"]["arms"]["mine"]["2000"]
    assert {"frozen", "prefix", "plugin", "everything", "LoRA", "LoRA + prefix", "blocks"} <= set(
        arms
    )
    assert arms["everything"]["test_nll"] < arms["frozen"]["test_nll"]
    assert {
        "gain_share_min",
        "gain_share_min_2000",
        "gain_share_with_prefix",
        "harm",
    } <= set(report)
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.json")}
    again, _ = run("quality", file, *words(small_world), *where, cache=small_world[1])
    assert again["results"] == report["results"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.fixture(scope="module")
def roomy(small_world, tmp_path_factory):
    """The same backbone with a context that profiles and notes fit in."""
    folder = tmp_path_factory.mktemp("roomy") / "tiny-roomy"
    shutil.copytree(small_world[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


def test_an_answer_is_as_likely_as_in_the_whole_model(small_world, roomy, tmp_path, monkeypatch):
    monkeypatch.setenv("SIDEPLUG_CACHE", str(small_world[1]))
    model = AutoModelForCausalLM.from_pretrained(roomy).eval()
    options = ["lamp", "the harbour office", "tea"]
    with (
        cloud(pull(str(roomy)), "f32", 1) as service,
        voice(tmp_path / "home", service.url, 1, base=True) as speaker,
    ):
        found = speaker.log_likelihoods("What burns?", options)
        again = speaker.log_likelihoods("What burns?", options[::-1])[::-1]
        asked = speaker.ask([{"role": "user", "content": "What burns?"}])
        answers = [speaker.answer_ids("What burns?", one).tolist() for one in options]
    for likelihood, answer in zip(found, answers, strict=True):
        with torch.no_grad():
            rows = model(torch.tensor([asked + answer])).logits[0].log_softmax(-1)
        expected = sum(float(rows[len(asked) + n - 1, i]) for n, i in enumerate(answer))
        assert likelihood == pytest.approx(expected, rel=0.02)
    assert found == pytest.approx(again, rel=1e-4)


def test_people_are_asked_in_every_arm_and_what_is_kept_is_not_asked_again(
    small_world, roomy, tmp_path
):
    given = ("--quick", "--threads", "1", "--backbone", str(roomy))
    given += ("--results", str(tmp_path / "kept"))
    report, _ = run("people", tmp_path / "it.json", *given, cache=small_world[1])
    assert {"mean_gain_over_retrieval", "mean_gain_over_retrieval_low"} <= report.keys()
    means = report["results"]["means"]
    assert set(means) == {"choice", "tag", "rating", "style", "facts", "drift"}
    for by_size in means.values():
        assert set(by_size["5"]) == {"retrieval", "plugin", "all"}
        assert all(0 <= arm["score"] <= 1 for arm in by_size["5"].values())
    assert "macro_f1" in means["tag"]["base"]
    assert "mae" in means["rating"]["base"]
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    again, _ = run("people", tmp_path / "it.json", *given, cache=small_world[1])
    assert again["results"] == report["results"]


def test_each_plugin_is_asked_for_both_peoples_words(small_world, roomy, tmp_path):
    definitions = [f"word {n}: {TRAINING_TEXT[n % 3]} That is number {n}." for n in range(16)]
    text = tmp_path / "mine.jsonl"
    text.write_text("\n".join(json.dumps({"text": one}) for one in definitions))
    given = ("--quick", "--threads", "1", "--backbone", str(roomy), "--text", str(text))
    cache = small_world[1]
    (cache / "texts").mkdir(parents=True, exist_ok=True)
    with gzip.open(cache / "texts" / "jargon.txt.gz", "wt", encoding="utf-8") as file:
        for n in range(16):
            file.write(f"   :term{n}: n.\n\n   A thing that a hacker says of the {n}th kind.\n\n")
    report, _ = run("definitions", tmp_path / "it.json", *given, cache=cache)
    assert {"own_gain_min", "other_gain_max", "lead_min", "rouge_l_gain_min"} <= report.keys()
    crossed = report["results"]["crossed"]
    assert set(crossed) == {"frozen", "mine", "Jargon"}
    assert all(set(by_person) == {"mine", "Jargon"} for by_person in crossed.values())
    assert all(
        one["perplexity"] > 1 for by_person in crossed.values() for one in by_person.values()
    )


@pytest.mark.parametrize(
    ("interrupt", "code"),
    [
        (lambda pid: os.killpg(pid, signal.SIGINT), 130),
        (lambda pid: os.kill(pid, signal.SIGTERM), 143),
    ],
    ids=["ctrl-c", "terminated"],
)
def test_an_early_end_leaves_nothing_running(small_world, tmp_path, interrupt, code):
    file = tmp_path / "it.json"
    command = [sys.executable, "-m", "benchmarks", "exactness", "--json", str(file)]
    extra = {"SIDEPLUG_CACHE": str(small_world[1])}
    # A group of its own: that is what a terminal interrupts.
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with running([*command, *words(small_world)], extra, **options) as process:
        while "generating" not in process.stderr.readline():
            assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        interrupt(process.pid)
        assert process.wait(60) == code
    assert len(family) >= 2
    assert not any(member.is_running() for member in family)
    assert not file.exists()


def test_the_split_default_backbone_says_what_the_whole_one_says(tmp_path):
    some = ("--prompts", "3", "--new-tokens", "16", "--windows", "1")
    report, _ = run("exactness", tmp_path / "report.json", *some)
    assert report["identical"] == report["prompts"] == 3
    assert report["results"]["codecs"]["f32"]["kl"] < 1e-3
