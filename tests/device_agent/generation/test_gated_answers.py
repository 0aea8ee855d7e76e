"""Through a gate the cloud says what does not need the device, and the device everything else."""

from dataclasses import replace

import numpy as np
import pytest

from device_agent.cloud.client import CloudClient
from device_agent.cloud.link import Link
from device_agent.cloud.session import RemoteSession
from device_agent.egress.policy import PolicyForbids
from device_agent.generation.drafting import Drafting, Tally
from device_agent.generation.gating import gate_of
from device_agent.generation.generate import generate
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.settings import OFF
from protocol.errors import MalformedMessage
from protocol.gate import Gate
from protocol.kit import GATE_BIAS, GATE_ROW, WeightSpec
from protocol.messages import Wants
from tests.device_agent.generation.test_generate import Toy, remembering, text, tokens
from tests.device_agent.home import add_plugin, toy_home
from tests.device_agent.scripted_cloud import ScriptedCloud, json_answer
from tests.device_agent.small_kit import HIDDEN
from tests.device_agent.toy_backbone import ToyBackbone, toy_states

GATE = Gate(0.5)
FINAL = Wants((), True, False, 0, "f32")


@pytest.fixture
def toy(tmp_path):
    backbone = ToyBackbone(limit=60)
    with ScriptedCloud(backbone).serving() as server:
        with CloudClient(server.url, sleep=lambda _: None) as cloud:
            yield Toy(tmp_path, cloud, server, backbone)


def pulling(toy, token, strength=5.0):
    scale = np.zeros(HIDDEN, np.float32)
    scale[token] = strength
    return SidePlugin(toy.kit, {"scale": scale}, threads=1)


def gated(toy, prompt=(3,), **options):
    layers = (1, 3) if options.get("plugin") else ()
    session = options.pop("session", None) or toy.session(layers, GATE)
    options.setdefault("drafting", Drafting(OFF))
    return session, toy.run(prompt, gated=True, session=session, **options)


def test_the_device_has_its_say_where_it_is_needed_and_nowhere_else(toy):
    """The toy counts; the plugin says 32 wherever it is asked, and before 35 is where the toy is unsure again."""
    drafting = Drafting(OFF)
    session, said = gated(toy, plugin=pulling(toy, 32), limit=9, drafting=drafting)
    assert tokens(said) == [4, 32, 33, 34, 32, 33, 34, 32, 33]
    assert [step.ids.tolist() for step in toy.backbone.steps] == [[3], [32], [32], [32]]
    # The last one chosen stays here.
    assert list(session.tokens) == [3, *tokens(said)[:-1]]
    assert drafting.tally == Tally(0, 0, alone=6)


def test_every_token_is_a_piece_of_its_own(toy):
    _, said = gated(toy, limit=4)
    assert [piece.text for piece in said] == list("efgh")
    assert [piece.finished for piece in said] == [None, None, None, "length"]


def test_a_memory_is_asked_where_the_device_is(toy, tmp_path):
    # It remembers what came behind 4 and behind 6; only the first is a place of doubt.
    _, said = gated(toy, memory=remembering(tmp_path, {4: 11, 12: 40}), limit=5)
    assert tokens(said) == [4, 11, 12, 13, 14]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7])
def test_no_more_comes_than_the_limit(toy, limit):
    session, said = gated(toy, [5], limit=limit)
    assert tokens(said) == [*range(6, 6 + limit)]
    assert list(session.tokens) == [*range(5, 5 + limit)]


@pytest.mark.parametrize(("strings", "shown"), [(["h"], "g"), (["gh", "z"], ""), (["ij"], "gh")])
def test_a_stop_string_within_what_was_said_ends_the_answer_there(toy, strings, shown):
    session, said = gated(toy, [5], strings=strings, limit=30)
    assert text(said) == shown
    assert said[-1].finished == "stop"
    kept = list(session.tokens)
    assert kept == [5, *tokens(said)[:-1]]
    # What was said behind it is forgotten by the next step, without a request of its own.
    session.step([50])
    ((ids, _),) = toy.backbone.sessions.values()
    assert ids == [*kept, 50]
    assert not any(path.endswith("crop") for path in toy.server.paths())


