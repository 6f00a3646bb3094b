"""Our side of benchmarks/learning.py; learning_peers.py has the lines that it answers.

python -m benchmarks.learning_sides {separate|shared|step} FOLDER
"""

import argparse
import dataclasses
import json
import sys
import time
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.learning_peers import PROMPTS as N
from benchmarks.learning_peers import SAMPLES, C, P
from benchmarks.on_device.questions import made_questions
from benchmarks.on_device.runs import Run, made_rollout
from benchmarks.on_device.sizes import StepSize
from benchmarks.sampler_peers import answers, memory
from rlif_jax import sharding
from rlif_jax.config import Config, Data, Loss, Reward, Sampling
from rlif_jax.console.notice import ignore
from rlif_jax.grpo import train_batches
from rlif_jax.optimizer import init_state
from rlif_jax.run.clock import Clock
from rlif_jax.step import make_stages, train_step
from rlif_jax.step_record import StepRecord
from rlif_jax.weights.source import load_model

SIZE = StepSize(prompts=N, samples=SAMPLES, prompt=P, new=C, in_row=4)


class Ours:
    """The stages of a real training, and a state that they work on."""

    def __init__(self, part: str, folder: str):
        model, _ = load_model(folder)
        # No token ends a completion, so that all sides draw and train on the same number.
        model.cfg = dataclasses.replace(model.cfg, eos_ids=())
        graphdef, params = nnx.split(model)
        del model
        cfg = Config(
            data=Data(prompts_per_step=N, max_prompt_tokens=P),
            sampling=Sampling(samples_per_prompt=SAMPLES, max_new_tokens=C),
            reward=Reward(
                terms=(("probability_disparity", 1.0),),
                stats_from="sampler" if part == "step" else "scorer",
            ),
            loss=Loss(shared_prompts=part != "separate"),
        )
        jax.set_mesh(sharding.make_mesh())
        mesh = jax.sharding.get_mesh()
        params = jax.device_put(params, sharding.param_shardings(params, mesh))
        stages = make_stages(cfg, graphdef, pad_id=0)
        cfg_of_model = nnx.merge(graphdef, params).cfg
        self.run = Run(cfg, cfg_of_model, SIZE, stages, graphdef, params)
        self.state = init_state(params, stages.optimizer)
        self.steps = 0

    def score(self) -> dict[str, Any]:
        """Statistics of 16 sequences of random tokens."""
        rollout, stages = made_rollout(self.run), self.run.stages
        stats, _ = stages.score.certainty(self.state.params, rollout, stages.pack)
        assert stats is not None
        return {"sums": [float(stats.logprob.sum()), float(stats.entropy.sum())]}

    def update(self) -> dict[str, Any]:
        """One optimiser step on them."""
        rollout, stages = made_rollout(self.run), self.run.stages
        advantage_B = np.random.default_rng(1).normal(size=SIZE.rows).astype(np.float32)
        (batch,) = train_batches(
            stages.pack(rollout),
            rollout,
            advantage_B,
            [None],  # the update starts from the policy that has sampled
            None,
            self.run.cfg.loss,
            0.0,
            jax.random.key(0),
        )
        self.state, metrics, _ = stages.update(self.state, batch)
        return {"loss": float(metrics["loss/policy"])}

    def step(self) -> dict[str, Any]:
        """Sampling, reward, update."""
        asked = made_questions(SIZE, self.run.model.reachable, None, seed=self.steps, shortest=P)
        key, clock = jax.random.fold_in(jax.random.key(0), self.steps), Clock()
        self.state, record = train_step(
            self.run.cfg, self.run.stages, self.state, None, lambda: asked, key, clock, ignore
        )
        assert isinstance(record, StepRecord) and record.sampled_tokens == SIZE.rows * C
        self.steps += 1
        lap = clock.lap()
        return {"sample": lap["time/sample"] + lap["time/sync"]}


def main() -> None:
    """Load, then answer until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("separate", "shared", "step"))
    parser.add_argument("folder")
    options = parser.parse_args()
    say = answers()
    sharding.skip_absent_tpu()
    ours = Ours(options.part, options.folder)
    say({"ready": f"jax {jax.__version__}"})
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("memory"):
            answer = memory()
        else:
            start = time.perf_counter()
            answer = getattr(ours, request["what"])()
            jax.block_until_ready(ours.state.params)
            answer["seconds"] = time.perf_counter() - start
        say(answer)


if __name__ == "__main__":
    main()
