"""Reinforcement learning of code models from tests, from certainty, or from both, in JAX."""

__version__ = "0.1.0"
