"""What is asked of a cloud that has a kit's public basis, and what is made of its answers."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from device_agent.cloud.features import fetch
from device_agent.cloud.link import Link
from device_agent.cloud.session import RemoteSession
from device_agent.cloud.wire import choose_encoding, wire_of
from device_agent.data.examples import Encoded
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import DamagedPlugin, PluginStore
from device_agent.runtime.kits import DamagedKit
from device_agent.settings import BadSetting, Settings
from device_agent.training.corpus import cache_of
from protocol import versions
from protocol.basis import FILE, Basis, Directions
from protocol.codecs import CODEC_NAMES
from protocol.encoding import Encoding, Measured, Section
from protocol.errors import MalformedMessage
from protocol.kit import BasisSpec
from tests.device_agent.home import ToyCloud, letter_tokenizer_json
from tests.device_agent.scripted_cloud import Answer
from tests.device_agent.small_kit import HIDDEN, TAPS
from tests.device_agent.toy_backbone import ToyBackbone, toy_states

EXACT = Encoding((Section("f32", HIDDEN),), (Section("f32", 2 * HIDDEN),))
SMALL = Encoding((Section("int8", HIDDEN),), (Section("int6", 2 * HIDDEN),))
SMALLEST = Encoding((Section("int4", HIDDEN),), (Section("int4", HIDDEN),))
ENCODINGS = (Measured(SMALLEST, 0.5, 90), Measured(SMALL, 0.005, 300), Measured(EXACT, 0.0, 800))


def directions(space: int, seed: int) -> Directions:
    axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((space, space)))
    shift = np.zeros(space, np.float32)
    return Directions(shift, axes.astype(np.float32), axes.T.astype(np.float32))


BASIS = Basis(TAPS, directions(HIDDEN, 0), directions(2 * HIDDEN, 1))


class Projecting(ToyBackbone):
    """Answers as it was asked, whole or in the basis; or the other way, when it is ``wrong``."""

    wrong = False

    def _step(self, ids, wants, body):
        answer = super()._step(ids, wants, body)
        if (wants.encoding is None) != self.wrong:
            return answer
        encoding = wants.encoding or EXACT
        written = BASIS.written(versions.decode(answer.body), encoding.widths)
        return Answer(versions.encode(written, encoding))


class ProjectingCloud(ToyCloud):
    def __init__(self, folder, protocol):
        folder.mkdir()
        (folder / FILE).write_bytes(BASIS.to_bytes())
        super().__init__(folder, kind=Projecting)
        self.facts = replace(self.facts, protocol=(protocol,), codecs=CODEC_NAMES)
        spec = BasisSpec(*BASIS.widths)
        self.manifest = replace(self.manifest, basis=spec, encodings=ENCODINGS)
        self.backbone.other = self._answers(folder, letter_tokenizer_json())


@contextmanager
def home(folder, protocol="1.1", **settings):
    cloud = ProjectingCloud(folder / "cloud", protocol)
    with cloud.serving():
        chosen = Settings(
            home=folder / "home",
            cloud=cloud.url,
            recipe="small",
            threads=1,
            codec="f32",
            **settings,
        )
        with Link(chosen) as link:
            yield cloud, link


@pytest.mark.parametrize(
    ("bound", "encoding"),
    [(0.6, SMALLEST), (0.01, SMALL), (0.005, SMALL), (0.001, EXACT), (0.0, None)],
)
def test_the_smallest_encoding_within_the_bound_is_asked_for(tmp_path, bound, encoding):
    with home(tmp_path, wire_kl=bound) as (_, link):
        assert choose_encoding(link, link.kit()) == encoding


def test_an_older_cloud_is_asked_for_whole_states(tmp_path):
    with home(tmp_path, protocol="1.0") as (cloud, link):
        assert choose_encoding(link, link.kit()) is None
        with Speaker(link, None) as speaker:
            assert cloud.backbone.sessions["s0"][1].encoding is None
            pieces = speaker.answer(speaker.read("dc"), Sampling(), 3)
            assert "".join(piece.text for piece in pieces) == "def"


def test_a_codec_that_the_cloud_does_not_have_is_not_asked_for(tmp_path):
    with home(tmp_path) as (cloud, link):
        few = replace(cloud.facts, codecs=("f32", "f16", "bf16", "int8"))
        link._facts = few
        assert choose_encoding(link, link.kit()) == EXACT


def test_a_session_gives_back_the_states_that_coordinates_stand_for(tmp_path):
    with home(tmp_path) as (_, link):
        wants, basis = wire_of(link, link.kit(), EXACT)
        with RemoteSession(link.cloud, wants, basis=basis) as session:
            found = session.step([4, 5, 6], wanted=2)
        truth = toy_states([4, 5, 6], 1, wants)
        assert (found.position, found.layers) == (1, TAPS)
        np.testing.assert_allclose(found.taps, truth.taps, atol=1e-5)
        np.testing.assert_allclose(found.final, truth.final, atol=1e-5)


def test_the_frozen_backbone_needs_no_coordinates_of_taps(tmp_path):
    with home(tmp_path) as (cloud, link):
        with Speaker(link, None) as speaker:
            wants = cloud.backbone.sessions["s0"][1]
            assert (wants.layers, wants.encoding.taps) == ((), ())
            pieces = speaker.answer(speaker.read("dc"), Sampling(), 3)
            assert "".join(piece.text for piece in pieces) == "def"


def plugin(link, about):
    """A plugin that draws every answer to u."""
    scale = np.zeros(HIDDEN, np.float32)
    scale[20] = 9
    plugins, none = PluginStore(link.settings.home), np.empty(0, np.uint32)
    plugins.use(plugins.add(link.kit().manifest, {"scale": scale}, about, none, {}, []).version)
    return plugins.current()


@pytest.mark.parametrize(("told", "encoding"), [(None, None), (SMALL.to_json(), SMALL)])
def test_a_plugin_keeps_to_what_it_was_trained_with(tmp_path, told, encoding):
    with home(tmp_path, wire_kl=0.6) as (cloud, link):
        version = plugin(link, {"codec": "f32", "speaks": "plugin", "encoding": told})
        assert version.encoding == encoding
        with Speaker(link, version) as speaker:
            assert cloud.backbone.sessions["s0"][1].encoding == encoding
            pieces = speaker.answer(speaker.read("dc"), Sampling(), 3)
            assert "".join(piece.text for piece in pieces) == "uuu"


def test_a_damaged_encoding_is_told(tmp_path):
    with home(tmp_path) as (_, link):
        version = plugin(link, {"codec": "f32", "encoding": {"final": 3}})
        with pytest.raises(DamagedPlugin):
            _ = version.encoding


def test_a_basis_of_another_size_is_told(tmp_path):
    with home(tmp_path) as (_, link):
        kit = link.kit()
        path = kit.folder / FILE
        path.unlink()
        path.write_bytes(BASIS.to_bytes()[:-4])
        with pytest.raises(DamagedKit, match="bytes"):
            kit.basis()


@pytest.mark.parametrize("encoding", [None, EXACT])
def test_an_answer_in_the_other_form_is_refused(tmp_path, encoding):
    with home(tmp_path) as (cloud, link):
        wants, basis = wire_of(link, link.kit(), encoding)
        with RemoteSession(link.cloud, wants, basis=basis) as session:
            cloud.backbone.wrong = True
            with pytest.raises(MalformedMessage, match="came where"):
                session.step([4])


def test_features_are_kept_as_the_states_that_coordinates_stand_for(tmp_path):
    with home(tmp_path) as (cloud, link):
        kit, text = link.kit(), Encoded(np.array([1, 2, 3], np.uint32), np.ones(2, np.float32))
        whole, coded = cache_of(link, kit, None), cache_of(link, kit, EXACT)
        assert whole.path(text.fed) != coded.path(text.fed)
        truth = replace(toy_states([1, 2], 0, coded.wants), log_z=np.array([3, 4], np.float32))
        answer = versions.encode(BASIS.written(truth, EXACT.widths), EXACT)
        cloud.backbone.other["/v1/features"] = Answer(answer)
        fetch(lambda: link.cloud, coded, [text])
        with coded.get(text.fed, text.first) as features:
            found = features.states(TAPS, slice(None))
        np.testing.assert_allclose(found.taps, truth.taps, atol=2e-3)
        np.testing.assert_allclose(found.final, truth.final, atol=2e-3)
        np.testing.assert_array_equal(found.log_z, truth.log_z)


@pytest.mark.parametrize("bound", [-0.1, float("nan"), float("inf")])
def test_a_bound_that_is_none_is_refused(tmp_path, bound):
    with pytest.raises(BadSetting, match="wire_kl"):
        Settings(home=tmp_path, wire_kl=bound)
