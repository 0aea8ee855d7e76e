"""One session at a time through a backbone, as most tests look at it."""

import asyncio
import threading

from cloud_service.backbones.base import Backbone, Span
from cloud_service.backbones.pages import Cache
from cloud_service.metrics import Metrics
from cloud_service.runner import Runner
from protocol.messages import Ids, States, Wants

KV_BYTES = 4 * 2**20
"""Of a tiny backbone: 64 pages of the largest."""


def read(backbone: Backbone, cache: Cache, ids: Ids, wanted: int, wants: Wants) -> States:
    """Read tokens behind what a cache has read."""
    (states,) = backbone.read([Span(cache, ids, wanted, wants)])
    assert states is not None
    return states


def alone(backbone: Backbone, ids: Ids, wanted: int, wants: Wants) -> States:
    """Read a text behind nothing, and forget it again."""
    cache = Cache(backbone.pool)
    try:
        return read(backbone, cache, ids, wanted, wants)
    finally:
        cache.release()


def loaded(backbone: Backbone, queue: int = 10) -> Runner:
    """Return a runner that is ready; whoever calls stops it."""
    runner, ready = Runner(lambda: backbone, Metrics(), threads=1, queue=queue), threading.Event()
    runner.on_loaded = ready.set
    runner.start()
    assert ready.wait(10)
    return runner


class Held:
    """Keeps the model within a pass until it is let go."""

    def __init__(self, backbone):
        self.begun, self.go = threading.Event(), threading.Event()
        self._hook = backbone.model.base_model.register_forward_pre_hook(self._hold)

    def _hold(self, *_):
        self.begun.set()
        assert self.go.wait(10)

    async def until_begun(self):
        await asyncio.to_thread(self.begun.wait, 10)

    def release(self):
        self.go.set()
        self._hook.remove()
