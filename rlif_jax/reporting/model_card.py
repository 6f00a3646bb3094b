"""The model card of a folder that `convert` writes: README.md as the Hub reads it.

It says what a run folder holds, and nothing else: what is absent is left out. Folders of this
machine are not named.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import metadata_load

import rlif_jax
from rlif_jax.config import Config
from rlif_jax.data.formats.evalplus import is_evalplus
from rlif_jax.data.sets.livecodebench import is_livecodebench
from rlif_jax.model.config import param_count
from rlif_jax.reporting.card_metadata import metadata
from rlif_jax.reporting.held_out import Score
from rlif_jax.reporting.reward_texts import PAPER, reads_certainty, reward_text
from rlif_jax.reporting.run_facts import Base, RunFacts, base_of
from rlif_jax.run.monitor import SAID
from rlif_jax.weights.licence import Licence, licence_of
from rlif_jax.weights.source import OpenModel

_TEMPLATES = Path(__file__).parent / "templates"
_TOLD_OTHERWISE = {
    *("reward.terms", "loss.variant", "loss.advantage", "loss.aggregation", "loss.clip_low"),
    *("loss.clip_high", "loss.kl_coef", "loss.kl_estimator", "loss.kl_anchor", "loss.epochs"),
    *("loss.mini_batches", "optim.learning_rate", "optim.warmup_steps"),
    # They change memory and speed, but no number beyond its rounding.
    *("loss.tokens_per_micro_batch", "loss.shared_prompts", "loss.reference_on_host"),
}


def model_card(
    opened: OpenModel, facts: RunFacts | None, folder: Path, title: str, place: str
) -> str:
    """The card of the model in `folder`, which is written but for it.

    `facts` are those of the run whose checkpoint it is, None for any other model. `place` is what
    `load_model` takes: hf:ORG/NAME, or the folder's name.
    """
    source = (facts.run.source or "") if facts else opened.source
    base = base_of(source) if source else Base("", "", "", "")
    licence = licence_of(base.source, folder)
    safetensors = any(folder.glob("*.safetensors"))
    values: dict[str, Any] = {
        "metadata": metadata(facts, base, licence, title, safetensors).to_yaml(),
        "title": title,
        "base": base.name,
        "before": base.steps,
        "revision": base.revision,
        "family": opened.cfg.family,
        "parameters": f"{param_count(opened.cfg):,}",
        "dtype": _dtype(folder),
        "licence": _licence_sentence(licence, "base" if facts else "original"),
        "version": _version(facts),
        "transformers": place.removeprefix("hf:") if safetensors else "",
        "chat": bool(getattr(opened.tokenizer, "chat_template", None)),
        "max_new_tokens": facts.config.sampling.max_new_tokens if facts else 256,
        "place": place,
        "run": _run(facts) if facts else None,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["linked"] = _linked
    text = environment.get_template("model_card.md.jinja").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def own_card(opened: OpenModel) -> str:
    """The card that an earlier `convert` wrote beside the model, "" where there is none."""
    path = Path(opened.source) / "README.md"
    try:
        found = metadata_load(path) if path.is_file() else None
        return path.read_text("utf-8") if "rlif_jax" in (found or {}).get("tags", []) else ""
    except (OSError, ValueError, TypeError, yaml.YAMLError):  # it is not one of those
        return ""


def _version(facts: RunFacts | None) -> str:
    """That of rlif_jax, by which the run was made or else the folder; "" where it is not known."""
    if facts is None:
        return rlif_jax.__version__
    return (facts.run.provenance.get("versions") or {}).get("rlif_jax", "")


def _linked(text: str) -> str:
    """A text whose numbers of papers lead to them."""
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[\g<0>](https://arxiv.org/abs/\1)", text)


def _dtype(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return config.get("dtype") or config.get("torch_dtype") or "float32"


def _licence_sentence(licence: Licence, whose: str) -> str:
    text = f"Its licence is that of the {whose} model"
    if not licence.id:
        return f"{text}, whose files do not say which."
    if licence.id != "other":
        return f"{text}, {licence.id}."
    name = licence.name or "which is not one of the common ones"
    return f"{text}, {name}{f': [{licence.link}]({licence.link})' if licence.link else ''}."


# ---- the problems


def _shown_set(name: str) -> str:
    """A problem set's name without folders."""
    if is_livecodebench(name) or is_evalplus(name):
        return name.partition("@")[0]
    return Path(name.removeprefix("jsonl:")).name


