"""What a compiled stage moves through main memory, counted from its optimised HLO text.

`compiled.cost_analysis()` counts the body of a loop once, however often it turns, and the whole of
an operand where a kernel reads a part of it. Here the instructions are counted one by one, those of
a loop's body times its turns:

- A fusion reads its operands and writes its result; what happens inside it stays on the chip.
- Of an operand that is only sliced (or gathered from), inside a fusion too, the slices count. A
  `dynamic-update-slice` or scatter counts its update, since it writes in place; where it cannot,
  XLA puts a `copy` before it, which counts.
- Bytes are those of the buffer as laid out, the padding of tiles included.
- A buffer in on-chip memory costs nothing where it is used: the copy that brings it there counts
  what it reads.
- A kernel (custom call) counts all its operands and results, unless the caller says what one call
  of it moves: no text tells how much of the pool a paged attention reads.
- A collective that runs beside other work counts where it begins. The fusions of that work, which
  hand its buffers on, do not move them.
- Of the branches of a conditional the one that moves most counts.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from rlif_jax.planning.collectives import COLLECTIVE, DONE, START, Collectives
from rlif_jax.planning.hlo import VIEWS, Computation, Instruction, Module, array_bytes, bytes_of

_FREE = re.compile(
    "parameter|constant|get-tuple-element|tuple|bitcast|after-all|partition-id|replica-id"
    "|opt-barrier|domain|add-dependency|.*-done|.*-update"
)
_NOTHING = ("AllocateBuffer", "ConcatBitcast")
"""Custom calls that name a buffer and move nothing."""
_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATES = ("dynamic-update-slice", "scatter")


def bytes_per_step(text: str, kernels: Mapping[str, int] | None = None) -> int:
    """Bytes of main memory that one turn of the stage's (costliest outermost) loop moves.

    Args:
        text: `compiled.as_text()`, of one device's share.
        kernels: what one call of a custom call moves, by a part of its name in the text
            (`paged_attention`, `write_token`).

    Raises:
        ValueError: no loop; an inner loop whose turns cannot be told; a kernel that does not occur.
    """
    traffic = Traffic(Module.parse(text), kernels)
    moved, _ = traffic.step()
    if absent := traffic.kernels.keys() - traffic.met:
        raise ValueError(f"no custom call named {sorted(absent)} in the loops")
    return round(moved)


def dearest(
    text: str, kernels: Mapping[str, int] | None = None, top: int = 20
) -> list[tuple[int, int, str]]:
    """(bytes a step, turns a step, name) of the costliest instructions of a step: for a failure."""
    traffic = Traffic(Module.parse(text), kernels)
    rows = [
        (round(times * traffic.moved(here, op)), round(times), op.name)
        for here, op, times in traffic.executed(traffic.step()[1])
    ]
    return sorted(rows, reverse=True)[:top]


def collectives_in_loops(text: str) -> list[tuple[str, int]]:
    """(opcode, bytes of the result) of every collective inside a loop, one entry an instruction.

    The bytes are those of the array wherever it lies, and of one turn. `-start` forms are given
    without the suffix.
    """
    module = Module.parse(text)
    found, seen = [], set()

    def visit(computation: str, in_loop: bool) -> None:
        if (computation, in_loop) in seen:
            return
        seen.add((computation, in_loop))
        for op in module.computations[computation].instructions.values():
            kind = COLLECTIVE.fullmatch(op.opcode)
            if in_loop and kind:
                found.append((kind[1], max(array_bytes(op.type, on_chip=True))))
            for name in op.called:
                visit(name, in_loop or op.opcode == "while")

    visit(module.entry, False)
    return found


class Traffic:
    """Counts the bytes of main memory that instructions of a module move.

    `kernels` are the bytes that one call of a custom call moves, by a part of its instruction's
    name; `met` collects the names that occurred in what was counted. `turns(here, loop)` says how
    often a loop of `here` turns; None is what the text says, `Module.turns`.
    """

    def __init__(
        self,
        module: Module,
        kernels: Mapping[str, float] | None = None,
        turns: Callable[[Computation, Instruction], float] | None = None,
    ):
        self._module = module
        self._collectives = Collectives(module)
        self._turns = turns or module.turns
        self.kernels = dict(kernels or {})
        self.met: set[str] = set()

    def step(self) -> tuple[float, str]:
        """Bytes of one turn, and the body, of the outermost loop that moves most in a turn.

        Raises:
            ValueError: the module has no loop.
        """
        bodies = {loop.body for loop in self._module.loops(self._module.entry)}
        if not bodies:
            raise ValueError("the stage has no loop")
        return max((self.of(body), body) for body in bodies)

    def of(self, computation: str) -> float:
        """Bytes moved by one run of a computation, inner loops times their turns."""
        return sum(times * self.moved(here, op) for here, op, times in self.executed(computation))

    def executed(
        self, computation: str, times: float = 1
    ) -> Iterator[tuple[Computation, Instruction, float]]:
        """The instructions that run, where they stand, and how often in `times` runs.

        Loops and calls give those inside them; a fusion is one instruction.
        """
        here = self._module.computations[computation]
        for op in here.instructions.values():
            if op.opcode == "while":
                yield from self.executed(op.body, times * self._turns(here, op))
            elif op.opcode == "conditional":
                yield from self.executed(max(op.called, key=self.of), times)
            elif op.opcode in ("call", "async-start"):
                for name in op.called:
                    yield from self.executed(name, times)
            else:
                yield here, op, times

    def kernel(self, op: Instruction) -> str | None:
        """The name in `kernels` that a custom call has in its own; None if there is none."""
        if op.opcode != "custom-call":
            return None
        for name in self.kernels:
            if name in op.name:
                self.met.add(name)
                return name
        return None

    def moved(self, here: Computation, op: Instruction) -> float:
        """Bytes moved by one instruction of `here` that `executed` gives."""
        kind = op.opcode
        if _FREE.fullmatch(kind) or op.target in _NOTHING:
            return 0
        if (name := self.kernel(op)) is not None:
            return self.kernels[name]
        if kind == "fusion":
            return self._fusion(here, op)
        kind, sizes = kind.removesuffix("-start"), array_bytes(op.type)
        if kind != op.opcode:  # (to, from, ...) of a copy, (operand, result, ...) of all others
            sizes = sizes[:1] if kind == "copy" else sizes[1:2] or sizes
        written = sum(sizes)
        if kind in _SLICES:
            return 2 * written
        if kind in _UPDATES:
            return 2 * _update(here, op)
        return sum(bytes_of(here.instructions[name].type) for name in op.operands) + written

    def _fusion(self, here: Computation, op: Instruction) -> int:
        inner = self._module.computations[op.called[0]]
        total = 0
        for place, name in enumerate(op.operands):
            whole = bytes_of(here.instructions[name].type)
            if whole:
                total += min(whole, self._read(inner, inner.parameter(place).name))
        sizes = zip(array_bytes(op.type), self._written(inner, inner.root), strict=True)
        return total + sum(min(whole, size) for whole, size in sizes)

    def _read(self, inner: Computation, name: str) -> int:
        """Bytes of a fusion's parameter that the fusion reads."""
        whole = bytes_of(inner.instructions[name].type, on_chip=True)
        total = whole if name == inner.root else 0
        for user, place in inner.users(name):
            if place == 0 and user.opcode in _SLICES:
                total += bytes_of(user.type, on_chip=True)
            elif place == 0 and user.opcode in _UPDATES:
                continue  # it is written in place
            elif user.opcode == "bitcast" or self._only_copies(user):
                total += self._read(inner, user.name)
            elif user.opcode == "fusion":
                nested = self._module.computations[user.called[0]]
                total += self._read(nested, nested.parameter(place).name)
            elif self._handed_on(inner, user) or (user.opcode == "tuple" and self._hands_on(inner)):
                continue
            else:
                return whole
        return min(whole, total)

    def _only_copies(self, op: Instruction) -> bool:
        """Whether a fusion inside a fusion lays its operand out anew, of which users take parts."""
        if op.opcode != "fusion":
            return False
        nested = self._module.computations[op.called[0]]
        return nested.instructions[nested.root].opcode == "copy" and len(nested.instructions) == 2

    def _written(self, inner: Computation, name: str) -> list[int]:
        """Bytes that a fusion writes for each of the results that come from `name`."""
        op = source = inner.instructions[name]
        if self._handed_on(inner, op):
            return [0] * len(array_bytes(op.type))
        if op.target == START:  # (operand, result, ...): the operand lies there already
            return [0, *array_bytes(op.type, on_chip=True)[1:]]
        if op.opcode == "parameter" and self._hands_on(inner):
            return [0]
        if op.opcode == "tuple":
            return [size for part in op.operands for size in self._written(inner, part)]
        if op.opcode == "fusion":
            nested = self._module.computations[op.called[0]]
            return self._written(nested, nested.root)
        while source.opcode in VIEWS:
            source = inner.operand(source, 0)
        if source.opcode in _UPDATES:
            return [_update(inner, source)]
        return array_bytes(op.type, on_chip=True)

    def _handed_on(self, inner: Computation, op: Instruction) -> bool:
        """Whether a collective that another fusion has begun goes through an instruction."""
        return op.target == DONE or self._collectives.continues(inner, op)

    def _hands_on(self, inner: Computation) -> bool:
        """Whether a fusion hands the buffers of such a collective on beside its own work."""
        return any(self._handed_on(inner, op) for op in inner.instructions.values())


def _update(here: Computation, op: Instruction) -> int:
    """Bytes of what a `dynamic-update-slice` or a scatter writes into its first operand."""
    update = here.operand(op, -1 if op.opcode == "scatter" else 1)
    return bytes_of(update.type, on_chip=True)
