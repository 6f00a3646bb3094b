"""Settings of adapters that contradict each other."""

import dataclasses

import pytest

from rlif_jax.config import Checkpoint, Config, Model
from rlif_jax.config.validate import validate
from rlif_jax.errors import UserError
from rlif_jax.rewards import known_rewards


def test_adapters_are_allowed():
    model = Model(lora_rank=8, lora_alpha=16.0, lora_targets=("q", "v"))
    validate(Config(model=model, checkpoint=Checkpoint(adapters_only=True)), known_rewards())


@pytest.mark.parametrize(
    "model, named",
    [
        ({"lora_rank": -1}, "model.lora_rank=-1 must be at least 0"),
        ({"lora_rank": 4, "lora_alpha": 0.0}, "model.lora_alpha=0.0 must be positive"),
        ({"lora_rank": 4, "lora_targets": ("q", "x")}, "'x', which is invalid"),
        ({"lora_rank": 4, "lora_targets": ()}, "model.lora_targets is empty"),
        ({"lora_rank": 4, "lora_targets": ("q", "q")}, "names q twice"),
        ({"lora_alpha": 16.0}, "model.lora_alpha=16.0 is read only with adapters"),
        ({"lora_targets": ("q",)}, "model.lora_targets=('q',) is read only with adapters"),
    ],
)
def test_what_nothing_would_read_is_refused(model, named):
    with pytest.raises(UserError) as error:
        validate(Config(model=Model(**model)), known_rewards())
    assert named in str(error.value)


def test_checkpoints_of_adapters_need_adapters():
    cfg = dataclasses.replace(Config(), checkpoint=Checkpoint(adapters_only=True))
    with pytest.raises(UserError, match=r"adapters_only=True needs adapters"):
        validate(cfg, known_rewards())
