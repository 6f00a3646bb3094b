"""How long the stages of a training take: decoding, prefill, scoring, the update, a whole step."""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.on_device import counts
from benchmarks.on_device.parts import nothing_compiles, timed
from benchmarks.on_device.questions import made_questions
from benchmarks.on_device.results import Figure
from benchmarks.on_device.runs import Run, made_rollout
from rlif_jax import sharding
from rlif_jax.batch import Array, TrainBatch
from rlif_jax.console.notice import ignore
from rlif_jax.errors import UserError
from rlif_jax.execution.pool import Judge
from rlif_jax.grpo import train_batches
from rlif_jax.model.cache import init_cache
from rlif_jax.model.config import kv_bytes_per_token
from rlif_jax.optimizer import init_state
from rlif_jax.packing import Packing
from rlif_jax.planning.counts import Work
from rlif_jax.run.clock import Clock
from rlif_jax.sampler.draw import key_data, row_keys
from rlif_jax.sampler.engine import Usage
from rlif_jax.sampler.pool_shape import PoolShape, pool_shape
from rlif_jax.sampler.requests import Request
from rlif_jax.step import train_step
from rlif_jax.step_record import StepRecord


class Timed:
    """The times of one model, whose `run` compiles its stages once for all of them."""

    def __init__(self, name: str, run: Run, judge: Judge | None, repeats: int):
        self._name, self.run, self._judge, self._repeats = name, run, judge, repeats
        self._dtype = run.model.dtype
        self._itemsize = jnp.dtype(self._dtype).itemsize

    def decode(self) -> Iterator[Figure]:
        """Tokens drawn by full slots, chunk by chunk, without the first chunk.

        That one waits for prompts and for the compilation. What the host does between two chunks
        counts.
        """
        size, B, engine = self.run.size, self.run.cfg.sampling.slots, self.run.stages.engine
        shape, params = self._pool(), self.run.stages.sync(self.run.params)
        prompts = _prompts(self.run, B // size.samples)
        keys = key_data(row_keys(jax.random.key(0), B))
        requests = [Request(row // size.samples, keys[row], size.new) for row in range(B)]
        usage = Usage()
        chunks = engine.run(params, prompts, requests, shape=shape, usage=usage)
        next(chunks)
        marks = [time.perf_counter()]
        with nothing_compiles():
            marks += [time.perf_counter() for _ in chunks]
        if usage.steps != size.new:
            raise UserError(
                f"the cache holds {shape.pages} pages, too few for {B} sequences of "
                f"{size.prompt + size.new} tokens at a time; give JAX more of the memory"
            )
        seconds = tuple(np.diff(marks).tolist())
        # Of the tokens that a sequence draws half are there on average.
        context, chunk = size.prompt + size.new / 2, engine.batching.chunk
        step = counts.decode_step(self.run.model, B, context, self._itemsize)
        cache = shape.pages * shape.page * kv_bytes_per_token(self.run.model, self._itemsize)
        yield self._figure(
            f"decode, {B} slots",
            "token",
            B * chunk,
            seconds,
            chunk * step,
            f"{size.prompt} + {size.new} tokens, {shape.kernel} kernel, "
            f"cache {cache / 2**30:.2f} GiB",
        )

    def prefill(self) -> Iterator[Figure]:
        """The longest prompt, by itself."""
        run, shape = self.run, self._pool()
        T = -(-run.size.prompt // shape.page) * shape.page
        pages = T // shape.page
        params = run.stages.sync(run.params)
        form = {"pages": shape.pages, "page": shape.page, "dtype": shape.dtype}
        cache = init_cache(run.model, kernel=shape.kernel, **form)
        kept = [cache, jnp.zeros((1, run.model.embed), run.model.dtype)]
        place = sharding.replicated(jax.sharding.get_mesh())
        params, kept = jax.device_put((params, kept), place)  # as the engine does it
        prompt = np.asarray(_prompts(run, 1), np.int32)
        tokens = np.pad(prompt, ((0, 0), (0, T - prompt.shape[1])))
        rest = (
            np.array([run.size.prompt], np.int32),
            1 + np.arange(pages, dtype=np.int32)[None],
            np.array([pages], np.int32),
        )

        def one() -> jax.Array:
            kept[:] = run.stages.engine.prefill(params, *kept, tokens, *rest)
            return kept[1]

        work = counts.prefill(run.model, T, self._itemsize)
        yield self._figure("prefill", "token", T, timed(one, self._repeats), work, "one prompt")

    def score(self) -> Iterator[Figure]:
        """A mini-batch of the longest sequences, all of a step's."""
        packing, run = self._packing(), self.run
        packed = sharding.put_pieces(packing.packed)
        seconds = timed(lambda: run.stages.score.at_sampling(run.params, packed), self._repeats)
        work = counts.score(run.model, _lengths(packing), int(packing.packed.count))
        yield self._figure("score", "token", packing.filled, seconds, work, _shape_of(packing))

    def update(self) -> Iterator[Figure]:
        """The same mini-batch, with the optimiser."""
        run, packing = self.run, self._packing()
        batch = self._batch(packing)
        params = jax.tree.map(jnp.copy, run.params)  # the update uses up its state
        kept = [init_state(params, run.stages.optimizer)]
        del params

        def one() -> Array:
            kept[0], metrics, _ = run.stages.update(kept[0], batch)
            return metrics["grad/norm"]

        seconds = timed(one, self._repeats)
        work = counts.update(run.model, _lengths(packing), int(packing.packed.count))
        yield self._figure("update", "token", packing.filled, seconds, work, _shape_of(packing))

    def step(self) -> Iterator[Figure]:
        """A whole step as a run does it, the judge's work included, and its phases.

        The first step is not timed. Tokens are those of all sequences, prompts once a completion.
        """
        run, size = self.run, self.run.size
        params = jax.tree.map(jnp.copy, run.params)
        state = init_state(params, run.stages.optimizer)
        del params

        def one(number: int) -> tuple[StepRecord, dict[str, float]]:
            nonlocal state
            key = jax.random.fold_in(jax.random.key(1), number)
            asked = made_questions(size, run.model.reachable, self._judge, seed=number)
            clock = Clock()
            state, record = train_step(
                run.cfg, run.stages, state, None, lambda: asked, key, clock, ignore
            )
            return record, clock.lap()

        one(0)
        with nothing_compiles():
            steps = [one(1 + i) for i in range(max(1, self._repeats // 2))]
        record, lap = steps[-1]
        seconds = tuple(lap["time/step"] for _, lap in steps)
        spent = ", ".join(
            f"{phase} {lap[f'time/{phase}']:.2f}"
            for phase in ("sample", "score", "execute", "update")
        )
        note = f"{size.rows} completions, {record.sampled_tokens} tokens drawn; seconds: {spent}"
        work, trained = self._work_of_step(record), record.trained_tokens
        yield self._figure("step", "token", trained, seconds, work, note)

    def _figure(
        self,
        what: str,
        unit: str,
        amount: float,
        seconds: tuple[float, ...],
        work: Work | None,
        note: str,
    ) -> Figure:
        return Figure(what, self._name, unit, amount, seconds, self._dtype, work, note)

    def _work_of_step(self, record: StepRecord) -> Work:
        """Each prompt once, every decode step, a scoring and an update of all tokens."""
        run, size = self.run, self.run.size
        prompts = [len(prompt.tokens) for prompt in record.experience.prompts]
        slots = min(run.cfg.sampling.slots, size.rows)
        context = float(np.mean(prompts)) + size.new / 2
        step = counts.decode_step(run.model, slots, context, self._itemsize)
        steps = record.sampled_tokens / slots
        work = steps * step
        for n in prompts:
            work += counts.prefill(run.model, n, self._itemsize)
        for packing in record.packings:
            lengths, pieces = _lengths(packing), int(packing.packed.count)
            work += counts.score(run.model, lengths, pieces)
            work += counts.update(run.model, lengths, pieces)
        return work

    def _pool(self) -> PoolShape:
        """The pool of a step's rollout, or of as many sequences as there are slots."""
        run, size = self.run, self.run.size
        return pool_shape(
            run.model,
            run.stages.engine.batching,
            prompt=size.prompt,
            new=size.new,
            samples=size.samples,
            sequences=max(size.rows, run.cfg.sampling.slots),
            platform=sharding.platform(),
        )

    def _packing(self) -> Packing:
        (packing,) = self.run.stages.pack(made_rollout(self.run))
        return packing

    def _batch(self, packing: Packing) -> TrainBatch:
        """As an update from the policy that has sampled reads it; advantages alternate in sign."""
        run, rollout = self.run, made_rollout(self.run)
        advantage_B = 1.0 - 2.0 * (np.arange(run.size.rows) % 2)
        (batch,) = train_batches(
            [packing], rollout, advantage_B, [None], None, run.cfg.loss, 0.0, jax.random.key(0)
        )
        return batch


def _prompts(run: Run, count: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return rng.integers(0, run.model.reachable, (count, run.size.prompt)).tolist()


def _lengths(packing: Packing) -> np.ndarray:
    """Columns of each sequence that is packed, prompts included."""
    segment = packing.packed.segment.reshape(-1, packing.packed.segment.shape[-1])
    counts_of_rows = [np.unique(row[row > 0], return_counts=True)[1] for row in segment]
    return np.concatenate(counts_of_rows)


def _shape_of(packing: Packing) -> str:
    M, R, T = packing.packed.tokens.shape
    return f"{M} x {R} x {T} columns"
