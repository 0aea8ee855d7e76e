"""``/v1/embeddings``: the mean of the backbone's final states over a text, of length one."""

import base64
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from device_agent.api.agent import agent_of
from device_agent.api.body import Body, whole
from device_agent.api.completions import prompt_of
from device_agent.api.errors import BadRequest
from device_agent.api.models import BASE
from device_agent.api.voices import Work
from device_agent.cloud.link import Link
from device_agent.generation.speaker import Speaker
from protocol.errors import ContextExceeded
from protocol.messages import Wants

MOST_TEXTS = 2048

Vector = NDArray[np.float32]


async def embeddings(request: Request) -> Response:
    """``POST /v1/embeddings``."""
    body = await Body.of(request)
    agent, form = agent_of(request), body.text("encoding_format", "float")
    if body.text("model") != BASE:
        raise BadRequest(f"embeddings are the frozen backbone's: the model is {BASE}", "model")
    if form not in ("float", "base64"):
        raise BadRequest("encoding_format must be float or base64", "encoding_format")
    work = embedding(_inputs(body.value("input")), body.integer("dimensions", 1, 2**31))
    found = [vector async for vector in agent.voices.run(None, "", work)]
    tokens = sum(count for _, count in found)
    agent.metrics.tokens.labels("embedding").inc(tokens)
    data = [
        {"object": "embedding", "index": place, "embedding": _written(vector, form)}
        for place, (vector, _) in enumerate(found)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": BASE, "usage": usage})


def embedding(inputs: list[str | list[int]], dimensions: int | None) -> Work[tuple[Vector, int]]:
    """What a voice has to do: gives the vector (H,) of each text, and how many tokens it has."""

    def work(link: Link, speaker: Speaker) -> Iterator[tuple[Vector, int]]:
        facts = speaker.facts
        if dimensions not in (None, facts.hidden):
            raise BadRequest(f"this backbone has {facts.hidden} dimensions", "dimensions")
        texts = [
            np.array(speaker.read(one) if isinstance(one, str) else one, np.uint32)
            for one in inputs
        ]
        longest = max(map(len, texts))
        if longest > facts.positions:
            raise ContextExceeded(limit=facts.positions, asked=longest)
        codec = link.settings.codec
        wants = Wants((), final=True, log_z=False, candidates=0, codec=codec)
        # Of a backbone with an encoder they are the encoder's.
        sources = list(map(len, texts)) if facts.encodes else None
        found = link.cloud.features(texts, wants, sources=sources)
        for ids, states in zip(texts, found, strict=True):
            final = states.final if states.final is not None else np.empty(0, np.float32)
            mean = final.mean(axis=0, dtype=np.float64)  # (H,)
            yield (mean / np.linalg.norm(mean)).astype(np.float32), len(ids)

    return work


def _inputs(value: object) -> list[str | list[int]]:
    # A list of tokens is one text; a list of anything else is a list of texts.
    alone = isinstance(value, str) or (
        isinstance(value, list) and value and isinstance(value[0], int)
    )
    listed = [value] if alone else value
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_TEXTS:
        raise BadRequest(f"input must be a text, or a list of 1 to {MOST_TEXTS}", "input")
    return [_input(one) for one in listed]


def _input(value: object) -> str | list[int]:
    if isinstance(value, str):
        if not value:
            raise BadRequest("input may hold no empty text", "input")
        return whole(value, "input")
    try:
        return prompt_of(value)
    except BadRequest:
        raise BadRequest("input must hold texts, or lists of tokens", "input") from None


def _written(vector: Vector, form: str) -> object:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
