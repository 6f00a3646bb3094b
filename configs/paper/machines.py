"""Where the study's models run: for each model four machines, with the mesh and the memory to use.

This is the one place of these numbers. `base.py` takes a model's first machine; the docstrings of
the configurations list the flags that lead to the others. After a change of the table,

    python -m configs.paper.machines
    python -m benchmarks.paper_plans

write the flags into the docstrings anew, and what `rlif_jax.plan` says of each machine into
benchmarks/paper_plans.json. None of it has run. `tensor` is above 1 because sampling takes most of
a step, and each of its steps reads a chip's whole share of the weights.
"""

import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rlif_jax.config import Config, Mesh
from rlif_jax.config.shared import Remat

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Machine:
    """The settings of a run that depend on its machine. They change its numbers by rounding only.

    `slots` are those of the whole mesh; their cache takes what memory is free. The other fields are
    the ones of `loss` and `model` that bear these names.
    """

    mesh: Mesh
    slots: int
    tokens_per_micro_batch: int = 0
    remat: Remat = "layer"

    def applied(self, config: Config) -> Config:
        """The configuration on this machine."""
        return replace(
            config,
            mesh=self.mesh,
            sampling=replace(config.sampling, slots=self.slots),
            loss=replace(config.loss, tokens_per_micro_batch=self.tokens_per_micro_batch),
            model=replace(config.model, remat=self.remat),
        )

    def settings(self) -> dict[str, int | float | str]:
        """The flags of `rlif_jax.train` that `applied` stands for, with their values."""
        return {f"mesh.{axis}": devices for axis, devices in asdict(self.mesh).items()} | {
            "sampling.slots": self.slots,
            "loss.tokens-per-micro-batch": self.tokens_per_micro_batch,
            "model.remat": self.remat,
        }


MACHINES: Mapping[str, Mapping[str, Machine]] = {
    "r1_1p5b_8k": {
        "v5e:4x4": Machine(Mesh(fsdp=8, tensor=2), slots=1024),
        "v6e:2x4": Machine(Mesh(fsdp=4, tensor=2), slots=1024),
        "v5p:2x2x2": Machine(Mesh(fsdp=4, tensor=2), slots=1024),
        "gpu:h100x8": Machine(Mesh(fsdp=4, tensor=2), slots=1024),
    },
    "r1_1p5b_16k": {
        "v5e:4x4": Machine(Mesh(fsdp=8, tensor=2), slots=1024),
        "v6e:2x4": Machine(Mesh(fsdp=4, tensor=2), slots=1024),
        "v5p:2x2x2": Machine(Mesh(fsdp=4, tensor=2), slots=1024),
        "gpu:h100x8": Machine(Mesh(fsdp=4, tensor=2), slots=1024),
    },
    "qwen3_4b_16k": {
        "v5e:8x8": Machine(Mesh(fsdp=16, tensor=4), slots=1024),
        "v6e:4x4": Machine(Mesh(fsdp=4, tensor=4), slots=640),
        "v5p:2x2x4": Machine(Mesh(fsdp=4, tensor=4), slots=1024),
        "gpu:h100x8": Machine(Mesh(fsdp=4, tensor=2), slots=768),
    },
    "coder_7b_8k": {
        "v5e:8x8": Machine(Mesh(fsdp=16, tensor=4), slots=1024),
        "v6e:4x4": Machine(Mesh(fsdp=4, tensor=4), slots=1024),
        "v5p:2x2x4": Machine(Mesh(fsdp=4, tensor=4), slots=1024),
        "gpu:h100x8": Machine(Mesh(fsdp=2, tensor=4), slots=1024),
    },
}
"""By the folder of the configurations, and by name: a TPU slice's topology, or a host's GPUs."""


def first(folder: str) -> Machine:
    """The machine that a model's configurations are made for."""
    return next(iter(MACHINES[folder].values()))


def flags(folder: str, name: str) -> list[str]:
    """What to add to the command of a model's configuration for another machine than its first."""
    mine, default = MACHINES[folder][name].settings(), first(folder).settings()
    return [f"--{flag}={value}" for flag, value in mine.items() if value != default[flag]]


def listing(folder: str) -> str:
    """A model's machines and their flags, as its docstrings list them."""
    axes = [f"{axis}={n}" for axis, n in asdict(first(folder).mesh).items() if n > 1]
    lines = []
    for name in MACHINES[folder]:
        words = " ".join(flags(folder, name)) or f"no flags: {', '.join(axes)}"
        lines += textwrap.wrap(
            words,
            width=100,
            initial_indent=f"    {name:<12}",
            subsequent_indent=" " * 16,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return "\n".join(lines)


def main() -> None:
    """Write the machines and their flags into the docstrings of all configurations."""
    for folder in MACHINES:
        for path in sorted((HERE / folder).glob("*.py")):
            listed = re.compile(r"^    (?:v5e|v6e|v5p|gpu):.*?(?=\n\n)", re.MULTILINE | re.DOTALL)
            text, found = listed.subn(lambda _, folder=folder: listing(folder), path.read_text())
            if found != 1:
                raise SystemExit(f"{path} lists its machines {found} times; it must do so once")
            path.write_text(text)


if __name__ == "__main__":
    main()
