"""How long the runs of a suite take on a slice, by their plans."""

import dataclasses
from collections.abc import Sequence

from rlif_jax.config import Checkpoint, Config, Guard, Optim
from rlif_jax.console.notice import Notice
from rlif_jax.errors import UserError
from rlif_jax.model.config import check_length
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.forecast import check_slice, forecast, use_cpu
from rlif_jax.planning.lengths import run_lengths
from rlif_jax.planning.report import evaluation_seconds, run_seconds
from rlif_jax.rewards import samplings
from rlif_jax.weights.model_shape import model_shape


def seconds_by_plan(
    runs: Sequence[tuple[Config, int]], slice_: Slice, notice: Notice
) -> list[float]:
    """The seconds that so many steps of each configuration take, its evaluations included.

    Runs that differ in nothing that is compiled have one plan together.

    Raises:
        UserError: the seconds of the slice's chips are not known, or a run does not fit.
    """
    if slice_.chip is None:
        raise UserError(f"it is not known how fast {slice_.name} is; name TPUs or GPUs")
    use_cpu(slice_)
    plans: dict[Config, tuple[float, float]] = {}
    distinct = {_compiled(cfg) for cfg, _ in runs}
    seconds = []
    for cfg, steps in runs:
        key = _compiled(cfg)
        if key not in plans:
            notice(f"planning {cfg.name} for {slice_.name}", len(plans), len(distinct))
            plans[key] = _planned(key, slice_)
        seconds.append(run_seconds(cfg, steps, *plans[key]))
    return seconds


def _compiled(cfg: Config) -> Config:
    """The configuration without what neither a stage nor the number of samplings depends on."""
    terms = cfg.reward.terms if samplings(cfg) > 1 else ()
    return dataclasses.replace(
        cfg,
        **{name: getattr(Config, name) for name in ("name", "run_dir", "seed", "steps")},
        **{name: getattr(Config, name) for name in ("init_from", "init_optimizer")},
        reward=dataclasses.replace(cfg.reward, terms=terms, ramps=()),
        optim=dataclasses.replace(cfg.optim, learning_rate=Optim.learning_rate),
        checkpoint=Checkpoint(),
        guard=Guard(),
    )


def _planned(cfg: Config, slice_: Slice) -> tuple[float, float]:
    """Seconds of a step and of an evaluation."""
    model = model_shape(cfg.model.source)
    lengths = run_lengths(cfg, "paper")
    check_length(model, cfg.model.source, cfg.data.max_prompt_tokens, cfg.sampling.max_new_tokens)
    check_slice(slice_, cfg, model)
    found = forecast(cfg, model, slice_, lengths)
    if found.step is None:
        raise UserError(f"a run of the suite does not fit {slice_.name}: {found.refused[0]}")
    return found.step.step_s, evaluation_seconds(found.ahead, found.step)
