"""A client of a scripted cloud whose pauses and traffic are written down, and what the two say."""

import random

import numpy as np

from device_agent.cloud.client import CloudClient
from device_agent.cloud.traffic import Outgoing, Traffic
from protocol import versions
from protocol.messages import States, Tokens, Wants
from tests.device_agent.scripted_cloud import json_answer

WANTS = Wants(layers=(1,), final=True, log_z=False, candidates=0, codec="f32")
TOKENS = Tokens(step=1, position=4, wanted=1, ids=np.array([5, 6], dtype=np.uint32))


def states(position=5, rows=1, fill=0.5):
    taps = np.full((1, rows, 4), fill, np.float32)
    return States(position=position, layers=(1,), taps=taps, final=taps[0])


def frame(message, codec="f32"):
    return versions.encode(message, codec)


def fault_answer(fault, **headers):
    return json_answer(fault.to_json(), fault.status, **headers)


class Talk:
    """A client whose pauses and traffic are written down."""

    def __init__(self, url, **options):
        self.pauses: list[float] = []
        self.traffic: list[Traffic] = []
        self.cloud = CloudClient(
            url,
            sleep=self.pauses.append,
            random=random.Random(0),
            account=self,
            **options,
        )

    def leaving(self, out: Outgoing) -> None:
        pass

    def came(self, traffic: Traffic) -> None:
        self.traffic.append(traffic)


def texts(*sizes):
    return [np.arange(size, dtype=np.uint32) for size in sizes]
