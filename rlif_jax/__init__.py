"""Reinforcement learning of code models from tests, from certainty, or from both, in JAX.

`Config`, `Sampler`, `load_model` and `reward` are the public interface. All else may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlif_jax.config import Config
    from rlif_jax.rewards import reward
    from rlif_jax.sampler.sampler import Sampler
    from rlif_jax.weights.source import load_model

__version__ = "0.1.0"

__all__ = ["Config", "Sampler", "load_model", "reward"]

_HOMES = {
    "Config": "rlif_jax.config",
    "Sampler": "rlif_jax.sampler.sampler",
    "load_model": "rlif_jax.weights.source",
    "reward": "rlif_jax.rewards",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import rlif_jax` alone starts nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
