"""Chat templates that ask for the date or for chance: a prompt is the same in every run."""

from datetime import datetime

import pytest
import transformers.utils.chat_template_utils as published

from rlif_jax.data.chat_template import TEMPLATE_TIME, render_chat
from rlif_jax.errors import UserError

CHAT = [{"role": "user", "content": "hi"}]


class NextYear(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2027, 1, 2, 3, 4, 5, tzinfo=tz)


@pytest.fixture
def rendered(tokenizer, monkeypatch):
    """Render with a template, on a later day."""
    monkeypatch.setattr(published, "datetime", NextYear)

    def render(template):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        return render_chat(tokenizer, CHAT)[0]

    return render


def test_each_directive_is_strftimes():
    noon = datetime(2024, 7, 26, 12)
    assert {directive: noon.strftime(directive) for directive in TEMPLATE_TIME} == TEMPLATE_TIME


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{- strftime_now(format='%-d. %B %y, 100%%d') -}}", "26. July 24, 100%d"),
        ("{% set today = strftime_now('%Y-%m-%d') %}\n  {{ today }}", "  2024-07-26"),
        ("\n  {% if strftime_now is defined %}\n{{ strftime_now('%H:%M') }}{% endif %}", "\n12:00"),
        ("{% macro m() %}{{ strftime_now('%A') }}{% endmacro %}{{ m() }}", "Friday"),
        ("{% for m in messages %}{{ m.content ~ strftime_now('%F') }}{% endfor %}", "hi2024-07-26"),
        (
            "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
            "{% endif %}{{ date_string }}",
            "26 Jul 2024",
        ),
        ("{# strftime_now #}{{ 'strftime_now random' }}", "strftime_now random"),
        ("{{ bos_token }}{{ messages[0].random }}|{{ [3] | first }}", "<bos>|3"),
    ],
)
def test_it_is_always_the_same_day(rendered, template, text):
    assert rendered(template) == text


def test_transformers_itself_would_have_given_the_date_of_the_day(rendered, tokenizer):
    rendered("{{ strftime_now('%d %b %Y') }}")
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "02 Jan 2027"


@pytest.mark.parametrize("template", ["{{ [1, 2] | random }}", "{{ lipsum(n=1) }}"])
def test_a_template_that_draws_at_random_is_refused(rendered, template):
    with pytest.raises(UserError, match=r"draws at random with '(random|lipsum)'"):
        rendered(template)


def test_a_template_that_refuses_the_messages_is_named(rendered):
    with pytest.raises(UserError, match="refused the prompt: no such role"):
        rendered("{{ raise_exception('no such role') }}")


def test_without_a_template(rendered):
    with pytest.raises(UserError, match="no chat template"):
        rendered(None)
