"""Whether the stages of a run fit on a chip, and what to change where they do not."""

from collections.abc import Iterator, Mapping

from rlif_jax.planning.chips import Slice
from rlif_jax.planning.compiled import CompiledStage, TooLarge
from rlif_jax.planning.stages import StagesAhead

_GIB = 2**30


def refusals(
    ahead: StagesAhead, compiled: Mapping[str, CompiledStage | TooLarge], slice_: Slice
) -> list[str]:
    """A sentence for each stage that a chip has no room for: what it needs, and the remedies."""
    problems = []
    if slice_.chip is None:
        return problems
    room = slice_.chip.memory_gib
    for name, stage in compiled.items():
        beside = ahead.held_beside(name) / _GIB
        needed = stage.needed_gib if isinstance(stage, TooLarge) else stage.memory.total / _GIB
        if needed + beside <= room:
            continue
        said = f"{name} needs {needed + beside:.2f} GiB on a chip, and a {slice_.chip.name} has "
        said += f"{room:.2f}. It holds {', '.join(_held(ahead, name))}"
        if isinstance(stage, TooLarge) and stage.largest:
            largest = ", ".join(
                f"{gib:.2f} GiB {shape}" + (f" of {name}" if name else "")
                for gib, shape, name in stage.largest
            )
            said += f"; its largest buffers are {largest}"
        problems.append(f"{said}. Remedies: {'; '.join(_remedies(ahead, name))}")
    return problems


def _held(ahead: StagesAhead, name: str) -> Iterator[str]:
    """What lies on the chip, whatever the stage computes."""
    averaged = ahead.cfg.optim.average_decay is not None
    parts = {
        f"parameters{', average' if averaged else ''} and moments": ahead.state_bytes,
        "the KL term's reference": ahead.reference_bytes,
        "the sampler's weights": ahead.decode_bytes if name != "update" else 0,
        "the key/value cache": ahead.cache_bytes if name in ("prefill", "decode") else 0,
    }
    for what, held in parts.items():
        if held:
            yield f"{held / _GIB:.2f} GiB of {what}"


def _remedies(ahead: StagesAhead, name: str) -> Iterator[str]:
    """Fields to change, those that cost least first."""
    cfg = ahead.cfg
    if name in ("prefill", "decode"):
        cache = ahead.cache_bytes / _GIB
        yield f"--sampling.cache-gib below {cache:.2f}, or fewer --sampling.slots"
    else:
        if cfg.loss.tokens_per_micro_batch > cfg.longest_row:
            yield f"--loss.tokens-per-micro-batch {cfg.longest_row}"
        if cfg.model.remat in ("none", "attention"):
            yield "--model.remat layer"
        if cfg.model.dtype == "float32":
            yield "--model.dtype bfloat16"
        if cfg.anchored_at_start and not cfg.loss.reference_on_host:
            yield "--loss.reference-on-host"
        yield f"--mesh.context {2 * cfg.mesh.context}, which splits each row over chips"
    if cfg.optim.first_moment_dtype == "float32":
        yield "--optim.first-moment-dtype bfloat16"
    yield (
        f"--mesh.fsdp {2 * cfg.mesh.fsdp} or --mesh.tensor {2 * cfg.mesh.tensor} on a slice of "
        f"{2 * ahead.mesh.size} chips"
    )
