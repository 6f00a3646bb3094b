"""Plan a run for chips that are not there: does it fit, how long is a step, what binds.

python -m rlif_jax.plan --config=configs/prob_disparity.py --topology v5e:2x2 --mesh.fsdp 4

XLA compiles the stages that train runs, ahead of time: for TPUs by libtpu, which needs no TPU.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rlif_jax.config import Config, load
from rlif_jax.config.processors import own_processors
from rlif_jax.config.validate import validate
from rlif_jax.console.meter import Phases
from rlif_jax.console.screen import Screen
from rlif_jax.errors import UserError, exit_on_user_error
from rlif_jax.model.config import ModelConfig, check_length
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.forecast import check_slice, forecast, use_cpu
from rlif_jax.planning.lengths import Lengths, run_lengths
from rlif_jax.planning.report import as_json, found_json, show, show_found
from rlif_jax.planning.search import NO_MESH, search
from rlif_jax.rewards import executing_rewards, known_rewards
from rlif_jax.weights.model_shape import model_shape


@dataclass(frozen=True)
class Asked:
    """What to plan, beside the configuration."""

    slice: Slice
    lengths: str
    price: float | None
    search: bool
    json: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 1 where the run does not fit, 2 for bad input."""
    with exit_on_user_error():
        asked, cfg = _arguments(sys.argv[1:] if argv is None else argv)
        validate(cfg, known_rewards(), executing_rewards())
        model = model_shape(cfg.model.source)
        prompt, response = cfg.data.max_prompt_tokens, cfg.sampling.max_new_tokens
        check_length(model, cfg.model.source, prompt, response)
        lengths = run_lengths(cfg, asked.lengths)
        use_cpu(asked.slice)
        fits = (compare if asked.search else plan)(asked, cfg, model, lengths)
        raise SystemExit(0 if fits else 1)


def plan(asked: Asked, cfg: Config, model: ModelConfig, lengths: Lengths) -> bool:
    """Print the plan of a configuration; whether the run fits."""
    screen = Screen(stderr=asked.json)
    check_slice(asked.slice, cfg, model)
    with Phases(screen) as notice:
        found = forecast(cfg, model, asked.slice, lengths, notice)
    for problem in found.refused:
        print(f"does not fit: {problem}", file=sys.stderr)
    if found.step is None:
        return False
    if asked.json:
        figures = as_json(found.ahead, found.step, lengths, asked.slice, asked.price)
        print(json.dumps(figures, indent=2))
    else:
        show(screen.console, found.ahead, found.step, lengths, asked.slice, asked.price)
    return True


def compare(asked: Asked, cfg: Config, model: ModelConfig, lengths: Lengths) -> bool:
    """Print what the candidates of a search need and take; whether one fits."""
    screen = Screen(stderr=asked.json)
    with Phases(screen) as notice:
        tried = search(cfg, model, asked.slice, lengths, own_processors(), notice)
    fitting = [one for one in tried if one.step is not None]
    if asked.json:
        print(json.dumps([found_json(one, asked.slice, asked.price) for one in fitting], indent=2))
    elif fitting:
        show_found(screen.console, fitting, len(tried), asked.slice, asked.price)
    if not fitting:
        for problem in tried[0].refused if tried else [NO_MESH.format(asked.slice.name)]:
            print(f"nothing fits; for one, {problem}", file=sys.stderr)
    return bool(fitting)


def _arguments(argv: Sequence[str]) -> tuple[Asked, Config]:
    """The flags of this command, and the configuration that all others describe."""
    parser = argparse.ArgumentParser(
        prog="python -m rlif_jax.plan",
        description=__doc__,
        epilog="All other flags are fields of the configuration, as in rlif_jax.train: --mesh.fsdp "
        "16, --sampling.slots 1024; `python -m rlif_jax.train --help` lists them.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="configuration file, as of train")
    parser.add_argument(
        "--topology",
        required=True,
        help="v5e:4x4, v6e:4x4, v5p:2x2x2, v4:2x2x4; gpu:h100x8 (an estimate); cpu:8",
    )
    parser.add_argument(
        "--lengths",
        default="paper",
        help="lengths of responses: paper, longest (all at the limit), or a run folder's own",
    )
    parser.add_argument("--price", type=float, help="of a chip-hour: says what the run costs")
    parser.add_argument(
        "--search", action="store_true", help="try meshes, slots, tokens a micro-batch and remat"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    known, rest = parser.parse_known_args(argv)
    cfg = load([f"--config={known.config}", *rest], prog="python -m rlif_jax.plan")
    if known.price is not None and not known.price > 0:
        raise UserError(f"--price {known.price} must be above 0")
    slice_ = Slice.parse(known.topology)
    return Asked(slice_, known.lengths, known.price, known.search, known.json), cfg


if __name__ == "__main__":
    main()
