import pytest

from device_agent.data.chat_template import NoChatTemplate, TemplateRefused, render
from tests.device_agent.small_kit import small_facts
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

CONVERSATION = [
    {"role": "system", "content": "Answer in one line."},
    {"role": "user", "content": "Wie spät ist es? <b>'now'</b>"},
    {"role": "assistant", "content": "Five  o'clock.\n"},
    {"role": "user", "content": ""},
]

TEMPLATES = {
    "im_start": CHAT_TEMPLATE,
    "blocks": """{{ bos_token }}
{%- set ns = namespace(system='none') %}
{% for message in messages %}
    {% if message.role == 'system' %}
        {% set ns.system = message.content %}
        {% continue %}
    {% endif %}
    [{{ message.role | upper }}] {{ message['content'] | trim }}
    {% if message.role == 'assistant' %}
        {% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
    {% endif %}
{% endfor %}
system: {{ ns.system }}
{% if add_generation_prompt %}[ASSISTANT]{% endif %}""",
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}"
    "{% if tools %}tools{% endif %}{% if not documents %}none{% endif %}",
}


def facts(template):
    return small_facts(chat_template=template, bos_token="<|im_start|>", eos_token="<|im_end|>")


@pytest.mark.parametrize("answer_next", [True, False])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_text_is_the_one_that_transformers_makes(template, answer_next):
    reference = tiny_tokenizer().apply_chat_template(
        CONVERSATION, chat_template=template, tokenize=False, add_generation_prompt=answer_next
    )
    assert render(facts(template), CONVERSATION, answer_next) == reference


def test_a_date_can_be_asked_for():
    assert len(render(facts("{{ strftime_now('%Y-%m-%d') }}"), [], False)) == 10


def test_a_backbone_without_a_template_says_so():
    with pytest.raises(NoChatTemplate, match="toy"):
        render(small_facts(), CONVERSATION, True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{% for message in messages %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ undefined.attribute }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ range(10000000) | list }}",
    ],
)
def test_a_template_that_fails_is_refused_and_not_more(template):
    with pytest.raises(TemplateRefused, match="chat template"):
        render(facts(template), CONVERSATION, True)


def test_the_reason_a_template_gives_is_told():
    with pytest.raises(TemplateRefused, match="roles must alternate"):
        render(facts("{{ raise_exception('roles must alternate') }}"), CONVERSATION, True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ strftime_now.__code__.x }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_reaches_nothing_outside_and_changes_nothing(template):
    with pytest.raises(TemplateRefused):
        render(facts(template), CONVERSATION, True)