def _data(facts: RunFacts) -> Iterator[str]:
    data = facts.config.data
    if data.mix:
        parts = [f"{_shown_set(name)} ({weight:g})" for name, weight in data.mix]
        yield f"problem sets, with their weights: {', '.join(parts)}"
    else:
        yield f"problem set: {_shown_set(data.name)}"
    if facts.problems:
        yield f"{facts.problems} different problems were drawn up to step {facts.step}"
    for title, wanted in (("platforms", data.platforms), ("difficulties", data.difficulties)):
        if wanted:
            yield f"{title}: {', '.join(wanted)}"
    if data.dates:
        yield f"days of the contests: {data.dates}"
    if data.min_tests:
        yield f"problems with at least {data.min_tests} tests"
    if data.graded:
        least, most = data.pass_rates
        yield f"problems of whose graded samples {least:g} to {most:g} pass"
    yield f"problems whose prompt has at most {data.max_prompt_tokens} tokens"


# ---- the run


def _run(facts: RunFacts) -> dict[str, Any]:
    cfg, terms = facts.config, facts.config.reward.terms
    return {
        "step": facts.step,
        "reward": _reward(terms),
        "init_from": _run_name(cfg.init_from),
        "terms": [
            {"name": name, "weight": f"{weight:g}", **reward_text(name)._asdict()}
            for name, weight in terms
        ],
        "also": list(_also(cfg)),
        "data": list(_data(facts)),
        "settings": list(_settings(facts)),
        "sampled": (
            "avg@K is the mean share of K samples that pass all tests, pass@K the share of "
            f"problems that one of K solves; temperature {cfg.eval.temperature:g}, at most "
            f"{cfg.sampling.max_new_tokens} tokens, intervals over problems."
        ),
        "scores": _score_tables(facts),
        "collapse": _collapse(facts),
        "limits": list(_limits(facts)),
        "made_with": list(_made_with(facts.run.provenance)),
    }


def _reward(terms: Sequence[tuple[str, float]]) -> str:
    return " + ".join(f"`{name}`" if w == 1 else f"{w:g} · `{name}`" for name, w in terms)


def _run_name(init_from: str) -> str:
    """RUN or RUN@STEP in words, without folders."""
    name, _, step = init_from.rpartition("@")
    if name and step.isdigit():
        return f"step {step} of the run `{Path(name).name}`"
    return f"the run `{Path(init_from).name}`" if init_from else ""


def _also(cfg: Config) -> Iterator[str]:
    """The fields of what is learned that differ from their defaults and stand nowhere else."""
    for section in ("reward", "gates", "loss", "optim"):
        values = getattr(cfg, section)
        for field in dataclasses.fields(values):
            name, value = f"{section}.{field.name}", getattr(values, field.name)
            if value != getattr(type(values)(), field.name) and name not in _TOLD_OTHERWISE:
                yield f"`{name}` = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(facts: RunFacts) -> Iterator[tuple[str, str]]:
    cfg = facts.config
    loss, optim, model = cfg.loss, cfg.optim, cfg.model
    yield "steps", f"{facts.step} of {cfg.steps}"
    yield "prompts x samples", f"{cfg.data.prompts_per_step} x {cfg.sampling.samples_per_prompt}"
    if cfg.data.max_refills:
        yield "dynamic sampling", f"at most {cfg.data.max_refills} refills of a step"
    yield "longest completion", f"{cfg.sampling.max_new_tokens} tokens"
    yield "prompt style", cfg.data.prompt_style
    yield "sampling temperature", f"{cfg.sampling.temperature:g}"
    yield "learning rate", f"{optim.learning_rate:g}, after {optim.warmup_steps} steps of warm-up"
    clips = f"clip {loss.clip_low:g} / {loss.clip_high:g}"
    yield "loss", f"{loss.variant}, advantage {loss.advantage}, {loss.aggregation}, {clips}"
    to = "the starting model" if loss.kl_anchor == "start" else "an average of the policy"
    yield "KL", f"{loss.kl_coef:g} · {loss.kl_estimator} to {to}" if loss.kl_coef else "none"
    yield "updates a step", f"{loss.epochs * loss.mini_batches}"
    trained = f"adapters of rank {model.lora_rank} on {', '.join(model.lora_targets)}, merged"
    yield "trained", trained if model.lora_rank else "all parameters"
    yield "seed", f"{cfg.seed}"


