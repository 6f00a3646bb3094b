"""The optimised HLO text of a compiled stage, read into computations and instructions.

The text is that of `compiled.as_text()`, which is one device's share; its grammar is XLA's
(https://openxla.org/xla/operation_semantics). `traffic`, `products` and `collectives` count with
what is read here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Self

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_HOST = 5  # memory spaces: 0 is the device's main memory, 5 the host's, the others are on chip
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)"
)
_RENAMES = ("copy", "bitcast", "convert")
VIEWS = (*_RENAMES, "reshape")
"""Inside a fusion these give the same elements under another name."""


@dataclass(frozen=True)
class Instruction:
    """One line: `%name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: list[str]
    literal: str
    """What stands in the parentheses: the value of a constant, the index of a parameter."""
    attributes: str

    @property
    def called(self) -> list[str]:
        """Names of the computations that it calls: branches, bodies, conditions, fusions."""
        branches = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        names = re.findall(r"%([\w.\-]+)", branches[1]) if branches else []
        return names + _CALLED.findall(self.attributes)

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the attributes; None where it does not occur."""
        found = re.search(pattern, self.attributes)
        return found and found[1]

    @property
    def target(self) -> str | None:
        """What a custom call calls; None for any other instruction."""
        if self.opcode != "custom-call":
            return None
        return self.attribute(r'custom_call_target="([^"]*)"')

    @property
    def channel(self) -> int | None:
        """The channel of a collective; None where it has none."""
        found = self.attribute(r"channel_id=(\d+)")
        return None if found is None else int(found)

    @property
    def body(self) -> str:
        """Name of a loop's body. Raises ValueError for any other instruction."""
        return self._named("body")

    @property
    def condition(self) -> str:
        """Name of a loop's condition. Raises ValueError for any other instruction."""
        return self._named("condition")

    def _named(self, part: str) -> str:
        name = self.attribute(rf"{part}=%([\w.\-]+)")
        if name is None:
            raise ValueError(f"{self.name} has no {part}: its opcode is {self.opcode}")
        return name


@dataclass
class Computation:
    """Instructions by name; `root` names the one that gives the result."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    def operand(self, op: Instruction, place: int) -> Instruction:
        """The instruction whose result `op` takes at `place`."""
        return self.instructions[op.operands[place]]

    def users(self, name: str) -> Iterator[tuple[Instruction, int]]:
        """Instructions that take the result of `name`, and at which place among their operands."""
        for user in self.instructions.values():
            for place, operand in enumerate(user.operands):
                if operand == name:
                    yield user, place

    def parameter(self, index: int) -> Instruction:
        """The parameter with this number. Raises ValueError where there is none."""
        for op in self.instructions.values():
            if op.opcode == "parameter" and op.literal == str(index):
                return op
        raise ValueError(f"{self.name} has no parameter {index}")

    def constant(self, op: Instruction) -> int:
        """The value of an integer constant or of its copy. Raises ValueError for anything else."""
        while op.opcode in _RENAMES:
            op = self.operand(op, 0)
        if op.opcode != "constant":
            raise ValueError(f"{op.name} is not a constant: its opcode is {op.opcode}")
        return int(op.literal)


@dataclass
class Module:
    """The computations of a compiled stage by name; `entry` names the one that is called.

    `devices` are those that run the stage together.
    """

    computations: dict[str, Computation] = field(default_factory=dict)
    entry: str = ""
    devices: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `compiled.as_text()`."""
        module, current = cls(), None
        for line in text.splitlines():
            if line.startswith("HloModule "):
                counts = re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", line)
                module.devices = prod(map(int, counts))
            head = re.match(r"(ENTRY )?%([\w.\-]+) \(.*\{$", line)
            if head:
                current = module.computations[head[2]] = Computation(head[2])
                module.entry = head[2] if head[1] else module.entry
            elif current and line.startswith("  ") and " = " in line:
                op = _instruction(line.strip())
                for name in op.operands:
                    current.instructions |= _elements(current, name)
                current.instructions[op.name] = op
                if line.strip().startswith("ROOT "):
                    current.root = op.name
        return module

    def loops(self, computation: str) -> Iterator[Instruction]:
        """The while loops of a computation and of those it calls, not those inside loops."""
        for op in self.computations[computation].instructions.values():
            if op.opcode == "while":
                yield op
            elif op.opcode in ("call", "conditional"):
                for name in op.called:
                    yield from self.loops(name)

    def turns(self, where: Computation, loop: Instruction) -> int:
        """How often a loop of `where` turns: what XLA says, or counted from its condition.

        Raises:
            ValueError: it does not count from one constant up to another by a third.
        """
        if known := loop.attribute(r'known_trip_count":\{"n":"(\d+)"'):
            return int(known)
        try:
            return self._counted(where, loop)
        except LookupError:
            raise ValueError(f"{loop.name} is not a counted loop: {loop}") from None

    def _counted(self, where: Computation, loop: Instruction) -> int:
        condition, body = self.computations[loop.condition], self.computations[loop.body]
        compare = condition.instructions[condition.root]
        counter = condition.operand(compare, 0) if compare.operands else compare
        index = counter.attribute(r"index=(\d+)")
        if "direction=LT" not in compare.attributes or index is None:
            raise ValueError(f"{loop.name} does not end by a count: {compare}")
        step = body.operand(body.instructions[body.root], int(index))
        if step.opcode != "add":
            raise ValueError(f"{loop.name} does not count up: {step}")
        start = where.operand(where.operand(loop, 0), int(index))
        last = condition.constant(condition.operand(compare, 1))
        return -((where.constant(start) - last) // body.constant(body.operand(step, 1)))


def dims_of(type_: str) -> list[int]:
    """The dimensions of the first array of an HLO type."""
    found = _ARRAY.search(type_)
    if found is None:
        raise ValueError(f"{type_} has no array")
    return [int(d) for d in found[2].split(",") if d]


def array_bytes(type_: str, on_chip: bool = False) -> list[int]:
    """Bytes of each array of an HLO type as laid out, the padding of tiles included.

    An array that XLA placed in on-chip memory (`S(1)` and the like in its layout) has 0, or its
    size with `on_chip`.
    """
    sizes = []
    for dtype, dims, layout in _ARRAY.findall(type_):
        space = re.search(r"S\((\d+)\)", layout)
        if space and int(space[1]) not in (0, _HOST) and not on_chip:
            sizes.append(0)
            continue
        number = re.search(r"\d+", dtype)
        bits = _BITS[dtype] if number is None else int(number[0])
        sizes.append(bits * prod(_padded([int(d) for d in dims.split(",") if d], layout)) // 8)
    return sizes


def largest_array(text: str) -> int:
    """Elements of the largest array that a stage holds; values inside a fusion are not held."""
    module = Module.parse(text)
    fused = {
        name
        for computation in module.computations.values()
        for op in computation.instructions.values()
        if op.opcode == "fusion"
        for name in op.called
    }
    return max(
        prod(int(d) for d in dims.split(",") if d)
        for name, computation in module.computations.items()
        if name not in fused
        for op in computation.instructions.values()
        for _, dims, _ in _ARRAY.findall(op.type)
    )


def bytes_of(type_: str, on_chip: bool = False) -> int:
    """The sum of `array_bytes`."""
    return sum(array_bytes(type_, on_chip))


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


def _instruction(line: str) -> Instruction:
    name, _, rest = line.removeprefix("ROOT ").partition(" = ")
    rest = re.sub(r"/\*.*?\*/", "", rest)
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    type_, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inside = rest[opening + 1 : closing - 1]
    operands = re.findall(r"%([\w.\-#]+)", inside)
    return Instruction(name[1:], type_, rest[:opening], operands, inside, rest[closing:])


def _elements(here: Computation, name: str) -> dict[str, Instruction]:
    """The elements of tuples that an operand such as `x#0` names, as instructions.

    Newer versions of XLA write so what others write as `get-tuple-element(%x), index=0`.
    """
    whole, hash_, index = name.rpartition("#")
    if not hash_ or name in here.instructions:
        return {}
    before = _elements(here, whole)
    type_ = _parts({**here.instructions, **before}[whole].type)[int(index)]
    op = Instruction(name, type_, "get-tuple-element", [whole], f"%{whole}", f", index={index}")
    return {**before, name: op}


def _parts(type_: str) -> list[str]:
    """The types of a tuple's elements."""
    parts, depth, start = [], 0, 1
    for at, letter in enumerate(type_):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(letter, 0)
        if depth == 0 or (depth == 1 and letter == ","):
            parts.append(type_[start:at].strip())
            start = at + 1
    return parts


def _closing(text: str, start: int) -> int:
    """The index after the parenthesis that closes the one at `start`."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1
    raise ValueError(f"no closing parenthesis: {text[:120]}")
