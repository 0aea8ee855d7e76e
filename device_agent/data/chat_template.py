"""A conversation as the text the backbone was trained on, by the backbone's own template.

The template comes from the cloud, so it runs in a sandbox where nothing can be changed or reached.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from device_agent.errors import DeviceError
from protocol.facts import BackboneFacts

Message = Mapping[str, str]
"""One turn: ``role`` (system, user or assistant) and ``content``."""


class NoChatTemplate(DeviceError):
    """The backbone was not trained to chat."""

    hint = 'Use `sideplug run --raw "…"`, which lets it continue your text.'

    def __init__(self, backbone: str) -> None:
        super().__init__(f"{backbone} has no chat template")


class TemplateRefused(DeviceError):
    """The backbone's template does not take this conversation."""

    hint = "Check the roles and their order: most templates want user and assistant in turn."

    def __init__(self, reason: str) -> None:
        super().__init__(f"the chat template refuses the conversation: {reason}")


def render(facts: BackboneFacts, messages: Sequence[Message], answer_next: bool) -> str:
    """The text of a conversation.

    Args:
        facts: Of the backbone whose template is used.
        messages: The turns so far.
        answer_next: Whether the text ends where the assistant begins to speak.

    Raises:
        NoChatTemplate: The backbone has none.
        TemplateRefused: The template cannot be read, or raises on these messages.
    """
    if facts.chat_template is None:
        raise NoChatTemplate(facts.name)
    try:
        return _compiled(facts.chat_template).render(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=answer_next,
            bos_token=facts.bos_token or "",
            eos_token=facts.eos_token or "",
        )
    # The sandbox cannot keep a template from adding a number to a text, or from endless recursion.
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise TemplateRefused(str(error)) from error


class _GenerationTag(Extension):
    """``{% generation %}…{% endgeneration %}`` marks the assistant's words for others; here it is plain."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it a plain class attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _SafeNamespace(Namespace):
    """A namespace without a way to Python's own attributes."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _refuse_private(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if str(name).startswith("_"):
        raise jinja2.TemplateError(f"a template may not set {name}")


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: object, ensure_ascii: bool = False, indent: int | None = None, **more: Any
) -> str:
    # Not jinja2's own filter: that one escapes for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


@lru_cache(maxsize=4)
def _compiled(template: str) -> jinja2.Template:
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    sandbox.filters["tojson"] = _tojson
    sandbox.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _now,
        "namespace": _SafeNamespace,
    }
    return sandbox.from_string(template)
