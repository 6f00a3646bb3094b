"""A run's configuration: `schema` declares it, `load` reads it, `validate` refuses it."""

from rlif_jax.config.schema import (
    Checkpoint,
    Config,
    Data,
    Eval,
    Execution,
    Loss,
    Mesh,
    Model,
    Optim,
    Profile,
    Reward,
    Sampling,
)

__all__ = [
    "Checkpoint",
    "Config",
    "Data",
    "Eval",
    "Execution",
    "Loss",
    "Mesh",
    "Model",
    "Optim",
    "Profile",
    "Reward",
    "Sampling",
]
