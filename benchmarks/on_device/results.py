"""What the benchmark finds: checks, figures, and how each of its parts has ended."""

import dataclasses
import math
import statistics
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["done", "skipped", "cannot run here", "out of memory", "error"]


@dataclass(frozen=True)
class Check:
    """The largest error of an operation beside its reference, and the error that is allowed.

    Both are relative to the largest number of the reference unless `basis`, which says where the
    tolerance comes from, says otherwise.
    """

    operation: str
    what: str
    dtype: str
    error: float
    tolerance: float
    basis: str

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return math.isfinite(self.error) and self.error <= self.tolerance

    def as_json(self) -> dict[str, Any]:
        """All fields; an error that is no finite number becomes None."""
        error = self.error if math.isfinite(self.error) else None
        return {**self.__dict__, "error": error, "passed": self.passed}


@dataclass(frozen=True)
class Work:
    """What one run of a stage has to do: FLOPs, and bytes of memory to move at least."""

    flops: float = 0.0
    moved: float = 0.0


@dataclass(frozen=True)
class Ceilings:
    """What the device has done at best: FLOP/s of a product in float32 and bfloat16, bytes/s."""

    float32: float
    bfloat16: float
    copied: float

    def or_better(self, other: "Ceilings") -> "Ceilings":
        """The better of both in each."""
        return Ceilings(*map(max, dataclasses.astuple(self), dataclasses.astuple(other)))

    def least_seconds(self, work: Work, dtype: str) -> tuple[float, str]:
        """The seconds that the work takes at these ceilings, and which of the two binds."""
        product = self.bfloat16 if dtype == "bfloat16" else self.float32
        bounds = {"product": work.flops / product, "copy": work.moved / self.copied}
        binding = max(bounds, key=lambda name: bounds[name])
        return bounds[binding], binding


@dataclass(frozen=True)
class Figure:
    """A time: `seconds` of each run, `amount` units that a run gets done, and its share.

    `work` is what a run has to do, in products of `dtype`; `note` says what the sizes were.
    """

    what: str
    model: str
    unit: str
    amount: float
    seconds: tuple[float, ...]
    dtype: str
    work: Work | None = None
    note: str = ""

    @property
    def rates(self) -> tuple[float, ...]:
        """Units per second of each run, slowest first."""
        return tuple(sorted(self.amount / s for s in self.seconds))

    def as_json(self, ceilings: Ceilings | None) -> dict[str, Any]:
        """The median and spread of rates and seconds, and the share of the binding ceiling."""
        share, bound = self.share(ceilings)
        return {
            "what": self.what,
            "model": self.model,
            "dtype": self.dtype,
            "unit": f"{self.unit}/s",
            "median": statistics.median(self.rates),
            "spread": [self.rates[0], self.rates[-1]],
            "seconds": statistics.median(self.seconds),
            "runs": len(self.seconds),
            "flops": self.work.flops if self.work else None,
            "bytes": self.work.moved if self.work else None,
            "share": share,
            "ceiling": bound,
            "note": self.note,
        }

    def share(self, ceilings: Ceilings | None) -> tuple[float | None, str | None]:
        """The least time at the ceilings over the median time, and the ceiling that binds."""
        if ceilings is None or self.work is None:
            return None, None
        least, bound = ceilings.least_seconds(self.work, self.dtype)
        return least / statistics.median(self.seconds), bound


@dataclass(frozen=True)
class Refusal:
    """Something that this device does not run, with the reason."""

    what: str
    reason: str


@dataclass(frozen=True)
class Ending:
    """How a part has ended: its seconds, those of compiling, and the most memory in use so far."""

    part: str
    status: Status
    reason: str
    seconds: float
    compile_seconds: float
    peak_bytes: int


Found = Check | Figure | Refusal | Ceilings