def test_a_full_context_ends_the_answer_as_it_does_without(toy):
    expected = toy.run([1] * 52, limit=30)
    _, said = gated(toy, [1] * 52, limit=30)
    assert [(p.text, p.token, p.finished) for p in said] == [
        (p.text, p.token, p.finished) for p in expected
    ]


def test_a_cloud_that_forgets_in_the_middle_gets_what_it_said_again(toy):
    plugin = pulling(toy, 32)
    expected = tokens(gated(toy, plugin=plugin, limit=30)[1])
    reply, count = toy.backbone._step, [0]

    def forgetful(*args):
        count[0] += 1
        if count[0] % 3 == 2:
            reply(*args)  # it was read and said, and nobody was told
            toy.backbone.forget()
            return json_answer({}, 502)
        return reply(*args)

    toy.backbone._step = forgetful
    toy.backbone.gates.clear()
    assert tokens(gated(toy, plugin=plugin, limit=30)[1]) == expected
    assert len(toy.backbone.gates) > 2
    assert set(toy.backbone.gates) == {GATE}


def test_an_answer_that_nobody_reads_to_its_end_leaves_a_session_that_goes_on(toy):
    session = toy.session(gate=GATE)
    answer = generate(
        session, None, toy.head, toy.tokenizer, [5], Sampling(), (), (), 30, gated=True
    )
    assert next(answer).token == 6
    answer.close()
    assert list(session.tokens) == [5, 6, 7, 8, 9]
    session.crop(2)
    assert tokens(toy.run([20], session=session, limit=2)) == [21, 22]


@pytest.mark.parametrize("said", [[5], [5, 6, 7]])
def test_a_cloud_that_says_more_than_it_may_is_refused(toy, said):
    toy.backbone._spoken = lambda ids, most: said
    with pytest.raises(MalformedMessage, match="to be said"):
        toy.session(gate=GATE).step([4], alone=len(said) - 1)


def test_the_row_is_of_the_last_said_token(toy):
    states = toy.session((1, 3), GATE).step([1, 6], alone=9)
    truth = toy_states([1, 6, 7, 8, 9], 4, Wants((1, 3), True, False, 0, "f32"))
    assert states.spoken.tolist() == [7, 8, 9]
    assert states.position == 4
    np.testing.assert_array_equal(states.taps, truth.taps)


def say(speaker, prompt, limit=6, sampling=Sampling(), **options):  # noqa: B008 - frozen
    pieces = speaker.answer(speaker.read(prompt), sampling, limit, **options)
    return "".join(piece.text for piece in pieces)


@pytest.fixture
def person(tmp_path):
    """A home with a plugin that says u, and a cloud that speaks of gates and has a kit with a classifier."""
    with toy_home(tmp_path) as (cloud, settings):
        speak_1_2(cloud)
        add_plugin(settings, cloud.manifest, token=20)
        yield cloud, replace(settings, gate="0.5")


def speak_1_2(cloud):
    cloud.facts = replace(cloud.facts, protocol=("1.2",))
    cloud.backbone.other["/v1/backbone"] = json_answer(cloud.facts.to_json())


def test_a_speaker_goes_through_the_gate_of_the_settings(person):
    cloud, settings = person
    version = PluginStore(settings.home).current()
    with Link(settings) as link, Speaker(link, version) as speaker:
        # 20 is the one that it is not sure of, of every five: u there, and counting in between.
        assert say(speaker, "c", 4) == "deuv"
        assert speaker.drafts == Tally(0, 0, alone=3)
        assert speaker.gates(Sampling())
        assert speaker.made_with(gated=True).gate == "confidence:0.5"
    assert cloud.backbone.gates == [Gate(0.5)]


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": Sampling(0.5, seed=1)},
        {"sampling": Sampling(repetition=1.0001)},
        {"on_choice": lambda token, logits: None},
    ],
    ids=["drawn", "penalised", "watched"],
)
def test_where_the_likeliest_token_is_not_all_that_counts_the_gate_rests(person, options):
    cloud, settings = person
    with Link(settings) as link, Speaker(link, PluginStore(settings.home).current()) as speaker:
        assert say(speaker, "c", 4, **options) == "uuuu"
        watched, sampling = "on_choice" in options, options.get("sampling", Sampling())
        assert not speaker.gates(sampling, watched=watched)
    assert not any(step.alone for step in cloud.backbone.steps)


