"""
Several services behind one address, on one machine or a cluster: Ray Serve starts them, routes to
them, watches them, and decides on their number.

All requests with one ``X-Session-Id`` go to one replica (Ray's consistent hashing), where the
sessions and prefixes of that device are. When a replica is lost or a new one takes a share over,
the device finds its session gone and replays it. Quotas are counted by each replica for itself.
"""

import os
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI

from cloud_service.app import create_app
from cloud_service.errors import BadSetting, CloudError
from cloud_service.keys import KeyStore
from cloud_service.logs import log_to_stderr
from cloud_service.registry import Registry
from cloud_service.runner import State
from cloud_service.serve import DRAIN_SECONDS, Tell, spare_collector
from cloud_service.service import build
from cloud_service.settings import Settings

NAME = "sideplug"
"""Of the application within Ray Serve."""
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
FULL = 0.75
"""Share of a replica's sessions at which another replica is wanted."""
_LOOK_SECONDS = 0.5


class Replica:
    """One service in a process of its own. Ray Serve calls all of this."""

    def __init__(self, settings: Settings) -> None:
        from transformers.utils import logging

        log_to_stderr(settings.log_level)
        logging.disable_progress_bar()
        self._service = build(settings)
        self._service.runner.on_loaded = spare_collector

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; its start begins to load the backbone."""
        return create_app(self._service)

    def check_health(self) -> None:
        """Raise when this replica will never answer; another is started in its place."""
        if self._service.runner.state is State.FAILED:
            raise RuntimeError("the backbone could not be loaded")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Say what the number of replicas depends on."""
        return {"sessions": float(len(self._service.sessions))}


def serve_replicas(settings: Settings, tell: Tell) -> None:
    """
    Serve until SIGTERM or Ctrl-C, which raises ``KeyboardInterrupt`` at the end.

    With RAY_ADDRESS in the environment the replicas run on that cluster, else on this machine.

    Raises:
        BadSetting: The address may not be served or is none, or Ray is not installed.
        BackboneNotPulled, BackboneDamaged: The backbone is not in the cache.

    """
    if find_spec("ray") is None:
        raise BadSetting(
            "several replicas need Ray Serve", "Run: pip install 'sideplug[cloud,ray]'"
        )
    if settings.port == 0:
        raise BadSetting("several replicas need a port", "Choose one with --port.")
    settings.require_safe_address(bool(KeyStore(settings.keys_file)))
    name = Registry(settings.cache).find(settings.backbone).record.display_name
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    import ray
    from ray import serve
    from ray.serve.schema import LoggingConfig

    scheme = "https" if settings.tls_cert else "http"
    url = f"{scheme}://{settings.host}:{settings.port}"
    # Its log of requests would hold the names of sessions.
    quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
    ray.init(logging_level="warning", include_dashboard=False)
    try:
        serve.start(http_options=_http_options(settings), logging_config=quiet)
        # After Ray, whose own handlers would end this process at once.
        with _Stopping() as stopping:
            serve.run(_application(settings, quiet), name=NAME, route_prefix="/")
            tell("serving", f"{name} is being loaded, to be served at {url}; Ctrl-C stops it", url)
            while not (_answers(url) or stopping.wait(_LOOK_SECONDS)):
                pass
            if not stopping.is_set():
                tell("ready", f"{name} is ready, {settings.replicas} replicas", url)
            stopping.wait()
            serve.delete(NAME)
    except RuntimeError as error:  # also what Ray raises when a deployment fails
        raise CloudError(f"the replicas could not be started: {error}") from None
    finally:
        ray.shutdown()
    if stopping.interrupted:
        raise KeyboardInterrupt


def _application(settings: Settings, quiet: Any) -> Any:
    """Return the deployment as Ray Serve takes it."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

    options: dict[str, Any] = {"num_replicas": settings.replicas}
    if settings.max_replicas > settings.replicas:
        policy = AutoscalingPolicy(
            policy_function="cloud_service.replica_count:BySessions",
            policy_kwargs={"target": FULL * settings.sessions},
        )
        options = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=settings.replicas, max_replicas=settings.max_replicas, policy=policy
            )
        }
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        max_ongoing_requests=settings.sessions + settings.queue,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        health_check_period_s=5,
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        ray_actor_options={"num_cpus": settings.threads or 1},
        logging_config=quiet,
        **options,
    )
    return deployment.bind(settings)


def _http_options(settings: Settings) -> Any:
    from ray.serve.config import HTTPOptions

    return HTTPOptions(
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
    )


def _answers(url: str) -> bool:
    """Say whether a replica has its backbone in memory."""
    # It asks itself: what the certificate is issued for does not matter.
    context = ssl._create_unverified_context() if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5, context=context) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        time.sleep(_LOOK_SECONDS)
        return False


class _Stopping(threading.Event):
    """Set by SIGTERM or Ctrl-C, within the block."""

    interrupted = False

    def __enter__(self) -> "_Stopping":
        self._before = {
            number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: object) -> None:
        self.interrupted = number == signal.SIGINT
        self.set()
