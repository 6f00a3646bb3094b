"""How long the prompts and responses of a step are expected to be."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlif_jax.config import Config
from rlif_jax.errors import UserError, shown
from rlif_jax.run.log import rollout_file, rollout_steps

_RESPONSE_MEDIAN, _RESPONSE_SIGMA, _RESPONSE_LEAST = 2981, 0.8, 150
_PROMPT_MEDIAN, _PROMPT_SIGMA, _PROMPT_LEAST = 450, 0.5, 64


@dataclass(frozen=True)
class Lengths:
    """Tokens of N prompts, and of their N * G responses in row order; where they are from."""

    prompt_N: np.ndarray
    response_B: np.ndarray
    source: str


def run_lengths(cfg: Config, source: str) -> Lengths:
    """`step_lengths` of a step of this configuration."""
    return step_lengths(
        source,
        prompts=cfg.data.prompts_per_step,
        samples=cfg.sampling.samples_per_prompt,
        longest_prompt=cfg.data.max_prompt_tokens,
        longest_response=cfg.sampling.max_new_tokens,
    )


def step_lengths(
    source: str, *, prompts: int, samples: int, longest_prompt: int, longest_response: int
) -> Lengths:
    """The lengths of one step, the same at every call.

    Args:
        source: "paper", "longest" or a run folder, from whose rollouts responses are drawn.
        prompts: N, prompts of the step.
        samples: G, responses of a prompt.
        longest_prompt: most tokens of a prompt.
        longest_response: most tokens of a response.

    Raises:
        UserError: a run folder without rollouts, or with damaged ones.
    """
    rng, B = np.random.default_rng(0), prompts * samples
    prompt_N = _lognormal(rng, prompts, _PROMPT_MEDIAN, _PROMPT_SIGMA)
    prompt_N = np.clip(prompt_N, min(_PROMPT_LEAST, longest_prompt), longest_prompt)
    about_prompts = f"prompts: log-normal, median {_PROMPT_MEDIAN} tokens, cut at {longest_prompt}"
    if source == "longest":
        response_B = np.full(B, longest_response)
        about = f"responses: all of {longest_response:,} tokens, as in a max-length collapse"
    elif source == "paper":
        response_B = _lognormal(rng, B, _RESPONSE_MEDIAN, _RESPONSE_SIGMA)
        response_B = np.clip(response_B, min(_RESPONSE_LEAST, longest_response), longest_response)
        about = (
            f"responses: log-normal, median {_RESPONSE_MEDIAN:,} tokens, sigma {_RESPONSE_SIGMA}, "
            f"cut at {longest_response:,}; so mean {response_B.mean():,.0f} "
            "(arXiv 2606.20881 reports about 3,600 at 8,192)"
        )
    else:
        recorded = recorded_lengths(Path(source))
        response_B = np.minimum(rng.choice(recorded, B), longest_response)
        about = f"responses: drawn from the {len(recorded):,} recorded in {source}"
    return Lengths(prompt_N, response_B.astype(np.int64), f"{about}. {about_prompts}")


def recorded_lengths(run: Path) -> np.ndarray:
    """Tokens of every response in a run folder's rollouts. Raises UserError where it has none."""
    found = []
    if not (run / "rollouts").is_dir():
        raise UserError(
            f"--lengths {run} is no run folder with rollouts/; give one, or 'paper' or 'longest'"
        )
    for path in (rollout_file(run, step) for step in rollout_steps(run)):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                length = json.loads(line)["length"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"line {number} of {path} is no rollout: {shown(line)}") from error
            found.append(length)
    if not found:
        raise UserError(f"--lengths {run} has no rollouts yet; give another run folder, or 'paper'")
    return np.asarray(found)


def _lognormal(rng: np.random.Generator, count: int, median: float, sigma: float) -> np.ndarray:
    return np.round(rng.lognormal(np.log(median), sigma, count)).astype(np.int64)