def test_the_backbone_asked_by_itself_goes_through_no_gate(person):
    cloud, settings = person
    with Link(settings) as link, Speaker(link, PluginStore(settings.home).current()) as speaker:
        assert say(speaker, "c", 4, base=True) == "defg"
        assert not speaker.gates(Sampling(), base=True)
        assert speaker.made_with(base=True).gate == ""
    assert not any(step.alone for step in cloud.backbone.steps)


@pytest.mark.parametrize("speaks", ["prefix", None])
def test_where_nothing_personal_speaks_there_is_no_gate(person, speaks):
    cloud, settings = person
    if speaks:
        add_plugin(settings, cloud.manifest, token=20, speaks=speaks)
    version = PluginStore(settings.home).current() if speaks else None
    with Link(settings) as link, Speaker(link, version) as speaker:
        say(speaker, "c")
    assert cloud.backbone.gates == [None]


def test_an_older_cloud_is_told_of_no_gate(person):
    cloud, settings = person
    cloud.facts = replace(cloud.facts, protocol=("1.1",))
    cloud.backbone.other["/v1/backbone"] = json_answer(cloud.facts.to_json())
    with Link(settings) as link, Speaker(link, PluginStore(settings.home).current()) as speaker:
        assert say(speaker, "c", 4) == "uuuu"
        assert speaker.made_with(gated=speaker.gates(Sampling())).gate == ""
    assert cloud.backbone.gates == [None]


ROW = np.linspace(-1, 1, HIDDEN, dtype=np.float32)


@pytest.fixture
def classified(person):
    """The same with a plugin that has a classifier, which the settings want sent."""
    cloud, settings = person
    specs = (WeightSpec("scale", (HIDDEN,)), WeightSpec(GATE_ROW, (HIDDEN,)), WeightSpec(GATE_BIAS, ()))  # fmt: skip
    manifest = replace(cloud.manifest, weights=specs)
    for place in ("small", manifest.id):
        cloud.backbone.other[f"/v1/kits/{place}"] = json_answer(manifest.to_json())
    weights = {"scale": np.zeros(HIDDEN, np.float32), GATE_ROW: ROW, GATE_BIAS: np.float32(0.25)}
    plugins, about = PluginStore(settings.home), {"speaks": "plugin", "examples": []}
    weights = {name: np.asarray(array) for name, array in weights.items()}
    plugins.use(plugins.add(manifest, weights, about, np.empty(0, np.uint32), {}, []).version)
    return cloud, replace(settings, gate_by="classifier")


class Watching:
    """Notes the kind of everything that leaves."""

    def __init__(self):
        self.kinds = []

    def leaving(self, out):
        self.kinds.append(out.kind)

    def came(self, traffic):
        pass


def test_a_classifier_leaves_with_the_session_under_a_name_of_its_own(classified):
    cloud, settings = classified
    version = PluginStore(settings.home).current()
    with Link(settings) as link:
        gate = gate_of(link, version, link.kit(version.kit_id))
    assert gate.threshold == 0.5
    np.testing.assert_array_equal(np.array(gate.row, np.float32), ROW)
    assert gate.bias == 0.25
    watching = Watching()
    with CloudClient(cloud.url, account=watching) as client:
        RemoteSession(client, FINAL, gate=gate).close()
        RemoteSession(client, FINAL, gate=Gate(0.5)).close()
    assert cloud.backbone.gates == [gate, Gate(0.5)]
    assert watching.kinds == ["gate", "session", "session", "session"]


def test_a_policy_keeps_a_classifier_here(classified):
    cloud, settings = classified
    (settings.home / "policy.toml").write_text('never = ["gate"]')
    version = PluginStore(settings.home).current()
    with Link(settings) as link:
        gate = gate_of(link, version, link.kit(version.kit_id))
        with pytest.raises(PolicyForbids, match="gate"):
            RemoteSession(link.cloud, FINAL, gate=gate)
    assert cloud.backbone.gates == []


def test_a_plugin_without_a_classifier_speaks_without_a_gate(person):
    cloud, settings = person
    version = PluginStore(settings.home).current()
    with Link(replace(settings, gate_by="classifier")) as link, Speaker(link, version) as speaker:
        assert not speaker.gates(Sampling())
        assert list(speaker.answer([5, 6], Sampling(), 4))
        assert speaker.made_with().gate == ""
    assert cloud.backbone.gates == [None]
