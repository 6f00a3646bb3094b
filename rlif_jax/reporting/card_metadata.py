"""What a model card says to the Hub: its YAML front matter, by the Hub's own client."""

from collections.abc import Iterator, Sequence

from huggingface_hub import EvalResult, ModelCardData

from rlif_jax.config import Data
from rlif_jax.data.sets.livecodebench import is_livecodebench
from rlif_jax.reporting.held_out import Score
from rlif_jax.reporting.reward_texts import reads_certainty
from rlif_jax.reporting.run_facts import Base, RunFacts
from rlif_jax.weights.licence import Licence

_HUB_SETS = {
    "humaneval": "openai/openai_humaneval",
    "humanevalplus": "evalplus/humanevalplus",
    "mbppplus": "evalplus/mbppplus",
    "livecodebench": "livecodebench/code_generation_lite",
}


def metadata(
    facts: RunFacts | None, base: Base, licence: Licence, title: str, safetensors: bool
) -> ModelCardData:
    """The front matter of a card. Scores are there only where they are of this very step."""
    tags, results, datasets = ["rlif_jax", "code"], [], []
    if facts:
        terms = [name for name, _ in facts.config.reward.terms]
        tags += ["reinforcement-learning", facts.config.loss.variant]
        tags += ["rlif"] if any(map(reads_certainty, terms)) else []
        tags += ["rlvr"] if "tests_passed" in terms else []
        held_out = _hub_set(facts.config.eval.data or facts.config.data.name)
        own = [score for score in facts.run.scores if score.step == facts.step]
        results = [result for score in own for result in _results(score, held_out)]
        datasets = [_hub_set(name) for name, _ in _sets(facts.config.data)]
    data = ModelCardData(
        license=licence.id or None,
        license_name=licence.name or None,
        license_link=licence.link or None,
        base_model=base.hub or None,
        library_name="transformers" if safetensors else None,
        pipeline_tag="text-generation",
        tags=tags,
        datasets=sorted({name for name in datasets if name}) or None,
        model_name=title if results else None,
        eval_results=results or None,
    )
    if facts and base.hub:
        data["base_model_relation"] = "finetune"
    return data


def _results(score: Score, held_out: str) -> Iterator[EvalResult]:
    """avg@K with its interval, and pass@K; `held_out` is what the Hub calls the data set, or ""."""
    interval = None
    if score.low is not None and score.high is not None:
        interval = {"interval_95": [round(score.low, 4), round(score.high, 4)]}
    for name, value in {score.metric: score.value, **score.others}.items():
        yield EvalResult(
            task_type="text-generation",
            dataset_type=held_out or score.dataset,
            dataset_name=score.dataset,
            metric_type=name,
            metric_value=round(value, 4),
            metric_args=interval if name == score.metric else None,
        )


def _sets(data: Data) -> Sequence[tuple[str, float]]:
    return data.mix or ((data.name, 1.0),)


def _hub_set(name: str) -> str:
    """A problem set's ORG/NAME on the Hub, "" where it has none that is known here."""
    if is_livecodebench(name):
        return _HUB_SETS["livecodebench"]
    return _HUB_SETS.get(name.partition("@")[0], "")
