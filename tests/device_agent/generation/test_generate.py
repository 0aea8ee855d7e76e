import numpy as np
import pytest

from device_agent.cloud.client import CloudClient
from device_agent.cloud.session import RemoteSession
from device_agent.data.tokenizer import Tokenizer
from device_agent.generation.generate import generate
from device_agent.generation.sampling import Sampling
from device_agent.memory.basis import Basis
from device_agent.memory.file import MemoryFile, Part, write_memory
from device_agent.memory.gate import Gate
from device_agent.memory.mixture import GatedMemory
from device_agent.runtime.head import Head
from device_agent.runtime.side_plugin import SidePlugin
from protocol.errors import ContextExceeded
from protocol.messages import Wants
from tests.device_agent.scripted_cloud import ScriptedCloud
from tests.device_agent.small_kit import HIDDEN, TAPS, small_kit
from tests.device_agent.toy_backbone import ToyBackbone, counting_head

LETTERS = {i: chr(ord("a") + i % 26) for i in range(HIDDEN)}
"""Text of the toy's tokens: 0 a, 1 b, … 25 z, 26 a."""


def letter_tokenizer(folder):
    import tokenizers
    from tokenizers import decoders, models

    # Names must differ, texts may not: the decoder takes the number away again.
    words = {f"{letter}{i}": i for i, letter in LETTERS.items()}
    core = tokenizers.Tokenizer(models.WordLevel(words, unk_token="a0"))
    core.decoder = decoders.Sequence(
        [decoders.Replace(tokenizers.Regex("[0-9]+"), ""), decoders.Fuse()]
    )
    core.save(str(folder / "letters.json"))
    return Tokenizer.load(folder / "letters.json")


class Toy:
    def __init__(self, folder, cloud, server, backbone):
        self.kit = small_kit(folder / "kit", counting_head())
        self.head = Head(self.kit, threads=1)
        self.tokenizer = letter_tokenizer(folder)
        self.cloud, self.server, self.backbone = cloud, server, backbone

    def session(self, layers=(), gate=None):
        return RemoteSession(self.cloud, Wants(layers, True, False, 0, "f32"), gate=gate)

    def run(self, prompt=(3,), *, plugin=None, sampling=Sampling(), stops=(), strings=(), limit=5, memory=None, drafting=None, known=None, gated=False, session=None):  # fmt: skip # noqa: B008 - frozen
        session = session or self.session(TAPS if plugin else ())
        return list(
            generate(
                session,
                plugin,
                self.head,
                self.tokenizer,
                prompt,
                sampling,
                stops,
                strings,
                limit,
                memory=memory,
                drafting=drafting,
                gated=gated,
                known=known,
            )
        )


@pytest.fixture
def toy(tmp_path):
    backbone = ToyBackbone(limit=20)
    with ScriptedCloud(backbone).serving() as server:
        with CloudClient(server.url, sleep=lambda _: None) as cloud:
            yield Toy(tmp_path, cloud, server, backbone)


def text(pieces):
    return "".join(piece.text for piece in pieces)


def tokens(pieces):
    return [piece.token for piece in pieces]


def remembering(folder, what):
    """A memory of what came after the final states of some tokens, believed where it is sure."""
    states = np.eye(HIDDEN, dtype=np.float32)[[token + 1 for token in what]]
    basis = Basis(np.zeros(HIDDEN, np.float32), np.eye(HIDDEN, dtype=np.float32))
    part = Part(np.array([*what.values()], np.uint32), [basis.codes(states)])
    write_memory(folder / "memory.bin", bytes(32), basis, {"0" * 64: part})
    return GatedMemory(MemoryFile.mapped(folder / "memory.bin", bytes(32)), Gate(4.0, 32.0))


@pytest.mark.parametrize("temperature", [0.0, 1e-3])
def test_what_is_remembered_is_said_where_the_state_is_known(toy, tmp_path, temperature):
    memory = remembering(tmp_path, {5: 20, 21: 2})
    said = toy.run((3,), memory=memory, limit=8, sampling=Sampling(temperature))
    assert tokens(said) == [4, 5, 20, 21, 2, 3, 4, 5]


def test_the_frozen_backbone_counts_upwards(toy):
    pieces = toy.run([7, 3], limit=5)
    assert tokens(pieces) == [4, 5, 6, 7, 8]
    assert text(pieces) == "efghi"
    assert [piece.finished for piece in pieces] == [None] * 4 + ["length"]


def test_the_prompt_costs_one_request_and_so_does_each_further_token(toy):
    toy.run([7, 3], limit=5)
    assert [path.rsplit("/", 1)[1] for path in toy.server.paths()] == ["sessions"] + ["step"] * 5
    assert [len(step.ids) for step in toy.backbone.steps] == [2, 1, 1, 1, 1]
    assert all(step.wanted == 1 for step in toy.backbone.steps)


