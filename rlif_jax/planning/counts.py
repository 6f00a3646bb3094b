"""What one call of a compiled stage does on a device, counted from its optimised HLO text.

`products` counts floating-point operations, `traffic` the bytes of main memory, `collectives` what
goes between devices. Each instruction counts as often as it runs: `compiled.cost_analysis()` takes
the body of a loop once, however often it turns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlif_jax.planning.collectives import Collectives
from rlif_jax.planning.hlo import Computation, Instruction, Module
from rlif_jax.planning.products import Products
from rlif_jax.planning.traffic import Traffic


@dataclass(frozen=True)
class Work:
    """What a device does; two add up, and a number times a work is one repeated.

    `flops` are the operations of matrix products, a multiplication and an addition being two, with
    those that a kernel is said to make. `bytes` are moved through main memory. `sent` says, for
    each kind of collective, how many bytes a device sends over the interconnect.
    """

    flops: float = 0.0
    bytes: float = 0.0
    sent: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: "Work") -> "Work":
        kinds = {**self.sent, **other.sent}
        sent = {kind: self.sent.get(kind, 0.0) + other.sent.get(kind, 0.0) for kind in kinds}
        return Work(self.flops + other.flops, self.bytes + other.bytes, sent)

    def __mul__(self, times: float) -> "Work":
        sent = {kind: times * size for kind, size in self.sent.items()}
        return Work(times * self.flops, times * self.bytes, sent)

    __rmul__ = __mul__


def work_of(
    text: str,
    *,
    turns: float = 1,
    kernels: Mapping[str, Work] | None = None,
    inner: float | None = None,
) -> Work:
    """What one call of a stage does on a device.

    Args:
        text: the optimised HLO of one device's share, as `ahead.compile_with_text` gives it.
        turns: of those loops of the entry computation whose number of turns is data: the
            micro-batches of the scorer and of the update, the steps of a chunk of decoding, the
            pages that a prefill fills.
        kernels: what one call of a custom call does, by a part of its name in the text
            (`splash_mha_fwd`, `paged_attention`). Other custom calls move their operands and
            results and compute nothing.
        inner: turns of loops inside these whose number is data, on average: the blocks of keys that
            a block of queries visits in attention on CPUs, the pages that a step of decoding reads.

    Raises:
        ValueError: such a loop inside, without `inner`; a kernel that does not occur.
    """
    module, kernels = Module.parse(text), kernels or {}
    outermost = {loop.name for loop in module.loops(module.entry)}

    def turns_of(here: Computation, loop: Instruction) -> float:
        try:
            return module.turns(here, loop)
        except ValueError as error:
            if loop.name in outermost:
                return turns
            if inner is None:
                message = f"the text does not say how often {loop.name} turns: say it by `inner`"
                raise ValueError(message) from error
            return inner

    traffic = Traffic(module, {name: work.bytes for name, work in kernels.items()}, turns_of)
    products, collectives = Products(module), Collectives(module)
    total = Work()
    for here, op, times in traffic.executed(module.entry):
        if (name := traffic.kernel(op)) is not None:
            work = kernels[name]
        else:
            work = Work(
                products.flops(here, op), traffic.moved(here, op), collectives.sent(here, op)
            )
        total += times * work
    if absent := kernels.keys() - traffic.met:
        raise ValueError(f"no custom call named {sorted(absent)}")
    return total
