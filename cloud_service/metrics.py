"""What the service counts of itself, for Prometheus. No text, no tokens, nobody's name."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from cloud_service.backbones.pages import PagePool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "sideplug"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Metrics:
    """One registry of its own, so that two services in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        self.requests = self._counter("requests", "Answers by route and status", "route", "status")
        self.faults = self._counter("faults", "Faults told to devices, by code", "code")
        self.tokens = self._counter("tokens", "Tokens read by the backbone, by purpose", "purpose")
        self.received = self._counter("received_bytes", "Bytes of request bodies")
        self.sent = self._counter("sent_bytes", "Bytes of answers' bodies")
        self.running = self._gauge("num_requests_running", "Requests that are being answered")
        self.waiting = self._gauge("num_requests_waiting", "Requests that wait for the model")
        self.sessions = self._gauge("sessions", "Sessions that are open")
        self.kv = self._gauge("kv_bytes", "Bytes of keys and values that are held")
        self.pages = self._gauge("kv_pages_used", "Pages of keys and values that are held")
        self.page_limit = self._gauge("kv_pages_limit", "Pages of keys and values that there are")
        self.prefixes = self._gauge("prefixes", "Prefixes that are kept")
        self.prefix_hits = self._counter(
            "prefix_hits", "Sessions and requests for features that began behind a prefix"
        )
        self.ready = self._gauge("ready", "1 when the backbone is in memory")
        self.duration = self._histogram("request_duration_seconds", "Time to answer", "route")
        self.queued = self._histogram("queue_seconds", "Time spent waiting for the model")
        self.pass_seconds = self._histogram("pass_seconds", "Time of a pass of the model")
        self.pass_sessions = self._histogram(
            "pass_sessions", "Sessions and texts in a pass", buckets=_COUNTS
        )
        self.pass_tokens = self._histogram("pass_tokens", "Tokens in a pass", buckets=_COUNTS)
        self.first = self._histogram(
            "time_to_first_token_seconds", "From a session's first step to its answer"
        )
        self.between = self._histogram(
            "inter_token_latency_seconds", "From one answer of a session to the next"
        )

    def watch(self, pool: PagePool) -> None:
        """Show what is held of a pool from now on."""
        self.kv.set_function(lambda: pool.used * pool.page_bytes)
        self.pages.set_function(lambda: pool.used)
        self.page_limit.set(pool.pages)

    def text(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, namespace=PREFIX, registry=self.registry)

    def _histogram(
        self, name: str, about: str, *labels: str, buckets: Sequence[float] = _SECONDS
    ) -> Histogram:
        return Histogram(
            name, about, labels, namespace=PREFIX, registry=self.registry, buckets=buckets
        )
