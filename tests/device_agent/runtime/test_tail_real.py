"""The default backbone's last blocks on this side of the wire, in float32, against the backbone itself."""

import logging
import os

import pytest

from cloud_service.kits import compile_recipe
from cloud_service.pull import pull
from cloud_service.registry import Registry
from cloud_service.settings import load
from device_agent.cloud.link import Link
from device_agent.cloud.session import RemoteSession
from device_agent.generation.generate import generate
from device_agent.generation.sampling import Sampling
from device_agent.runtime.head import Head
from device_agent.runtime.tail_plugin import TailPlugin
from device_agent.settings import Settings
from protocol.messages import Wants
from tests.cloud_service.running import running, service_for

pytestmark = pytest.mark.slow

PROMPTS = ("The capital of France is", "Once upon a time there was", "def fibonacci(n):\n")
NEW = 24


@pytest.mark.timeout(3600)
def test_greedy_text_with_a_fresh_tail_is_the_backbones(tmp_path):
    cache = load({}, os.environ).cache
    pulled = pull("smollm2-135m-instruct", Registry(cache), logging.debug)
    compile_recipe("tail", pulled, cache, logging.debug)
    with running(service_for(cache, pulled)) as service:
        service.wait()
        settings = Settings(
            home=tmp_path, cloud=str(service.http.base_url), recipe="tail", threads=1, codec="f32"
        )
        with Link(settings) as link:
            kit, tokenizer = link.kit(), link.tokenizer()
            head, plugin = Head(kit, 1), TailPlugin(kit, kit.initial(), 1)
            for prompt in PROMPTS:
                found = []
                for speaks in (plugin, None):
                    wants = Wants(kit.manifest.taps, speaks is None, False, 0, "f32")
                    with RemoteSession(link.cloud, wants) as session:
                        ids = tokenizer.encode(prompt)
                        pieces = generate(
                            session, speaks, head, tokenizer, ids, Sampling(), (), (), NEW
                        )
                        found.append([piece.token for piece in pieces])
                assert found[0] == found[1]