def test_the_plugin_has_the_last_word(toy):
    # Taps are the token's number everywhere: with this scale, token 20 wins from the first step on.
    scale = np.zeros(HIDDEN, np.float32)
    scale[20] = 5
    plugin = SidePlugin(toy.kit, {"scale": scale}, threads=1)
    assert tokens(toy.run([3], plugin=plugin, limit=3)) == [20, 20, 20]


def test_a_fresh_plugin_changes_nothing(toy):
    plugin = SidePlugin(toy.kit, toy.kit.initial(), threads=1)
    assert tokens(toy.run([3], plugin=plugin)) == tokens(toy.run([3]))


def test_a_stop_token_ends_the_answer_without_its_text(toy):
    pieces = toy.run([3], stops={6}, limit=10)
    assert tokens(pieces) == [4, 5, 6]
    assert text(pieces) == "ef"
    assert pieces[-1].finished == "stop"


def test_nothing_is_sent_after_the_last_token(toy):
    toy.run([3], stops={4})
    assert len(toy.backbone.steps) == 1


@pytest.mark.parametrize(
    ("strings", "shown"),
    [
        (["gh"], "ef"),
        (["zz", "fgh", "gh"], "e"),
        (["e"], ""),
        ([""], "efghijklmn"),
        (["hix"], "efghijklmn"),
        (["mno"], "efghijklmn"),
    ],
)
def test_a_stop_string_and_what_follows_it_are_not_shown(toy, strings, shown):
    pieces = toy.run([3], strings=strings, limit=10)
    assert text(pieces) == shown
    assert pieces[-1].finished == ("length" if len(shown) == 10 else "stop")


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_none(toy):
    pieces = toy.run([3], strings=["fgx"], limit=5)
    assert [piece.text for piece in pieces] == ["e", "", "", "fgh", "i"]


def test_what_was_held_back_is_shown_when_a_stop_token_ends_the_answer(toy):
    pieces = toy.run([3], strings=["fgx"], stops={7}, limit=9)
    assert text(pieces) == "efg"


def test_a_full_context_ends_the_answer_cleanly(toy):
    pieces = toy.run([1] * 18, limit=10)
    assert tokens(pieces) == [2, 3, 4]
    assert pieces[-1].finished == "length"
    assert toy.backbone.sessions["s0"][0] == [1] * 18 + [2, 3]


def test_a_context_that_is_full_sooner_than_it_was_told_ends_the_answer_too(toy):
    session = toy.session()
    toy.backbone.limit = 12
    pieces = list(
        generate(session, None, toy.head, toy.tokenizer, [1] * 10, Sampling(), (), ["ez"], 10)
    )
    assert tokens(pieces) == [2, 3, 4, None]
    assert pieces[-1].finished == "length"
    assert text(pieces) == "cde"


def test_a_prompt_that_does_not_fit_is_told(toy):
    with pytest.raises(ContextExceeded):
        toy.run([1] * 21)


def test_a_session_forgotten_in_the_middle_changes_nothing(toy):
    session = toy.session()
    pieces = []
    for piece in generate(session, None, toy.head, toy.tokenizer, [3], Sampling(), (), (), 6):
        pieces.append(piece)
        if len(pieces) in (2, 4):
            toy.backbone.forget()
    assert tokens(pieces) == [4, 5, 6, 7, 8, 9]


def test_the_session_can_go_on_after_an_answer(toy):
    session = toy.session()
    first = list(generate(session, None, toy.head, toy.tokenizer, [3], Sampling(), (), (), 2))
    second = list(generate(session, None, toy.head, toy.tokenizer, [5, 9], Sampling(), (), (), 2))
    assert tokens(first) == [4, 5]
    assert tokens(second) == [10, 11]
    assert toy.backbone.sessions["s0"][0] == [3, 4, 5, 9, 10]


def test_a_penalty_counts_the_prompt_and_the_answer(toy):
    # The plugin gives token 20 a logit of 5 t after token t; the backbone gives t + 1 one of 10.
    scale = np.zeros(HIDDEN, np.float32)
    scale[20] = 0.25
    plugin = SidePlugin(toy.kit, {"scale": scale}, threads=1)
    strict = Sampling(repetition=20)
    assert tokens(toy.run([3], plugin=plugin, limit=3)) == [20, 20, 20]
    assert tokens(toy.run([3], plugin=plugin, sampling=strict, limit=3)) == [20, 21, 22]
    assert tokens(toy.run([20, 3], plugin=plugin, sampling=strict, limit=1)) == [4]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(toy, limit):
    with pytest.raises(ValueError, match="limit"):
        toy.run(limit=limit)
