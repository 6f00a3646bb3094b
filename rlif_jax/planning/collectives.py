"""What the chips send each other in a compiled stage, counted from its optimised HLO text.

Bytes are those that one device sends when a group of n devices passes the pieces around a ring:
(n-1)/n of the result of an all-gather, of the operand of a reduce-scatter and of an all-to-all,
twice that of an all-reduce, and the whole operand of a permute or a broadcast
(https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md). Libtpu writes two of them in
a form of its own:

- A reduce-scatter is a fusion of an all-reduce and of the slice that a device keeps.
- An all-gather that runs beside other work stands in several fusions: in one with the custom call
  `AsyncCollectiveStart`, in those of the work beside it, and in one with `AsyncCollectiveDone`.
  All have one channel; the first counts.
"""

import re
from collections.abc import Iterator
from math import prod

from rlif_jax.planning.hlo import VIEWS, Computation, Instruction, Module, array_bytes, bytes_of

COLLECTIVE = re.compile(
    "(all-gather|all-reduce|reduce-scatter|(?:ragged-)?all-to-all|collective-(?:permute|broadcast))"
    "(?:-start)?"
)
"""The opcodes; the first group is the kind."""

START, DONE = "AsyncCollectiveStart", "AsyncCollectiveDone"


class Collectives:
    """Counts what the collectives of a module send."""

    def __init__(self, module: Module):
        self._module = module
        self._begun = {
            here.operand(op, 0).channel
            for here in module.computations.values()
            for op in here.instructions.values()
            if op.target == START
        }

    def sent(self, here: Computation, op: Instruction) -> dict[str, float]:
        """Kind -> bytes that a device sends in one instruction of `here`, or inside its fusion."""
        total = {}
        for where, each in self._within(here, op):
            kind, sent = _sent(where, each, self._module.devices)
            total[kind] = total.get(kind, 0.0) + sent
        return total

    def continues(self, fused: Computation, op: Instruction) -> bool:
        """Whether an instruction of a fusion is a collective that another fusion has begun."""
        if not COLLECTIVE.fullmatch(op.opcode) or op.channel not in self._begun:
            return False
        return all(user.target != START for user, _ in fused.users(op.name))

    def _within(
        self, here: Computation, op: Instruction
    ) -> Iterator[tuple[Computation, Instruction]]:
        if COLLECTIVE.fullmatch(op.opcode):
            yield here, op
        elif op.opcode == "fusion":
            fused = self._module.computations[op.called[0]]
            for each in fused.instructions.values():
                if not self.continues(fused, each):
                    yield from self._within(fused, each)


def group_size(op: Instruction, devices: int) -> int:
    """Devices of the largest group of a collective, in a stage that runs on `devices`.

    The groups are lists, `{{0,1},{2,3}}`, a list of all as `[groups,size]<=[...]`, or axes of a
    mesh, `mesh['a'=4,'b'=2] {'b'}`, where `'a':(2)2` is a part of an axis.

    Raises:
        ValueError: the groups are written in another way.
    """
    if axes := re.search(r"replica_groups=mesh\[(.*?)\].*?\{(['A-Za-z_].*?)?\}", op.attributes):
        sizes = {name: int(n) for name, n in re.findall(r"'?([\w.\-]+)'?=(\d+)", axes[1])}
        parts = re.findall(r"'?([A-Za-z_][\w.\-]*)'?(?::\(\d+\)(\d+))?", axes[2] or "")
        return prod(int(part) if part else sizes[name] for name, part in parts)
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]<=", op.attributes):
        return int(counted[1])
    if listed := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", op.attributes):
        groups = re.findall(r"\{([\d,]*)\}", listed[1])
        return max((group.count(",") + 1 for group in groups), default=devices)
    raise ValueError(f"{op.name} does not say in which groups it works: {op.attributes[:200]}")


def _sent(here: Computation, op: Instruction, devices: int) -> tuple[str, float]:
    """The kind of a collective, and the bytes that a device sends."""
    kind = _kind(here, op)
    given = sum(bytes_of(here.instructions[name].type, on_chip=True) for name in op.operands)
    if kind in ("collective-permute", "collective-broadcast"):
        return kind, float(given)
    n = group_size(op, devices)
    if kind == "all-gather":
        given = _gathered(op)
    return kind, (2 if kind == "all-reduce" else 1) * given * (n - 1) / n


def _kind(here: Computation, op: Instruction) -> str:
    """The kind of a collective; of an all-reduce that is only sliced, which it is in a fusion."""
    found = COLLECTIVE.fullmatch(op.opcode)
    if found is None:
        raise ValueError(f"{op.name} is not a collective: its opcode is {op.opcode}")
    if op.opcode == "all-reduce" and here.root != op.name:
        users = [user for user, _ in here.users(op.name)]
        while users and all(user.opcode in VIEWS for user in users):
            users = [after for user in users for after, _ in here.users(user.name)]
        if users and all(user.opcode == "dynamic-slice" for user in users):
            return "reduce-scatter"
    return found[1]


def _gathered(op: Instruction) -> int:
    """Bytes of what an all-gather returns; the type of a `-start` has its operands before them."""
    sizes, n = array_bytes(op.type, on_chip=True), len(op.operands)
    return sum(sizes[n : 2 * n] if op.opcode.endswith("-start") else sizes)
