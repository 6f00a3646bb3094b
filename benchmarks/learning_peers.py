"""The peers of benchmarks/learning.py: torch's score and update, TRL's step.

    PYTHON -m benchmarks.learning_peers {torch|trl} FOLDER THREADS

FOLDER is a Hugging Face folder with the model, which is computed in float32 on the first THREADS
of the processors allowed. JSON lines: {"ready": VERSIONS} once the model is loaded; then an answer
to each line of standard input:

- {"what": "score"}, {"what": "update"} of `torch`, {"what": "step"} of `trl`: {"seconds": s}, a
  step's with "sample", the seconds until the completions were there.
- {"memory": true}: {"resident": MB, "peak": MB} of the process.

It imports nothing of rlif_jax. `torch` holds the logits of all sequences, as GRPO implementations
do that do not tile the vocabulary.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from benchmarks.sampler_peers import answers, memory, use_threads

PROMPTS, SAMPLES, P, C = 4, 4, 128, 128

Works = dict[str, Callable[[], dict]]

# From the versions, which are said first, the names of what is asked for
Asked = Callable[[str], Iterator[str]]


def torch_side(folder: str, threads: int) -> tuple[str, Works]:
    """Versions, and score and update of 16 sequences of random tokens."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.use_cache = False
    rows = PROMPTS * SAMPLES
    ids_BT = torch.randint(3, model.config.vocab_size, (rows, P + C))
    advantage_B1 = torch.randn(rows, 1)
    mask_BT = torch.zeros(rows, P + C - 1)
    mask_BT[:, P - 1 :] = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def logprobs() -> tuple:
        log_p_BTV = torch.log_softmax(model(input_ids=ids_BT).logits[:, :-1].float(), -1)
        return log_p_BTV, log_p_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]

    @torch.inference_mode()
    def score() -> dict:
        log_p_BTV, logprob_BT = logprobs()
        entropy_BT = -(log_p_BTV.exp() * log_p_BTV).sum(-1)
        return {"sums": [float(logprob_BT.sum()), float(entropy_BT.sum())]}

    def update() -> dict:
        _, logprob_BT = logprobs()
        ratio_BT = torch.exp(logprob_BT - logprob_BT.detach())
        clipped_BT = torch.clamp(ratio_BT, 0.8, 1.2)
        objective_BT = torch.minimum(ratio_BT * advantage_B1, clipped_BT * advantage_B1)
        loss = -(objective_BT * mask_BT).sum() / mask_BT.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item()}

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return versions, {"score": score, "update": update}


class NothingAsked(Exception):
    """Standard input is over."""


def trl_side(folder: str, threads: int, asked: Asked, answer: Callable[[dict], None]) -> None:
    """TRL's trainer, which takes a step and answers whenever one is asked for."""
    import torch

    torch.set_num_threads(threads)
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or "<|endoftext|>"
    # Text of exactly P tokens, whatever the tokenizer merges.
    text = " a"
    while len(tokenizer(text)["input_ids"]) < P:
        text += " a"
    assert len(tokenizer(text)["input_ids"]) == P
    sampled: list[float] = []

    def reward(completions: list[str], completion_ids: list[list[int]], **_) -> list[float]:
        sampled.append(time.perf_counter())
        assert {len(ids) for ids in completion_ids} == {C}
        return [float(len(text) % 7) for text in completions]

    class OnDemand(TrainerCallback):
        """Waits before a step until it is asked for, and answers behind it."""

        def on_step_begin(self, args, state, control, **_):
            if next(requests, None) is None:
                raise NothingAsked  # the trainer knows no way to end before a step
            self.start = time.perf_counter()

        def on_step_end(self, args, state, control, **_):
            now = time.perf_counter()
            at = max(t for t in sampled if t <= now)
            answer({"seconds": now - self.start, "sample": at - self.start})

    with tempfile.TemporaryDirectory() as out:
        config = trl.GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=PROMPTS * SAMPLES,
            num_generations=SAMPLES,
            max_completion_length=C,
            temperature=1.0,
            beta=0.0,
            learning_rate=1e-6,
            max_steps=10**6,
            use_cpu=True,
            bf16=False,
            fp16=False,
            report_to=[],
            save_strategy="no",
            logging_steps=10**6,
            gradient_checkpointing=False,
            generation_kwargs={"min_new_tokens": C},
            disable_tqdm=True,
        )
        trainer = trl.GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [text] * 64}),
            processing_class=tokenizer,
            callbacks=[OnDemand()],
        )
        requests = asked(f"torch {torch.__version__}, trl {trl.__version__}")
        with contextlib.suppress(NothingAsked):
            trainer.train()


def main() -> None:
    """Load, then answer until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("side", choices=("torch", "trl"))
    parser.add_argument("folder")
    parser.add_argument("threads", type=int)
    options = parser.parse_args()
    use_threads(options.threads)
    answer = answers()

    def asked(versions: str) -> Iterator[str]:
        """What is asked for, one after the other, but for memory, which is answered here."""
        answer({"ready": versions})
        for line in sys.stdin:
            request = json.loads(line)
            if request.get("memory"):
                answer(memory())
            else:
                yield request["what"]

    if options.side == "trl":
        trl_side(options.folder, options.threads, asked, answer)
        return
    versions, works = torch_side(options.folder, options.threads)
    for what in asked(versions):
        start = time.perf_counter()
        more = works[what]()
        answer({"seconds": time.perf_counter() - start, **more})


if __name__ == "__main__":
    main()
