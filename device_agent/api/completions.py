"""``/v1/chat/completions`` and ``/v1/completions``, at once or as server-sent events."""

import asyncio
import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import ClassVar, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from device_agent.api.agent import Agent, agent_of
from device_agent.api.answers import Answer, Turns
from device_agent.api.body import Body, whole
from device_agent.api.errors import BadRequest, told
from device_agent.api.models import find_model
from device_agent.api.speech import Asked, Choice, Likely, Said, speech
from device_agent.data.feedback import name_of
from device_agent.generation.made_with import MadeWith
from device_agent.generation.sampling import Sampling
from device_agent.plugins import PluginStore

T = TypeVar("T")

Json = dict[str, object]

UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
}
"""What would change an answer and is not there; by field, the values that change nothing. The rest is let pass."""

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_SEED = 2**63 - 1


class Form(ABC):
    """One of the two routes: how its prompt is written, and how its answer is."""

    prefix: ClassVar[str]
    kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    def __init__(self, body: Body) -> None:
        self.name = f"{self.prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.stream = body.flag("stream")
        options = Body(body.value("stream_options", {}))
        self.usage_wanted = options.flag("include_usage")
        self.model = body.text("model")
        self.turns: Turns = ()

    def head(self, kind: str, made_with: MadeWith) -> Json:
        """What stands in front of every part of the answer."""
        return {
            "id": self.name,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": made_with.fingerprint,
            "sideplug": made_with.to_json(),
        }

    @abstractmethod
    def asked(self, agent: Agent, sampling: Sampling, stops: list[str]) -> Asked:
        """What the voice gets."""

    def opening(self) -> list[Json]:
        """Choices of the chunks that come before the first words."""
        return []

    @abstractmethod
    def chunk(self, said: Said) -> Json:
        """The choice of one chunk."""

    @abstractmethod
    def whole(self, all_said: list[Said]) -> Json:
        """The choice of an answer that comes at once."""


class Chat(Form):
    """Turns in, a turn out."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self.turns = turns_of(body.value("messages"))
        limits = [body.integer(name, 1, 2**31) for name in ("max_completion_tokens", "max_tokens")]
        self.limit = next((limit for limit in limits if limit is not None), None)
        alternatives = body.integer("top_logprobs", 0, 20)
        self.alternatives = (alternatives or 0) if body.flag("logprobs") else None
        if alternatives is not None and self.alternatives is None:
            raise BadRequest("top_logprobs needs logprobs to be true", "top_logprobs")

    def asked(self, agent: Agent, sampling: Sampling, stops: list[str]) -> Asked:
        """What the voice gets."""
        messages = [{"role": role, "content": said} for role, said in self.turns]
        model = find_model(PluginStore(agent.settings.home), self.model)
        beginning = "".join(f"{role}\0{said}\0" for role, said in self.turns)
        return Asked(
            model,
            beginning,
            lambda speaker: speaker.ask(messages),
            False,
            sampling,
            self.limit,
            stops,
            self.alternatives,
        )

    def opening(self) -> list[Json]:
        delta = {"role": "assistant", "content": ""}
        return [{**self._choice(None, []), "delta": delta, "logprobs": None}]

    def chunk(self, said: Said) -> Json:
        delta = {"content": said.text} if said.text else {}
        return {**self._choice(said.finished, [said]), "delta": delta}

    def whole(self, all_said: list[Said]) -> Json:
        text = "".join(said.text for said in all_said)
        message = {"role": "assistant", "content": text, "refusal": None}
        return {**self._choice(all_said[-1].finished, all_said), "message": message}

    def _choice(self, finished: str | None, all_said: list[Said]) -> Json:
        told = [_content(said.choice) for said in all_said if said.choice]
        likely = None if self.alternatives is None else {"content": told}
        return {"index": 0, "logprobs": likely, "finish_reason": finished}


class Text(Form):
    """A text in, its continuation out."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, body: Body) -> None:
        super().__init__(body)
        self.prompt = prompt_of(body.value("prompt"))
        self.limit = body.integer("max_tokens", 1, 2**31)
        if self.limit is None:
            self.limit = 16
        self.alternatives = body.integer("logprobs", 0, 20)
        self._offset = len(self.prompt) if isinstance(self.prompt, str) else 0
        if isinstance(self.prompt, str):
            self.turns = (("user", self.prompt),)

    def asked(self, agent: Agent, sampling: Sampling, stops: list[str]) -> Asked:
        """What the voice gets."""
        prompt = self.prompt
        return Asked(
            find_model(PluginStore(agent.settings.home), self.model),
            str(prompt),
            lambda speaker: speaker.read(prompt) if isinstance(prompt, str) else prompt,
            True,
            sampling,
            self.limit,
            stops,
            self.alternatives,
        )

    def chunk(self, said: Said) -> Json:
        return self._choice(said.text, said.finished, [said])

    def whole(self, all_said: list[Said]) -> Json:
        text = "".join(said.text for said in all_said)
        return self._choice(text, all_said[-1].finished, all_said)

    def _choice(self, text: str, finished: str | None, said: list[Said]) -> Json:
        likely = None if self.alternatives is None else self._logprobs(said)
        return {"index": 0, "text": text, "logprobs": likely, "finish_reason": finished}

    def _logprobs(self, all_said: list[Said]) -> Json:
        choices = [said.choice for said in all_said if said.choice]
        offsets = []
        for choice in choices:
            offsets.append(self._offset)
            self._offset += len(choice.chosen.text)
        return {
            "tokens": [choice.chosen.text for choice in choices],
            "token_logprobs": [choice.chosen.logprob for choice in choices],
            "top_logprobs": [
                {one.text: one.logprob for one in choice.alternatives} for choice in choices
            ],
            "text_offset": offsets,
        }


