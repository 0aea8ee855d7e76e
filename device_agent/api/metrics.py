"""What the agent counts of itself, for Prometheus. No text and no tokens."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "sideplug_agent"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One registry of its own, so that two agents in one process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(namespace=PREFIX, registry=self._registry)
        self.requests = self._counter("requests", "Answers by route and status", "route", "status")
        self.tokens = self._counter("tokens", "Tokens read and written, by purpose", "purpose")
        self.drafted = self._counter("spec_decode_num_draft_tokens", "Tokens that were drafted")
        about = "Drafted tokens that became part of an answer"
        self.accepted = self._counter("spec_decode_num_accepted_tokens", about)
        self.sent = self._counter("cloud_sent_bytes", "Bytes that left for the cloud")
        self.received = self._counter("cloud_received_bytes", "Bytes that came from the cloud")
        about = "Requests that are being answered with the backbone's help"
        self.running = self._gauge("num_requests_running", about)
        self.waiting = self._gauge("num_requests_waiting", "Requests that wait for a free voice")
        self.duration = self._histogram("request_duration_seconds", "Time to answer", "route")
        self.first = self._histogram(
            "time_to_first_token_seconds", "From a question to the first token of its answer"
        )
        self.between = self._histogram(
            "inter_token_latency_seconds", "From one token of an answer to the next"
        )

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, namespace=PREFIX, registry=self._registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, namespace=PREFIX, registry=self._registry)

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        return Histogram(
            name, about, labels, namespace=PREFIX, registry=self._registry, buckets=_SECONDS
        )
