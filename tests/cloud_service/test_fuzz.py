"""A hundred thousand frames that no device would send, against a service in a process of its own."""

import http.client
import json
from collections import Counter
from random import Random
from urllib.parse import quote

import psutil
import pytest

from benchmarks import malformed
from protocol.messages import SessionOpened, SessionRequest, Wants
from tests import tiny
from tests.cloud_service.running import EVERYTHING, put_kit
from tests.cloud_service.test_cli import serving

FRAMES = 100_000
WARM = 20_000
"""Frames after which the memory counts as what it is in use."""
MEGABYTE = 2**20


WANTS = quote(json.dumps(Wants((1,), True, True, 2, "int8").to_json()))


class Attacker:
    """One connection and one session that take whatever is sent."""

    def __init__(self, url):
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        self.statuses = Counter()
        asked = json.dumps(SessionRequest(EVERYTHING).to_json()).encode()
        status, answer = self.ask("/v1/sessions", asked)
        assert status == 201
        self.session = SessionOpened.from_json(json.loads(answer)).session

    def ask(self, path, body):
        self.connection.request("POST", path, body)
        answer = self.connection.getresponse()
        self.statuses[answer.status] += 1
        return answer.status, answer.read()

    def attack(self, rng, count):
        for number in range(count):
            if number % 20 == 0:
                self.ask(f"/v1/sessions/{self.session}/crop", b'{"position": 0}')
            frame = malformed.frame(rng, tiny.VOCABULARY)
            if rng.random() < 0.1:
                self.ask(f"/v1/features?wants={WANTS}", frame + malformed.frame(rng, 512))
            else:
                self.ask(f"/v1/sessions/{self.session}/step", frame)


@pytest.mark.slow
def test_no_frame_breaks_the_service_or_stays_in_its_memory(cache, pulled_of):
    put_kit(cache, pulled_of("llama"), "spa")  # so that no compiler is started
    process, events = serving(cache, pulled_of("llama").record.name)
    with process:
        try:
            url = next(events)["url"]
            assert next(events)["event"] == "ready"
            attacker = Attacker(url)
            look = psutil.Process(process.pid).memory_info
            rng = Random(0)
            attacker.attack(rng, WARM)
            before = look().rss
            attacker.attack(rng, FRAMES - WARM)
            growth = (look().rss - before) / MEGABYTE
            attacker.connection.close()
        finally:
            process.terminate()
        assert process.wait(60) == 0
    broken = {status: n for status, n in attacker.statuses.items() if status >= 500}
    assert broken == {}
    assert {200, 400, 409, 413, 415, 422} <= attacker.statuses.keys()
    assert growth <= 20
