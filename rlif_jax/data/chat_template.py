"""Chat templates, rendered so that the same messages give the same prompt on every day.

transformers gives a template `strftime_now(format)`, with which those of Llama 3.2, SmolLM3 and
gpt-oss write today's date into the system message. A run must not change its prompts at midnight,
nor between training and evaluation, so every template is told that it is noon of Friday, 26 July
2024: the date that Llama 3's templates have themselves where there is no clock. What else could
differ between two runs are Jinja's two sources of random text; templates with them are refused.
"""

import functools
from collections.abc import Mapping, Sequence

import jinja2

from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.errors import UserError

TEMPLATE_TIME: Mapping[str, str] = {
    **{"%d": "26", "%-d": "26", "%e": "26", "%j": "208", "%-j": "208"},
    **{"%m": "07", "%-m": "7", "%b": "Jul", "%h": "Jul", "%B": "July"},
    **{"%Y": "2024", "%G": "2024", "%y": "24", "%g": "24", "%C": "20"},
    **{"%a": "Fri", "%A": "Friday", "%w": "5", "%u": "5", "%U": "29", "%W": "30", "%V": "30"},
    **{"%H": "12", "%-H": "12", "%k": "12", "%I": "12", "%-I": "12", "%l": "12", "%p": "PM"},
    **{"%M": "00", "%-M": "0", "%S": "00", "%-S": "0", "%f": "000000", "%z": "", "%Z": ""},
    **{"%F": "2024-07-26", "%D": "07/26/24", "%x": "07/26/24"},
    **{"%T": "12:00:00", "%X": "12:00:00", "%R": "12:00", "%r": "12:00:00 PM"},
    **{"%c": "Fri Jul 26 12:00:00 2024", "%n": "\n", "%t": "\t"},
}
"""What each directive of strftime gives a chat template, in any locale and time zone."""

# transformers rebuilds all that a template is given out of plain data, functions excepted, so only
# the template itself can replace its `strftime_now`. The template proper starts on a new line, as
# its own line breaks matter.
_CLOCK = (
    "{% macro strftime_now(format) %}{% set out = namespace(text='') %}"
    "{% for part in format.split('%%') %}{% set now = namespace(text=part) %}"
    "{% for directive, value in DIRECTIVES.items() %}"
    "{% set now.text = now.text.replace(directive, value) %}{% endfor %}"
    "{% set out.text = out.text + ('' if loop.first else '%') + now.text %}{% endfor %}"
    "{{ out.text }}{% endmacro %}\n"
).replace("DIRECTIVES", repr(dict(TEMPLATE_TIME)))


def render_chat(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], thinking: bool | None = None
) -> tuple[str, bool]:
    """The messages in the tokenizer's chat template, up to where the assistant's answer starts.

    The second value says whether the template reads `thinking`; None leaves it unset.

    Raises UserError when there is no template, when it refuses the messages, and when it draws at
    random.
    """
    name, switched = repr(tokenizer.name_or_path), {}
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"The tokenizer {name} has no chat template, so it cannot render messages; "
            "use an instruction-tuned model, or add a chat_template to its tokenizer files."
        )
    try:
        template = tokenizer.get_chat_template()
        names = _names_in(template)
        if thinking is not None and "enable_thinking" in names:
            switched["enable_thinking"] = thinking
        text = tokenizer.apply_chat_template(
            list(messages),
            chat_template=f"{_CLOCK}{template}" if "strftime_now" in names else template,
            add_generation_prompt=True,
            tokenize=False,
            **switched,
        )
    except jinja2.TemplateError as error:
        raise UserError(
            f"The chat template of {name} refused the prompt: {error}. If it takes no system "
            "message, leave data.system_prompt empty and data.prompt_style=chat."
        ) from error
    return text, bool(switched)


@functools.lru_cache(maxsize=8)
def _names_in(template: str) -> frozenset[str]:
    """The names that the code of a chat template uses, not those in its comments and texts.

    Raises jinja2.TemplateError for a template that is damaged or draws at random.
    """
    code = [(kind, text) for _, kind, text in jinja2.Environment().lex(template)]
    code = [(kind, text) for kind, text in code if kind in ("name", "operator")]
    for (_, before), (kind, text) in zip([("", ""), *code], code, strict=False):
        if kind == "name" and (text == "lipsum" or (before, text) == ("|", "random")):
            raise jinja2.TemplateError(
                f"it draws at random with {text!r}, and a prompt has to be the same in every run"
            )
    return frozenset(text for kind, text in code if kind == "name")
