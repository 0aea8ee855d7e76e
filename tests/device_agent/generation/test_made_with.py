"""A reply says what it was made with."""

import json

from device_agent.generation.made_with import MadeWith
from tests.device_agent.home import add_plugin


def test_everything_that_has_a_say_is_in_the_word():
    whole = MadeWith("0123456789abcdef", "3", True, 1024, True)
    assert whole.fingerprint == "me:3-0123456789ab-prefix1024-plugin-memory"
    gated = MadeWith("0123456789abcdef", "3", gate="confidence:0.3")
    assert gated.fingerprint == "me:3-0123456789ab-confidence:0.3"
    assert MadeWith("0123456789abcdef").fingerprint == "base-0123456789ab"
    words = {
        MadeWith(backbone, plugin, corrects, prefix, memory).fingerprint
        for backbone in ("a" * 64, "b" * 64)
        for plugin in (None, "1", "2")
        for corrects in (False, True)
        for prefix in (0, 1, 2)
        for memory in (False, True)
    }
    assert len(words) == 2 * 3 * 2 * 3 * 2


def test_run_tells_what_took_part(sideplug):
    settings, cloud = sideplug.settings, sideplug.cloud
    add_plugin(settings, cloud.manifest, token=20, prefix=(1, 2))
    told = json.loads(sideplug("run", "abc", "--raw", "--max-tokens", "1", "--json")[1])
    assert told["made_with"] == {
        "backbone": cloud.facts.fingerprint,
        "plugin": "1",
        "corrects": True,
        "prefix": 2,
        "memory": False,
        "gate": "",
    }
    told = json.loads(sideplug("run", "abc", "--raw", "--max-tokens", "1", "--base", "--json")[1])
    assert told["made_with"]["plugin"] is None
    assert told["made_with"]["prefix"] == 0
