"""What a compiled program moves in one turn of its loop, counted from its optimised HLO text.

`compiled.cost_analysis()` counts the body of a loop once, however often it turns, and the whole of
an operand where a kernel reads a part of it. Here the instructions of the loop's body are counted
one by one, those of the loops inside it times their turns:

- A fusion reads its operands and writes its result; what happens inside it stays on the chip.
- Of an operand that is only sliced (or gathered from), inside a fusion too, the slices count. A
  `dynamic-update-slice` or scatter counts its update, since it writes in place; where it cannot,
  XLA puts a `copy` before it, which counts.
- Bytes are those of the buffer as laid out, the padding of tiles included.
- A buffer that XLA placed in on-chip memory (`S(1)` and the like in its layout) costs nothing
  where it is used: the copy that brings it there counts what it reads.
- A kernel (custom call) counts all its operands and results, unless the caller says what one call
  of it moves: no text tells how much of the pool a paged attention reads.
- Of the branches of a conditional the dearest counts.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_HOST = 5  # memory spaces: none is the device's main memory, 5 the host's; the others are on chip
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)"
)
_FREE = re.compile(
    "parameter|constant|get-tuple-element|tuple|bitcast|after-all|partition-id|replica-id"
    "|opt-barrier|domain|add-dependency|.*-done|.*-update"
)
_COLLECTIVE = re.compile(
    "(all-gather|all-reduce|reduce-scatter|(ragged-)?all-to-all|collective-(permute|broadcast))"
    "(-start)?"
)
_VIEWS = ("bitcast", "copy", "reshape", "convert")  # inside a fusion: the same elements, renamed


@dataclass
class Instruction:
    """One line: `%name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: list[str]
    literal: str  # what stands in the parentheses, for constants and parameters
    attributes: str

    @property
    def called(self) -> list[str]:
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        names = re.findall(r"%([\w.\-]+)", branches[1]) if branches else []
        return names + _CALLED.findall(self.attributes)


@dataclass
class Computation:
    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    def users(self, name: str) -> Iterator[tuple[Instruction, int]]:
        for user in self.instructions.values():
            for place, operand in enumerate(user.operands):
                if operand == name:
                    yield user, place

    def parameter(self, index: int) -> Instruction:
        found = (
            i
            for i in self.instructions.values()
            if i.opcode == "parameter" and i.literal == str(index)
        )
        return next(found)


def _closing(text: str, start: int) -> int:
    """The index after the parenthesis that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1
    raise ValueError(f"no closing parenthesis: {text[:120]}")


def _instruction(line: str) -> Instruction:
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    rest = re.sub(r"/\*.*?\*/", "", rest)
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    type_, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inside = rest[opening + 1 : closing - 1]
    operands = re.findall(r"%([\w.\-]+)", inside)
    return Instruction(name[1:], type_, rest[:opening], operands, inside, rest[closing:])


class Program:
    """The computations of an optimised HLO module.

    Args:
        text: `compiled.as_text()`.
        kernels: bytes that one call of a custom call moves, by a part of its instruction's name.
    """

    def __init__(self, text: str, kernels: Mapping[str, int] | None = None):
        self.kernels = dict(kernels or {})
        self.met: set[str] = set()
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        current = None
        for line in text.splitlines():
            head = re.match(r"(ENTRY )?%([\w.\-]+) \(.*\{$", line)
            if head:
                current = self.computations[head[2]] = Computation(head[2])
                self.entry = head[2] if head[1] else self.entry
            elif current and line.startswith("  ") and " = " in line:
                made = _instruction(line.strip())
                current.instructions[made.name] = made
                if line.strip().startswith("ROOT "):
                    current.root = made.name

    def loops(self, computation: str) -> Iterator[Instruction]:
        """The while loops of a computation and of those it calls, not those inside loops."""
        for op in self.computations[computation].instructions.values():
            if op.opcode == "while":
                yield op
            elif op.opcode in ("call", "conditional"):
                for name in op.called:
                    yield from self.loops(name)

    def body(self, loop: Instruction) -> str:
        return re.search(r"body=%([\w.\-]+)", loop.attributes)[1]

    def turns(self, where: Computation, loop: Instruction) -> int:
        """How often a loop of `where` turns: XLA's own word, or counted from its condition.

        Raises:
            ValueError: it does not count from one constant up to another by ones.
        """
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations[re.search(r"condition=%([\w.\-]+)", loop.attributes)[1]]
        body = self.computations[self.body(loop)]
        compare = condition.instructions[condition.root]
        counter = condition.instructions[(compare.operands or [condition.root])[0]]
        index = re.search(r"index=(\d+)", counter.attributes)
        if "direction=LT" not in compare.attributes or not index:
            raise ValueError(f"{loop.name} does not end by a count: {compare}")
        state = where.instructions[loop.operands[0]]
        add = body.instructions[body.instructions[body.root].operands[int(index[1])]]
        if add.opcode != "add" or self._constant(body, add.operands[1]) != 1:
            raise ValueError(f"{loop.name} does not count by ones: {add}")
        end = self._constant(condition, compare.operands[1])
        return end - self._constant(where, state.operands[int(index[1])])

    @staticmethod
    def _constant(where: Computation, name: str) -> int:
        op = where.instructions[name]
        while op.opcode in ("copy", "bitcast", "convert"):
            op = where.instructions[op.operands[0]]
        if op.opcode != "constant":
            raise ValueError(f"no constant: {op}")
        return int(op.literal)

    # Bytes

    def body_bytes(self, computation: str) -> int:
        """Bytes moved by the instructions of a computation, inner loops times their turns."""
        here = self.computations[computation]
        return sum(self._moved(here, op) for op in here.instructions.values())

    def _moved(self, here: Computation, op: Instruction) -> int:
        kind = op.opcode
        if _FREE.fullmatch(kind):
            return 0
        if kind == "while":
            return self.turns(here, op) * self.body_bytes(self.body(op))
        if kind == "conditional":
            return max(self.body_bytes(name) for name in op.called)
        if kind in ("call", "async-start"):
            return sum(self.body_bytes(name) for name in op.called)
        if kind == "custom-call":
            for part, moved in self.kernels.items():
                if part in op.name:
                    self.met.add(part)
                    return moved
        if kind == "fusion":
            return self._fusion(here, op)
        kind, sizes = kind.removesuffix("-start"), _arrays(op.type)
        if kind != op.opcode:  # (to, from, ...) of a copy, (operand, result, ...) of all others
            sizes = sizes[:1] if kind == "copy" else sizes[1:2] or sizes
        written = sum(sizes)
        if kind in ("dynamic-slice", "slice", "gather"):
            return 2 * written
        if kind in ("dynamic-update-slice", "scatter"):
            return 2 * self._update(here, op)
        return sum(bytes_of(here.instructions[name].type) for name in op.operands) + written

    @staticmethod
    def _update(here: Computation, op: Instruction) -> int:
        update = op.operands[-1 if op.opcode == "scatter" else 1]
        return bytes_of(here.instructions[update].type, on_chip=True)

    def _fusion(self, here: Computation, op: Instruction) -> int:
        inner = self.computations[op.called[0]]
        total = 0
        for place, name in enumerate(op.operands):
            whole = bytes_of(here.instructions[name].type)
            if whole:
                total += min(whole, self._read(inner, inner.parameter(place).name))
        sizes = zip(_arrays(op.type), self._written(inner, inner.root), strict=True)
        return total + sum(min(whole, size) for whole, size in sizes)

    def _read(self, inner: Computation, name: str) -> int:
        """Bytes of a fusion's parameter that the fusion reads."""
        whole = bytes_of(inner.instructions[name].type, on_chip=True)
        total = whole if name == inner.root else 0
        for user, place in inner.users(name):
            if place == 0 and user.opcode in ("dynamic-slice", "slice", "gather"):
                total += bytes_of(user.type, on_chip=True)
            elif place == 0 and user.opcode in ("dynamic-update-slice", "scatter"):
                continue  # it is written in place
            elif user.opcode == "bitcast":
                total += self._read(inner, user.name)
            elif user.opcode == "fusion":
                nested = self.computations[user.called[0]]
                total += self._read(nested, nested.parameter(place).name)
            else:
                return whole
        return min(whole, total)

    def _written(self, inner: Computation, name: str) -> list[int]:
        """Bytes that a fusion writes for each of the results that come from `name`."""
        op = source = inner.instructions[name]
        if op.opcode == "tuple":
            return [size for part in op.operands for size in self._written(inner, part)]
        if op.opcode == "fusion":
            nested = self.computations[op.called[0]]
            return self._written(nested, nested.root)
        while source.opcode in _VIEWS:
            source = inner.instructions[source.operands[0]]
        if source.opcode in ("dynamic-update-slice", "scatter"):
            return [self._update(inner, source)]
        return _arrays(op.type, on_chip=True)


def _arrays(type_: str, on_chip: bool = False) -> list[int]:
    """Bytes of every array of a type, 0 for those in on-chip memory unless `on_chip`."""
    sizes = []
    for dtype, dims, layout in _ARRAY.findall(type_):
        space = re.search(r"S\((\d+)\)", layout)
        if space and int(space[1]) not in (0, _HOST) and not on_chip:
            sizes.append(0)
            continue
        number = re.match(r"[a-z]+(\d+)", dtype)
        bits = _BITS[dtype] if dtype in _BITS else int(number[1])
        sizes.append(bits * prod(_padded([int(d) for d in dims.split(",") if d], layout)) // 8)
    return sizes


def _padded(dims: list[int], layout: str) -> list[int]:
    """Dimensions from major to minor, the minor ones filled up to the layout's first tile."""
    order = [int(d) for d in layout.partition(":")[0].split(",") if d]
    dims = [dims[d] for d in reversed(order)] if order else dims
    tile = re.search(r"T\(([\d,]+)\)", layout)
    if tile and dims:
        tiles = [int(t) for t in tile[1].split(",")][-len(dims) :]
        rest = len(dims) - len(tiles)
        dims = dims[:rest] + [-(-d // t) * t for d, t in zip(dims[rest:], tiles, strict=True)]
    return dims


def bytes_of(type_: str, on_chip: bool = False) -> int:
    """Bytes of an HLO type as laid out; arrays in on-chip memory only where asked for."""
    return sum(_arrays(type_, on_chip))


def _step(program: Program) -> tuple[int, str]:
    """Bytes of one turn, and the body, of the outermost loop that moves most in a turn."""
    bodies = {program.body(loop) for loop in program.loops(program.entry)}
    if not bodies:
        raise ValueError("the program has no loop")
    return max((program.body_bytes(body), body) for body in bodies)


def bytes_per_step(text: str, kernels: Mapping[str, int] | None = None) -> int:
    """Bytes of main memory that one turn of the program's (dearest outermost) loop moves.

    Args:
        text: `compiled.as_text()`, of one device's program.
        kernels: what one call of a custom call moves, by a part of its name in the text
            (`paged_attention`, `write_token`).

    Raises:
        ValueError: no loop; an inner loop whose turns cannot be told; a kernel that does not occur.
    """
    program = Program(text, kernels)
    moved, _ = _step(program)
    absent = set(program.kernels) - program.met
    if absent:
        raise ValueError(f"no custom call named {sorted(absent)} in the loops")
    return moved


def dearest(text: str, kernels: Mapping[str, int] | None = None, top: int = 20) -> list[tuple]:
    """(bytes a step, turns a step, name) of the costliest instructions of a step: for a failure."""
    program = Program(text, kernels)
    rows = []

    def visit(computation, turns):
        here = program.computations[computation]
        for op in here.instructions.values():
            if op.opcode == "while":
                visit(program.body(op), turns * program.turns(here, op))
            else:
                rows.append((turns * program._moved(here, op), turns, op.name))

    visit(_step(program)[1], 1)
    return sorted(rows, reverse=True)[:top]


def collectives_in_loops(text: str) -> list[tuple[str, int]]:
    """(opcode, bytes of the result) of every collective inside a loop, one entry an instruction.

    The bytes are those of the array wherever it lies, and of one turn. `-start` forms are given
    without the suffix.
    """
    program = Program(text)
    found, seen = [], set()

    def visit(computation, in_loop):
        if (computation, in_loop) in seen:
            return
        seen.add((computation, in_loop))
        for op in program.computations[computation].instructions.values():
            kind = _COLLECTIVE.fullmatch(op.opcode)
            if in_loop and kind:
                found.append((kind[1], max(_arrays(op.type, on_chip=True))))
            for name in op.called:
                visit(name, in_loop or op.opcode == "while")

    visit(program.entry, False)
    return found