async def chat_completions(request: Request) -> Response:
    """``POST /v1/chat/completions``."""
    body = await Body.of(request)
    return await _answer(request, body, Chat(body))


async def completions(request: Request) -> Response:
    """``POST /v1/completions``."""
    body = await Body.of(request)
    return await _answer(request, body, Text(body))


async def _answer(request: Request, body: Body, form: Chat | Text) -> Response:
    body.only(UNSUPPORTED)
    agent = agent_of(request)
    stops = body.texts("stop", 4)
    asked = await run_in_threadpool(form.asked, agent, sampling_of(body), stops)
    answer = _Answer(agent, form, asked)
    if not form.stream:
        return JSONResponse(await _while_listening(request, answer.whole()))
    events = answer.events()
    # Until the first word is there, what goes wrong can still be told by the status.
    first = await _while_listening(request, anext(events))
    return StreamingResponse(_joined(first, events), media_type="text/event-stream")


class _Answer:
    """One answer on its way out."""

    def __init__(self, agent: Agent, form: Form, asked: Asked) -> None:
        self._agent, self._form, self._asked = agent, form, asked
        self._said: list[str] = []
        self._usage: Json = {}

    async def whole(self) -> Json:
        """The answer at once."""
        all_said = [said async for said in self._pieces()]
        head = self._form.head(self._form.kind, all_said[-1].made_with)
        return {**head, "choices": [self._form.whole(all_said)], "usage": self._usage}

    async def events(self) -> AsyncGenerator[str]:
        """The answer as events; an error that comes after the first word is one of them."""
        form = self._form
        head: Json = {}
        usage: Json = {"usage": None} if form.usage_wanted else {}
        opening = form.opening()
        begun = False
        try:
            async for said in self._pieces():
                head = head or form.head(form.chunk_kind, said.made_with)
                for choice in [*opening, form.chunk(said)]:
                    yield _event({**head, "choices": [choice], **usage})
                    begun = True
                opening = []
        except Exception as error:
            if not begun:
                raise
            yield _event(dict(told(error)))
            return
        if form.usage_wanted:
            yield _event({**head, "choices": [], "usage": self._usage})
        yield "data: [DONE]\n\n"

    async def _pieces(self) -> AsyncGenerator[Said]:
        agent, asked = self._agent, self._asked
        started, text, before = time.perf_counter(), "", None
        answer = agent.voices.run(asked.model.version, asked.beginning, speech(asked))
        async with aclosing(answer) as pieces:
            async for said in pieces:
                now = time.perf_counter()
                if before is None:
                    agent.metrics.first.observe(now - started)
                    agent.metrics.tokens.labels("prompt").inc(said.prompt_tokens)
                else:
                    agent.metrics.between.observe(now - before)
                before, text = now, text + said.text
                self._usage = {
                    "prompt_tokens": said.prompt_tokens,
                    "completion_tokens": said.tokens,
                    "total_tokens": said.prompt_tokens + said.tokens,
                    "completion_tokens_details": {
                        "accepted_prediction_tokens": said.drafts.accepted,
                        "rejected_prediction_tokens": said.drafts.drafted - said.drafts.accepted,
                    },
                }
                if said.finished is not None:
                    agent.metrics.tokens.labels("completion").inc(said.tokens)
                    agent.metrics.drafted.inc(said.drafts.drafted)
                    agent.metrics.accepted.inc(said.drafts.accepted)
                    form = self._form
                    agent.answers.keep(
                        form.name, Answer(name_of(asked.model.version), form.turns, text)
                    )
                yield said


