"""Packing: sequences of unequal length side by side in rows of one width, on the host.

Every micro-batch has the same shape whatever the lengths, so scoring and updating compile once, and
hardly a column is empty. The shift by one is made here and nowhere else: a completion of L tokens
takes L columns, the last token of its prompt and all its own but the last, and each column predicts
the token after it. The rest of the prompt stands before them, in the same segment; where a prompt
is shared, once for all completions of it in the row, in a segment of its own.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from rlif_jax.batch import Array, Packed, Rollout

_MULTIPLE = 16  # of which a row's width is a multiple on every part of the context axis


@dataclass(frozen=True)
class Form:
    """The shape that every mini-batch of a run is packed into.

    `pieces` M micro-batches of `rows` R rows of `columns` T tokens; with `shared` a prompt is
    computed once for all its completions in a row.
    """

    pieces: int
    rows: int
    columns: int
    shared: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, R, T)."""
        return self.pieces, self.rows, self.columns


def form_of(
    *,
    completions: int,
    longest: int,
    tokens: int,
    rows: int,
    shared: bool,
    multiple: int = 1,
) -> Form:
    """The form for mini-batches of so many completions, whatever their lengths turn out to be.

    `longest` is the most columns of one sequence; `tokens` the columns of a row, at least that;
    `rows` the row shards of the mesh, which each take one row at a time; T is rounded up for
    `multiple` parts of the context axis.
    """
    step = _MULTIPLE * multiple
    columns = step * math.ceil(max(tokens, longest) / step)
    # A row that another sequence did not fit into has at most `longest` - 1 columns left, so it
    # holds at least as many sequences as whole ones of the longest fit into a row.
    most = math.ceil(completions / (columns // longest))
    return Form(pieces=math.ceil(most / rows), rows=rows, columns=columns, shared=shared)


@dataclass(frozen=True)
class Packing:
    """A mini-batch in rows, and where its completions went.

    `packed` holds NumPy arrays. Completion i has its `length_B[i]` targets in the columns from
    `start_B[i]` on, counted through all rows of all micro-batches.
    """

    packed: Packed
    start_B: np.ndarray
    length_B: np.ndarray

    @property
    def columns(self) -> int:
        """Columns that are computed: those of all micro-batches that hold anything."""
        _, R, T = self.packed.tokens.shape
        return int(self.packed.count) * R * T

    @property
    def filled(self) -> int:
        """Columns that hold a token."""
        return int((self.packed.segment > 0).sum())

    def spread(self, x: Array, fill: float = 0) -> np.ndarray:
        """[B] or [B, C] -> [M, R, T]: each completion's number, or numbers, in its columns."""
        x, (row_K, column_K) = np.asarray(x), self._entries
        flat = np.full(self.packed.tokens.size, fill, x.dtype)
        flat[self.start_B[row_K] + column_K] = x[row_K] if x.ndim == 1 else x[row_K, column_K]
        return flat.reshape(self.packed.tokens.shape)

    def collect(self, x_MRT: Array, width: int) -> np.ndarray:
        """[M, R, T] -> [B, C] with C = `width`: the inverse of `spread`, zeros behind each end."""
        row_K, column_K = self._entries
        out_BC = np.zeros((len(self.start_B), width), x_MRT.dtype)
        out_BC[row_K, column_K] = x_MRT.reshape(-1)[self.start_B[row_K] + column_K]
        return out_BC

    @functools.cached_property
    def _entries(self) -> tuple[np.ndarray, np.ndarray]:
        """The completion and the place within it of each of the K targets."""
        row_K = np.repeat(np.arange(len(self.length_B)), self.length_B)
        first_K = np.repeat(np.cumsum(self.length_B) - self.length_B, self.length_B)
        return row_K, np.arange(len(row_K)) - first_K


def pack(
    prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], group_size: int, form: Form
) -> Packing:
    """N prompts and the N * group_size completions of them, in rows; all are token ids, not empty.

    The longest go first, each into the first row with room for it. So the rows of the longest share
    a micro-batch, whose devices wait for each other, and so do the rows of the shortest.
    """
    length_B = np.array([len(c) for c in completions])
    rows = _assigned([len(p) - 1 for p in prompts], length_B, group_size, form)

    M, R, T = form.shape
    fields = {name: np.zeros((M * R, T), np.int32) for name in ("tokens", "position", "segment")}
    fields |= {
        "prefix": np.zeros((M * R, T), np.int32),
        "target": np.full((M * R, T), -1, np.int32),
    }
    start_B = np.zeros(len(completions), np.int64)
    for i, row in enumerate(rows):
        at = 0
        for run in _runs(row, prompts, completions, group_size, form.shared):
            end = at + len(run.tokens)
            fields["tokens"][i, at:end] = run.tokens
            fields["position"][i, at:end] = run.first + np.arange(len(run.tokens))
            fields["segment"][i, at:end] = run.segment
            fields["prefix"][i, at:end] = run.prefix
            if run.completion is not None:
                L = length_B[run.completion]
                fields["target"][i, end - L : end] = completions[run.completion]
                start_B[run.completion] = i * T + end - L
            at = end
    count = np.asarray(math.ceil(len(rows) / R), np.int32)
    packed = Packed(**{name: x.reshape(M, R, T) for name, x in fields.items()}, count=count)
    return Packing(packed, start_B, length_B)


def pack_rollout(rollout: Rollout, form: Form, mini_batches: int = 1) -> list[Packing]:
    """Each mini-batch of a rollout, in order, packed; the samples of a prompt stay together."""
    N, B = len(rollout.prompts.mask), len(rollout.length)
    rollout = jax.tree.map(np.asarray, rollout)
    prompts = [t[m] for t, m in zip(rollout.prompts.tokens, rollout.prompts.mask, strict=True)]
    completions = [t[:n] for t, n in zip(rollout.tokens, rollout.length, strict=True)]
    n, b = N // mini_batches, B // mini_batches
    return [
        pack(prompts[i * n : (i + 1) * n], completions[i * b : (i + 1) * b], B // N, form)
        for i in range(mini_batches)
    ]


def _assigned(
    prompt: Sequence[int], length_B: np.ndarray, group_size: int, form: Form
) -> list[list[int]]:
    """The completions of each row, in the order of their prompts; first fit, longest first.

    `prompt` are the columns of each prompt in front of its completions.
    """
    most = form.pieces * form.rows
    free, rows = np.full(most, form.columns), [[] for _ in range(most)]
    prompt_B = np.repeat(prompt, group_size)
    alone_B = prompt_B + length_B
    by_length = np.argsort(-alone_B, kind="stable")
    if form.shared:  # a prompt's completions in one go, so that few rows hold the same prompt
        total_N = alone_B.reshape(-1, group_size).sum(axis=1)
        rank_N = np.argsort(np.argsort(-total_N, kind="stable"))
        by_length = by_length[np.argsort(rank_N[by_length // group_size], kind="stable")]
    holds = np.full(most, -1)  # the prompt that a row got last
    for b in by_length:
        there = form.shared & (holds == b // group_size)
        cost = length_B[b] + np.where(there, 0, prompt_B[b])
        row = int(np.argmax(free >= cost))
        assert free[row] >= cost[row], "the form has too few rows"
        free[row] -= cost[row]
        holds[row] = b // group_size
        rows[row].append(int(b))
    return [sorted(row) for row in rows if row]


@dataclass(frozen=True)
class _Run:
    """Neighbouring columns: a prompt, a completion behind it, or both."""

    tokens: np.ndarray
    first: int  # position of the first token
    segment: int
    prefix: int
    completion: int | None


def _runs(row: list[int], prompts, completions, group_size: int, shared: bool) -> Iterator[_Run]:
    """The runs of a row from left to right, segments numbered from 1."""
    segment, prefix, before = 0, 0, -1
    for b in row:
        n = b // group_size
        prompt, completion = prompts[n], completions[b]
        head, tail = prompt[:-1], np.append(prompt[-1:], completion[:-1])
        if not shared:
            segment += 1
            yield _Run(np.concatenate([head, tail]), 0, segment, segment, b)
            continue
        if n != before:
            before = n
            if len(head):
                segment, prefix = segment + 1, segment + 1
                yield _Run(head, 0, prefix, prefix, None)
        segment += 1
        yield _Run(tail, len(head), segment, prefix if len(head) else segment, b)
