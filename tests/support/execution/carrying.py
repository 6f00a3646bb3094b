"""Programs that try to move one bit from a test to a later one, drawn from combinations of parts.

A program gets hold of an object, a setting, a file, a process: anything that may hold a bit. It
prints 1 when it finds that an earlier test left the bit there, else 0, and leaves it. Its parts are
the way to a module, the steps from it to the holder, the encoding in the holder, and where the code
stands that looks and that leaves. No program tells whether its bit is believed to move: under an
honest judge none does, and `carrying_control` is a judge under which each part does.

Bounded: at most 400 files, 100 MB of memory, 64 processes at a time, for two seconds.
"""

import dataclasses
import random
import textwrap
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from rlif_jax.execution.compare import answer_key
from rlif_jax.problem import Outcome, Verdict

from .carrying_holders import MODULES, Holder, attributes
from .carrying_machine import OBSERVED, OUTSIDE
from .carrying_process import PARENT, PROCESS
from .carrying_settings import SETTINGS
from .carrying_ways import AT_ONCE, ELSEWHERE, ENCODINGS, LATER, STEPS, WAYS
from .judging import stdin_problem

# An answer of 1 to the later tests, which would be right, is what no honest judge can ever see.
PROBLEM = stdin_problem(("", "0\n"), ("", "1\n"), ("", "1\n"))
_SHORT = {answer_key("stdin", digit): digit for digit in "01"}
INSIDE = SETTINGS | PROCESS
SORTS = {"setting": INSIDE, "outside": OUTSIDE | PARENT, "observed": OBSERVED}
PLACES = AT_ONCE | LATER | ELSEWHERE


@dataclass(frozen=True)
class Parts:
    """The choices that make one program."""

    sort: str
    """"object", "setting", "outside" or "observed"."""
    holder: str
    """Its name in SORTS; of an object, the module and the names that lead to it."""
    encoding: str = ""
    """Kind and name in ENCODINGS, of an object."""
    way: str = "import"
    step: str = "dot"
    around: str = "top level"
    """Where all of it stands."""
    look_at: str = "top level"
    leave_at: str = "top level"

    @property
    def key(self) -> str:
        """A word that no other program uses."""
        return f"carried{zlib.crc32(repr(dataclasses.astuple(self)).encode()):08x}"

    @property
    def _texts(self) -> Holder:
        if self.sort != "object":
            return SORTS[self.sort][self.holder]
        kind, name = self.encoding.split("/")
        return Holder(self.holder.split(".")[0], *ENCODINGS[kind][name])

    @property
    def outlives(self) -> bool:
        """Whether the bit would still be there when its process has ended."""
        return self._texts.outlives

    @property
    def code(self) -> str:
        """The program."""
        texts = self._texts
        way = WAYS[self.way].replace("MODULE", texts.module)
        names = self.holder.split(".")[1:] if self.sort == "object" else []
        first, rest = STEPS[self.step], []
        for name in names:
            text = first.replace("'NA' 'ME'", f"{name[:1]!r} {name[1:]!r}").replace("NAME", name)
            rest.append(text)
        sets_n = "\n" in texts.look or texts.look.startswith("n = ")
        look = texts.look if sets_n else f"n = {texts.look}"
        shown = "n" if self.sort == "observed" else "int(bool(n))"
        parts = [
            way,
            *rest,
            place(self.look_at, f"{look}\nprint({shown})"),
            place(self.leave_at, texts.leave),
        ]
        number = str(int(self.key[7:], 16) >> 1 | 1)
        code = place(self.around, "\n".join(parts))
        return code.replace("KEY", self.key).replace("NUMBER", number) + "\n"


def place(name: str, block: str) -> str:
    """Put a block of lines where the name says."""
    lines = []
    for line in PLACES[name].splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(textwrap.indent(block, indent) if line.strip() == "BLOCK" else line)
    return "\n".join(lines).replace("TEXT", repr(block))


def draw(choose: Callable[[Sequence[str]], str]) -> Parts:
    """Make one program's choices, each of a sequence that starts with the plainest."""
    sort = choose(("object", "setting", "outside", "object", "setting", "outside", "observed"))
    way, encoding = choose(tuple(WAYS)), ""
    if sort == "object":
        module = choose(MODULES)
        chains = attributes(module)
        kind = choose(tuple(chains))
        holder = ".".join((module, *choose(chains[kind])))
        encoding = f"{kind}/{choose(tuple(ENCODINGS[kind]))}"
    else:
        holder = choose(tuple(SORTS[sort]))
    elsewhere = ELSEWHERE if sort == "outside" else {}
    at_once, any_time = (*AT_ONCE, *elsewhere), (*AT_ONCE, *LATER, *elsewhere)
    where = choose(("at top level", "together", "apart"))
    around = choose(any_time) if where == "together" else "top level"
    look_at = choose(at_once) if where == "apart" else "top level"
    leave_at = choose(any_time) if where == "apart" else "top level"
    step = choose(tuple(STEPS)) if sort == "object" else "dot"
    return Parts(sort, holder, encoding, way, step, around, look_at, leave_at)


@st.composite
def programs(draw_one: st.DrawFn) -> Parts:
    """Any program, the plainest first."""
    return draw(lambda options: draw_one(st.sampled_from(options)))


def drawn(seed: int) -> Iterator[Parts]:
    """Programs without an end, the same for the same seed."""
    chance = random.Random(seed)
    while True:
        yield draw(chance.choice)


def answered(outcome: Outcome) -> tuple[str, ...]:
    """Return what each test was answered, "0" and "1" as such, or its verdict where it was not."""
    pairs = zip(outcome.answers, outcome.results, strict=True)
    return tuple(_SHORT.get(answer, answer or verdict.value) for answer, verdict in pairs)


def moved(parts: Parts, answers: Sequence[str]) -> bool:
    """Tell whether the answers show that a program met its bit: they differ, or one is 1."""
    return len(set(answers)) > 1 or (parts.sort != "observed" and "1" in answers)


def ran(parts: Parts, answers: Sequence[str]) -> bool:
    """Tell whether the first test looked and left without raising."""
    return answers[0] not in set(Verdict) if parts.sort == "observed" else answers[0] == "0"


def plainest(parts: Parts, still: Callable[[Parts], bool]) -> Parts:
    """Replace one choice after another by the plainest as long as `still` holds."""
    for field in ("way", "step", "around", "look_at", "leave_at"):
        plain = Parts.__dataclass_fields__[field].default
        if getattr(parts, field) != plain:
            simpler = dataclasses.replace(parts, **{field: plain})
            parts = simpler if still(simpler) else parts
    return parts
