"""Everything that one running service is made of, in one place for the routes."""

from dataclasses import dataclass, replace

from cloud_service.admission import Admission
from cloud_service.backbones.base import Backbone
from cloud_service.backbones.engines import choose, start
from cloud_service.keys import KeyStore
from cloud_service.kits import Kits
from cloud_service.metrics import Metrics
from cloud_service.prefixes import Prefixes
from cloud_service.registry import Pulled, Registry
from cloud_service.runner import Runner
from cloud_service.sessions import Sessions
from cloud_service.settings import Settings
from protocol.facts import BackboneFacts
from protocol.limits import Limits


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of a service."""

    settings: Settings
    pulled: Pulled
    facts: BackboneFacts
    metrics: Metrics
    runner: Runner
    prefixes: Prefixes
    sessions: Sessions
    kits: Kits
    admission: Admission


def build(settings: Settings) -> Service:
    """
    Put a service together; nothing runs yet.

    Raises:
        BadSetting: The address may not be served, or no engine has these weights.
        BackboneNotPulled, BackboneDamaged, BackboneRefused: The backbone is not in the cache.
        CompileFailed: A recipe is not known.

    """
    keys = KeyStore(settings.keys_file)
    settings.require_safe_address(bool(keys))
    pulled = Registry(settings.cache).find(settings.backbone)
    choice = choose(pulled.folder, settings.engine, settings.weights)
    facts = pulled.record.facts(choice.weights, Limits(frame_bytes=settings.body_bytes))
    if settings.context:
        facts = replace(facts, positions=min(facts.positions, settings.context))
    metrics = Metrics()

    def load() -> Backbone:
        backbone = start(
            choice,
            pulled,
            facts,
            cache=settings.cache,
            kv_bytes=settings.kv * 2**20,
            threads=settings.model_threads,
        )
        metrics.watch(backbone.pool)
        backbone.pool.reclaim = prefixes.reclaim
        return backbone

    runner = Runner(load, metrics, threads=settings.model_threads, queue=settings.queue)
    prefixes = Prefixes(facts, runner, metrics, idle=settings.prefix_idle)
    kits = Kits(settings.cache, facts, settings.recipe)
    return Service(
        settings=settings,
        pulled=pulled,
        facts=facts,
        metrics=metrics,
        runner=runner,
        prefixes=prefixes,
        sessions=Sessions(
            facts,
            runner,
            prefixes,
            metrics,
            limit=settings.sessions,
            idle=settings.idle,
            bases=kits.basis,
        ),
        kits=kits,
        admission=Admission(keys),
    )
