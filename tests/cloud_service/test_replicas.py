from dataclasses import dataclass, field

import pytest

from cloud_service import replicas
from cloud_service.errors import BadSetting
from cloud_service.replica_count import BySessions
from cloud_service.replicas import Replica, serve_replicas
from cloud_service.runner import State
from cloud_service.settings import Settings


@dataclass
class Context:
    """What Ray Serve tells a policy."""

    aggregated_metrics: dict[str, dict[str, float]] | None
    capacity_adjusted_min_replicas: int = 1
    capacity_adjusted_max_replicas: int = 10
    policy_state: dict[str, object] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("sessions", "wanted"),
    [(None, 1), ({}, 1), ({"a": 0.0}, 1), ({"a": 40.0, "b": 8.0}, 1), ({"a": 48.0, "b": 1.0}, 2),
     ({"a": 400.0}, 9), ({"a": 10_000.0}, 10)],
)  # fmt: skip
def test_there_are_as_many_replicas_as_the_sessions_fill(sessions, wanted):
    told = None if sessions is None else {"sessions": sessions}
    assert BySessions(target=48)(Context(told)) == (wanted, {})


def test_a_replica_tells_its_sessions_and_whether_it_will_ever_answer(cache, pulled_of):
    replica = Replica(Settings(cache=cache, backbone=pulled_of("llama").record.name, recipe=()))
    assert replica.record_autoscaling_stats() == {"sessions": 0.0}
    replica.check_health()
    replica._service.runner.state = State.FAILED
    with pytest.raises(RuntimeError, match="could not be loaded"):
        replica.check_health()
    assert replica.__serve_build_asgi_app__().state.service is replica._service


def test_without_ray_it_is_said_how_to_get_it(cache, monkeypatch):
    monkeypatch.setattr(replicas, "find_spec", lambda _: None)
    with pytest.raises(BadSetting, match="need Ray Serve") as refused:
        serve_replicas(Settings(cache=cache, replicas=2), print)
    assert "sideplug[cloud,ray]" in refused.value.hint


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"port": 0}, "need a port"), ({"host": "0.0.0.0"}, "no keys and no TLS")],
)
def test_what_replicas_cannot_be_served_at_is_refused(cache, monkeypatch, setting, words):
    monkeypatch.setattr(replicas, "find_spec", lambda _: True)
    with pytest.raises(BadSetting, match=words):
        serve_replicas(Settings(cache=cache, replicas=2, **setting), print)
