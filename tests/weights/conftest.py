"""A tiny random decoder."""

import jax
import pytest
from support.tiny_gguf import TINY

from rlif_jax.model.decoder import Decoder


@pytest.fixture
def tiny() -> Decoder:
    return Decoder.init(TINY, jax.random.key(0), scale=0.3)
