"""The peers of benchmarks/sampler.py: other people's samplers, each in a process of its own.

    PYTHON benchmarks/sampler_peers.py SIDE FOLDER THREADS

SIDE is `transformers` (PYTHON: an interpreter with torch and transformers) or `tunix` (one with
google-tunix); FOLDER is a Hugging Face folder with the model, a Llama. The model is computed in
float32 on the first THREADS of the processors allowed. JSON lines: the process says {"ready":
VERSIONS} once the model is loaded, then answers each line of standard input:

- {"rows": B, "new_tokens": T, "prompt": [ids]}: {"seconds": s, "tokens": B * T}, after sampling
  `rows` continuations of the one prompt at temperature 1 from the whole vocabulary. No token ends
  one, so that each has exactly T. Prefill is included, and compilation where the shape is new.
- the same with "greedy": true: argmax instead; the answer has the first row's ids as "row".
- {"memory": true}: {"resident": MB, "peak": MB} of the process.

It imports nothing of rlif_jax. Both prefill the prompt once for every row, as they do unless one
builds the cache oneself.
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# rows, new_tokens, prompt, greedy -> ids [rows, new_tokens], as lists or an array
Generate = Callable[[int, int, list[int], bool], list]


def transformers_side(folder: str, threads: int) -> tuple[str, Generate]:
    """Versions, and transformers' generate with its default cache."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    # Of 16 rows at 128 tokens, on one thread, a step with eager attention takes about 1.15 times
    # that with sdpa, and with a static cache the same. num_return_sequences is no other work than
    # a batch of the prompt, for generate repeats the prompt before prefill.
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    # The folder's own generation config ends at EOS and may filter, and generate takes from it
    # what a call leaves open. With this one no logits processor runs, and only the length stops.
    model.generation_config = transformers.GenerationConfig(pad_token_id=0)

    @torch.inference_mode()
    def generate(rows: int, new_tokens: int, prompt: list[int], greedy: bool):
        prompts_BT = torch.tensor([prompt] * rows)
        how = {"do_sample": False}
        if not greedy:
            how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        out_BT = model.generate(
            prompts_BT,
            attention_mask=torch.ones_like(prompts_BT),
            max_new_tokens=new_tokens,
            **how,
        )
        return out_BT[:, len(prompt) :].numpy()

    return f"torch {torch.__version__}, transformers {transformers.__version__}", generate


class Ids:
    """A tokenizer for Tunix by which prompts are token ids already, and samples stay ids.

    -1, which no sample has, stands for padding and EOS: Tunix hides every token equal to padding
    from attention, and SmolLM2's padding is a token that can be sampled.
    """

    def encode(self, ids: list[int]) -> list[int]:
        return ids

    def decode(self, ids: list[int]) -> str:
        return ""

    def bos_id(self) -> None:
        return None

    def eos_id(self) -> int:
        return -1

    pad_id = eos_id


def tunix_model(folder: str):
    """Tunix's Llama with the folder's weights in float32, and its configuration."""
    import jax.numpy as jnp
    from tunix.models.llama3 import model as llama3
    from tunix.models.llama3 import params

    hf = json.loads(Path(folder, "config.json").read_text())
    rope_theta = (hf.get("rope_parameters") or hf)["rope_theta"]
    config = llama3.ModelConfig(
        num_layers=hf["num_hidden_layers"],
        vocab_size=hf["vocab_size"],
        embed_dim=hf["hidden_size"],
        hidden_dim=hf["intermediate_size"],
        num_heads=hf["num_attention_heads"],
        head_dim=hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
        num_kv_heads=hf["num_key_value_heads"],
        rope_theta=rope_theta,
        norm_eps=hf["rms_norm_eps"],
        weight_tying=hf.get("tie_word_embeddings", False),
    )
    # Its attention calls apply_rope without config.rope_theta, so that the default of a million
    # would hold for every model.
    llama3.apply_rope = functools.partial(llama3.apply_rope, rope_theta=rope_theta)
    return params.create_model_from_safe_tensors(folder, config, dtype=jnp.float32), config


def tunix_side(folder: str, threads: int) -> tuple[str, Generate]:
    """Versions, and Tunix's vanilla sampler, with the least cache that the request needs."""
    from importlib.metadata import version
    from itertools import count

    from tunix.generate.sampler import CacheConfig, Sampler

    model, config = tunix_model(folder)
    seeds = count()

    @functools.cache
    def sampler(cache_size: int) -> Sampler:
        heads = config.num_kv_heads, config.head_dim
        return Sampler(model, Ids(), CacheConfig(cache_size, config.num_layers, *heads))

    def generate(rows: int, new_tokens: int, prompt: list[int], greedy: bool):
        return sampler(len(prompt) + new_tokens)(
            [prompt] * rows,
            max_generation_steps=new_tokens,
            max_prompt_length=len(prompt),  # without it, the next power of two
            temperature=1.0,
            top_p=None if greedy else 1.0,  # None is argmax; 1.0 leaves out the sort
            seed=next(seeds),
        ).tokens

    packages = "google-tunix", "jax", "flax"
    return ", ".join(f"{package} {version(package)}" for package in packages), generate


def memory() -> dict[str, float]:
    """Resident memory and its peak, in MB."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    kibibytes = {"resident": lines["VmRSS"], "peak": lines["VmHWM"]}
    return {name: int(value.split()[0]) * 1.024e-3 for name, value in kibibytes.items()}


def use_threads(threads: int) -> None:
    """Compute on the first processors allowed.

    To be called before torch or jax is imported: they size their thread pools once.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    count = str(threads)
    os.environ |= {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "JAX_PLATFORMS": "cpu"}


def answers() -> Callable[[dict], None]:
    """What writes a JSON line to standard output, kept from now on from all else that prints."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return lambda value: print(json.dumps(value), file=lines, flush=True)


def answer(request: dict, generate: Generate) -> dict:
    """What one line asks for."""
    if request.get("memory"):
        return memory()
    rows, new_tokens, greedy = request["rows"], request["new_tokens"], request.get("greedy", False)
    start = time.perf_counter()
    out_BT = generate(rows, new_tokens, request["prompt"], greedy)
    seconds = time.perf_counter() - start
    lengths = {len(ids) for ids in out_BT}
    if len(out_BT) != rows or lengths != {new_tokens}:
        sys.exit(f"asked for {rows} rows of {new_tokens}, got {len(out_BT)} of {lengths}")
    row = {"row": [int(token) for token in out_BT[0]]} if greedy else {}
    return {"seconds": seconds, "tokens": rows * new_tokens} | row


def main() -> None:
    """Load, then answer until standard input ends."""
    sides = {"transformers": transformers_side, "tunix": tunix_side}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("side", choices=sides)
    parser.add_argument("folder")
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    use_threads(options.threads)
    say = answers()
    versions, generate = sides[options.side](options.folder, options.threads)
    say({"ready": versions})
    for line in sys.stdin:
        say(answer(json.loads(line), generate))


if __name__ == "__main__":
    main()
