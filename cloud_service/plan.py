"""
How many replicas, how much memory and network so many devices take.

Measured on this machine: seconds of a pass by the sessions in it, tokens a second of a prefill,
bytes of a position's keys and values and of the process, bytes of an answer. Assumed, each by a
flag: how much devices say and read, when, and how long a pass may take. Plain arithmetic on both:

    peak      = devices * tokens a day / 86400 * peak factor           generated tokens a second
    cost      = pass(b) / b + http + prompt tokens a token / prefill    seconds of a replica a token
    replicas  = peak * cost / load                                     for computing
    open      = peak / tokens a session * (their passes + idle)        sessions at the peak
    memory    = open * positions a session * bytes a position          for keys and values

b is the number of sessions in a pass that makes a token cheapest among those passes that are fast
enough. The replicas needed are the larger number of those for computing and those for memory.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cloud_service.backbones.base import Backbone, Span
from cloud_service.backbones.pages import PAGE, Cache
from cloud_service.demand import Demand
from cloud_service.errors import BadSetting, CloudError
from cloud_service.runner import State
from cloud_service.service import Service
from protocol import versions
from protocol.codecs import CODEC_NAMES
from protocol.errors import Fault
from protocol.facts import BackboneFacts
from protocol.fields import Fields, read_json
from protocol.messages import Wants

BATCHES = (1, 2, 4, 8, 16, 32, 64)
PREFILL = 512
_ROUNDS = 5
_TAPS = (0.27, 0.5, 0.7, 0.9)
"""Depths of the taps of the default recipe."""
_DAY = 86400.0
_HTTP_HEADERS = 400
"""Bytes of the heads of a request and its answer."""
_LARGEST_FILE = 2**20


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured, and on what."""

    backbone: str
    dtype: str
    threads: int
    context: int
    """Positions that each session held meanwhile."""
    pass_seconds: Mapping[int, float]
    """Of one token each, by the sessions in the pass."""
    prefill_tokens_per_second: float
    kv_bytes_per_position: float
    process_bytes: float
    """Resident, without keys and values."""
    step_bytes_down: Mapping[str, int]
    """A frame of one token's states, by codec."""
    step_bytes_up: int

    @classmethod
    def from_json(cls, data: object) -> "Measured":
        """Read what ``asdict`` gives, or raise ``protocol.errors.MalformedMessage``."""
        read = Fields(data, "measurement")
        passes = Fields(read.value("pass_seconds"), "pass_seconds")
        sizes = Fields(read.value("step_bytes_down"), "step_bytes_down")
        return cls(
            backbone=read.label("backbone"),
            dtype=read.label("dtype"),
            threads=read.integer("threads", 1),
            context=read.integer("context"),
            pass_seconds={batch: passes.positive(str(batch)) for batch in BATCHES},
            prefill_tokens_per_second=read.positive("prefill_tokens_per_second"),
            kv_bytes_per_position=read.positive("kv_bytes_per_position"),
            process_bytes=read.positive("process_bytes"),
            step_bytes_down={name: sizes.integer(name) for name in CODEC_NAMES},
            step_bytes_up=read.integer("step_bytes_up"),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes."""

    replicas: int
    replicas_for_computing: int
    replicas_for_memory: int
    peak_tokens_per_second: float
    sessions_in_a_pass: int
    tokens_per_second_a_session: float
    """Of a session in such a pass."""
    seconds_a_token: float
    """Of a replica, prefill included."""
    sessions_open: int
    kv_gigabytes: float
    """Of all replicas."""
    memory_gigabytes_a_replica: float
    network_down_gigabits: float
    network_up_gigabits: float
    """A second, at the peak."""
    network_down_terabytes_a_day: float


def plan(measured: Measured, demand: Demand) -> Plan:
    """
    Do the arithmetic.

    Raises:
        BadSetting: No pass is as fast as is asked for.

    """
    quick = {b: s for b, s in measured.pass_seconds.items() if s <= demand.pass_seconds}
    if not quick:
        fastest = min(measured.pass_seconds.values())
        raise BadSetting(
            f"no pass takes at most {demand.pass_seconds} s; the fastest took {fastest:.3f} s",
            "Allow for longer ones with --pass-seconds, or measure on a faster machine.",
        )
    batch = min(quick, key=lambda size: quick[size] / size)
    each = quick[batch] / batch + demand.http_seconds
    cost = each + demand.prompt_ratio / measured.prefill_tokens_per_second
    mean = demand.devices * demand.tokens_per_day / _DAY
    peak = mean * demand.peak_factor
    rate = 1 / (quick[batch] + batch * demand.http_seconds)
    open_sessions = peak / demand.session_tokens * (demand.session_tokens / rate + demand.idle)
    kv = open_sessions * demand.session_positions * measured.kv_bytes_per_position
    computing = math.ceil(peak * cost / demand.load)
    holding = math.ceil(kv / (demand.kv_gigabytes * 1e9))
    down = measured.step_bytes_down[demand.codec] + _HTTP_HEADERS
    up = measured.step_bytes_up + _HTTP_HEADERS + 4 * demand.prompt_ratio
    return Plan(
        replicas=max(computing, holding),
        replicas_for_computing=computing,
        replicas_for_memory=holding,
        peak_tokens_per_second=peak,
        sessions_in_a_pass=batch,
        tokens_per_second_a_session=rate,
        seconds_a_token=cost,
        sessions_open=math.ceil(open_sessions),
        kv_gigabytes=kv / 1e9,
        memory_gigabytes_a_replica=measured.process_bytes / 1e9 + demand.kv_gigabytes,
        network_down_gigabits=peak * down * 8 / 1e9,
        network_up_gigabits=peak * up * 8 / 1e9,
        network_down_terabytes_a_day=mean * _DAY * down / 1e12,
    )


def measure(service: Service, context: int, say: Callable[[str], None]) -> Measured:
    """
    Load the backbone of a service and time it.

    Raises:
        CloudError: The backbone could not be loaded, or has no memory for the sessions of a pass.

    """
    say(f"loading {service.pulled.record.display_name}")
    backbone = _loaded(service)
    resident = service.metrics.registry.get_sample_value("sideplug_process_resident_memory_bytes")
    facts = backbone.facts
    context = min(context, facts.positions - len(BATCHES) * (_ROUNDS + 1) - 1)
    wants = _wants(facts, "f16")
    try:
        say(f"a prefill of {PREFILL} tokens")
        prefill = _prefill_seconds(backbone, wants, min(PREFILL, facts.positions))
        passes = {}
        with _Filled(backbone, context, wants) as filled:
            for batch in BATCHES:
                say(f"passes of {batch} sessions")
                passes[batch] = filled.pass_seconds(batch)
    except Fault as error:
        raise CloudError(
            f"nothing could be measured: {error}", "Give more memory with --kv."
        ) from None
    sizes = {name: _answer_bytes(backbone, name) for name in CODEC_NAMES}
    return Measured(
        backbone=facts.name,
        dtype=facts.dtype,
        threads=service.settings.model_threads,
        context=context,
        pass_seconds=passes,
        prefill_tokens_per_second=min(PREFILL, facts.positions) / prefill,
        kv_bytes_per_position=backbone.pool.page_bytes / PAGE,
        process_bytes=resident or float(service.pulled.bytes),
        step_bytes_down=sizes,
        step_bytes_up=36 + 4,
    )


def read_measured(file: Path) -> Measured:
    """Read the measurement in what ``plan --json`` printed, or raise ``BadSetting``."""
    try:
        return Measured.from_json(
            Fields(read_json(file.read_bytes(), _LARGEST_FILE), "plan").value("measured")
        )
    except Fault as error:
        raise BadSetting(f"{file} holds no measurement: {error}") from None


def as_json(measured: Measured, demand: Demand, result: Plan) -> dict[str, Any]:
    """All three, apart: what was measured, what was assumed, what follows."""
    return {"measured": asdict(measured), "assumed": asdict(demand), "plan": asdict(result)}


def as_text(measured: Measured, demand: Demand, result: Plan) -> str:
    """The same for a person."""
    passes = "  ".join(f"{b}: {1000 * s:.0f}" for b, s in measured.pass_seconds.items())
    lines = [
        f"measured  {measured.backbone} in {measured.dtype}, {measured.threads} threads, "
        f"{measured.context} positions a session",
        f"          milliseconds of a pass by its sessions: {passes}",
        f"          {measured.prefill_tokens_per_second:,.0f} tokens/s of prefill, "
        f"{measured.kv_bytes_per_position:,.0f} bytes a position, "
        f"{measured.process_bytes / 1e9:.2f} GB for the process",
        *_assumptions(demand),
        f"it takes  {result.replicas:,} replicas ({result.replicas_for_computing:,} for computing, "
        f"{result.replicas_for_memory:,} for memory)",
        f"          {result.peak_tokens_per_second:,.0f} tokens/s at the peak, "
        f"{result.sessions_in_a_pass} sessions in a pass, "
        f"{result.tokens_per_second_a_session:.1f} tokens/s for each",
        f"          {result.sessions_open:,} sessions open, {result.kv_gigabytes:,.0f} GB of keys "
        f"and values, {result.memory_gigabytes_a_replica:.1f} GB of memory a replica",
        f"          {result.network_down_gigabits:.2f} Gbit/s down, "
        f"{result.network_up_gigabits:.2f} Gbit/s up at the peak, "
        f"{result.network_down_terabytes_a_day:.1f} TB down a day",
    ]
    return "\n".join(lines)


def _assumptions(demand: Demand) -> list[str]:
    rows = [f"{item.metadata['help']}: {getattr(demand, item.name)}" for item in fields(demand)]
    return [f"{'assumed' if n == 0 else '':10}{row}" for n, row in enumerate(rows)]


def _loaded(service: Service) -> Backbone:
    service.runner.start()
    while service.runner.state is State.LOADING:
        time.sleep(0.05)
    if service.runner.error is not None:
        raise CloudError(f"the backbone could not be loaded: {service.runner.error}")
    backbone = service.runner.require_ready()
    service.runner.stop()  # from now on this thread is the one that owns the model
    torch.set_num_threads(service.settings.model_threads)
    return backbone


def _wants(facts: BackboneFacts, codec: str) -> Wants:
    taps = sorted({round(depth * facts.layers) for depth in _TAPS})
    return Wants(layers=tuple(taps), final=True, log_z=False, candidates=0, codec=codec)


def _prefill_seconds(backbone: Backbone, wants: Wants, tokens: int) -> float:
    """Of one text, the median of three."""
    found = []
    for _ in range(3):
        cache = Cache(backbone.pool)
        found.append(_timed(backbone, [Span(cache, _ids(tokens, backbone), 1, wants)]))
        cache.release()
    return statistics.median(found)


class _Filled:
    """A session that holds so many positions, and others that share them."""

    def __init__(self, backbone: Backbone, context: int, wants: Wants) -> None:
        self._backbone, self._wants = backbone, wants
        self._cache = Cache(backbone.pool)
        for start in range(0, context, PREFILL):
            ids = _ids(min(PREFILL, context - start), backbone)
            backbone.read([Span(self._cache, ids, 0, wants)])

    def __enter__(self) -> "_Filled":
        return self

    def __exit__(self, *_: object) -> None:
        self._cache.release()

    def pass_seconds(self, batch: int) -> float:
        """Of one token in each of ``batch`` sessions, encoding included; the median."""
        caches = [self._cache.fork() for _ in range(batch)]
        try:
            found = [
                _timed(
                    self._backbone,
                    [Span(cache, _ids(1, self._backbone), 1, self._wants) for cache in caches],
                )
                for _ in range(_ROUNDS + 1)
            ]
        finally:
            for cache in caches:
                cache.release()
        return statistics.median(found[1:])


def _timed(backbone: Backbone, spans: Sequence[Span]) -> float:
    began = time.perf_counter()
    for span, states in zip(spans, backbone.read(spans), strict=True):
        if states is not None:
            versions.encode(states, span.wants.codec)
    return time.perf_counter() - began


def _answer_bytes(backbone: Backbone, codec: str) -> int:
    cache, wants = Cache(backbone.pool), _wants(backbone.facts, codec)
    (states,) = backbone.read([Span(cache, _ids(1, backbone), 1, wants)])
    cache.release()
    return 0 if states is None else len(versions.encode(states, codec))


def _ids(count: int, backbone: Backbone) -> np.ndarray[Any, np.dtype[np.uint32]]:
    rng = np.random.default_rng(count)
    return rng.integers(0, backbone.facts.vocabulary, count, dtype=np.uint32)
