"""One session at a time through a backbone, as most tests look at it."""

from cloud_service.backbones.base import Backbone, Span
from cloud_service.backbones.pages import Cache
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