def _score_tables(facts: RunFacts) -> list[dict[str, Any]]:
    """For each data set its scores before, best, and of the model's step or the last before it."""
    by_set: dict[str, list[Score]] = {}
    for score in facts.run.scores:
        by_set.setdefault(score.dataset, []).append(score)
    tables = []
    for dataset, scores in by_set.items():
        labels: dict[int, list[str]] = {}
        best = max(scores, key=lambda score: (score.value, score.step))
        own = max((s.step for s in scores if s.step <= facts.step), default=-1)
        exact = own == facts.step
        for step, label in (
            (0, "before training"),
            (best.step, "best of the run"),
            (own, "this model" if exact else "the last one evaluated before this model"),
        ):
            if any(score.step == step for score in scores):
                labels.setdefault(step, []).append(label)
        shown = [score for score in scores if score.step in labels]
        note = "" if exact else f"This model is of step {facts.step}, which was not evaluated."
        tables.append({"dataset": dataset, "note": note, **_score_table(shown, labels)})
    return tables


def _score_table(scores: Sequence[Score], labels: Mapping[int, list[str]]) -> dict[str, Any]:
    others = list(dict.fromkeys(name for score in scores for name in score.others))

    def cells(score: Score) -> list[str]:
        known = score.low is not None and score.high is not None
        interval = f"{score.low:.3f} to {score.high:.3f}" if known else ""
        more = [f"{score.others[n]:.3f}" if n in score.others else "" for n in others]
        length = "" if score.length is None else f"{score.length:.1f}"
        return [f"{score.value:.3f}", interval, *more, length]

    return {
        "columns": [scores[0].metric, "95% interval", *others, "tokens"],
        "rows": [
            {"label": ", ".join(labels[score.step]), "step": score.step, "cells": cells(score)}
            for score in sorted(scores, key=lambda score: score.step)
        ],
    }


def _collapse(facts: RunFacts) -> str:
    """What the guard of the run reported, "" where it watched no step."""
    if not facts.run.series("collapse/state")[0]:
        return ""
    if facts.run.collapse is None:
        return f"The guard of the run reported none up to step {facts.run.last_step}."
    told, reading = facts.run.collapse
    text = f"The guard of the run reported a collapse at step {told}: "
    text += f"since step {reading.since} {SAID[reading.sign]}."
    if facts.step == told:
        text += " This model is of that step."
    else:
        when = "an earlier" if facts.step < told else "a later"
        text += f" This model is of {when} step, {facts.step}."
    match facts.config.guard.action:
        case "stop":
            text += " The run ended there."
        case "switch" | "rollback":
            back = dict(zip(*facts.run.series("collapse/returned_to"), strict=True)).get(told)
            start = f" The run went back to step {back:.0f}, and" if back else " The run"
            text += f"{start} was rewarded by {_reward(facts.config.guard.terms)} from then on."
    return text


def _limits(facts: RunFacts) -> Iterator[str]:
    yield (
        "The programs that it writes are untrusted: run them in a sandbox, with limits on time and "
        "memory."
    )
    if any(reads_certainty(name) for name, _ in facts.config.reward.terms):
        yield _linked(
            "Certainty as reward lifts a code model early and then collapses it: responses "
            f"shorten, or repeat themselves up to the limit ({PAPER})."
        )
    if facts.run.scores:
        yield (
            "The scores are of one run with one seed; rows whose intervals overlap are not told "
            "apart."
        )


def _made_with(record: Mapping[str, Any]) -> Iterator[str]:
    versions = dict(record.get("versions") or {})
    if version := versions.pop("rlif_jax", ""):
        revision, _, dirty = str(record.get("revision") or "").partition("+")
        at = f" at git revision `{revision}`" if revision else ""
        yield f"rlif_jax {version}{at}{' with uncommitted changes' if dirty else ''}"
    if versions:
        yield ", ".join(f"{name} {version}" for name, version in versions.items())
    if record.get("platform"):
        count = len(record.get("devices") or [])
        yield f"{count} device{'' if count == 1 else 's'}, platform {record['platform']}"
