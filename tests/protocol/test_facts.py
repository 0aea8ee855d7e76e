import json

import pytest

from protocol.errors import MalformedMessage
from protocol.facts import BackboneFacts
from tests.protocol.samples import ENCODING_FACTS, FACTS


def test_facts_survive_the_wire():
    assert BackboneFacts.from_json(json.loads(json.dumps(FACTS.to_json()))) == FACTS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", "two\nlines"),
        ("fingerprint", None),
        ("layers", 0),
        ("layers", 4097),
        ("hidden", 2**20 + 1),
        ("vocabulary", 2**24 + 1),
        ("positions", 0),
        ("tokenizer_sha256", "A" * 64),
        ("chat_template", 7),
        ("chat_template", "\ud800"),
        ("bos_token", ["a"]),
        ("stop_tokens", [512]),
        ("stop_tokens", [-1]),
        ("stop_tokens", list(range(65))),
        ("dtype", 32),
        ("logit_softcap", 0),
        ("logit_softcap", float("inf")),
        ("protocol", "1.0"),
        ("codecs", [1]),
        ("limits", None),
        ("limits", {}),
        ("decoder_start", [1]),
        ("decoder_start", 1),
        ("encoder_layers", 1),
        ("encoder_layers", -1),
        ("encoder_layers", 4097),
    ],
)
def test_facts_that_make_no_sense_are_refused(name, value):
    with pytest.raises(MalformedMessage):
        BackboneFacts.from_json(FACTS.to_json() | {name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("decoder_start", [512]), ("decoder_start", []), ("encoder_layers", 0)]
)
def test_facts_of_half_an_encoder_are_refused(name, value):
    with pytest.raises(MalformedMessage, match=r"begin with|come together"):
        BackboneFacts.from_json(ENCODING_FACTS.to_json() | {name: value})


def test_only_an_encoder_encodes():
    assert ENCODING_FACTS.encodes
    assert not FACTS.encodes