async def _while_listening(request: Request, work: Awaitable[T]) -> T:
    """What ``work`` gives; it is given up when the client goes away."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect()
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()


async def _left(request: Request) -> None:
    """Ends when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _joined(first: str, events: AsyncGenerator[str]) -> AsyncGenerator[str]:
    yield first
    async with aclosing(events) as rest:
        async for event in rest:
            yield event


def sampling_of(body: Body) -> Sampling:
    """How tokens are drawn; what is left out is as OpenAI has it: temperature 1, a new seed each time."""
    seed = body.integer("seed", -MOST_SEED, MOST_SEED)
    return Sampling(
        temperature=body.number("temperature", 0, 2, 1),
        top_k=body.integer("top_k", 0, 2**31) or 0,
        top_p=body.number("top_p", 0, 1, 1) or 1e-6,
        repetition=body.number("repetition_penalty", 0.1, 10, 1),
        seed=secrets.randbits(63) if seed is None else abs(seed),
    )


def turns_of(messages: object) -> Turns:
    """The turns of a conversation; texts in parts are joined."""
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of turns", "messages")
    return tuple(_turn(message, f"messages[{place}]") for place, message in enumerate(messages))


def _turn(message: object, place: str) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or role not in ROLES:
        raise BadRequest(f"{place} needs a role out of {', '.join(ROLES)}", f"{place}.role")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, place) for part in content)
    if not isinstance(content, str):
        raise BadRequest(f"{place} needs a text as its content", f"{place}.content")
    return ROLES[role], whole(content, f"{place}.content")


def _part(part: object, place: str) -> str:
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise BadRequest(f"{place} may hold text only", f"{place}.content")
    return text


def prompt_of(value: object) -> str | list[int]:
    """One text, or the tokens of one; a list with one of them is that one."""
    if isinstance(value, list) and len(value) == 1 and not _is_token(value[0]):
        value = value[0]
    if isinstance(value, str):
        return whole(value, "prompt")
    if isinstance(value, list) and value and all(_is_token(one) for one in value):
        return value
    raise BadRequest("prompt must be one text, or a list of tokens", "prompt")


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _content(choice: Choice) -> Json:
    return {
        **_told(choice.chosen),
        "top_logprobs": [_told(likely) for likely in choice.alternatives],
    }


def _told(likely: Likely) -> Json:
    return {"token": likely.text, "logprob": likely.logprob, "bytes": likely.bytes}


def _event(data: Json) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
