"""The direction of flow: a file imports only from layers below its own."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rlif_jax"

LAYERS = (
    {
        "errors",
        "problem",
        "config",
        "validation",
        "batch",
        "groups",
        "sharding",
        "user_cache",
        "pypi",
        "whole_file",
    },
    {"kernels", "execution", "data", "rewards"},
    {"model"},
    {
        "scoring",
        "sampler",
        "checkpoint",
        "metrics",
        "runlog",
        "progress",
        "meter",
        "provenance",
        "timing",
        "interrupt",
        "scores",
        "certainty",
    },
    {"grpo", "grpo_loss"},
    {
        "train",
        "evaluate",
        "evaluate_arguments",
        "evaluation",
        "results",
        "submissions",
        "programs",
        "step_record",
        "grade",
        "convert",
        "checking",
    },
)
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}

COMMANDS = {PACKAGE / "data" / "check.py"}
"""Run by `python -m` under this name alone: they import from the top layer, and no file them."""

FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in the file the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room they come from"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= set(names)
    return found


def imported_rooms(path: Path) -> set[str]:
    """Rooms of rlif_jax that a file imports."""
    names = imported_names(path)
    return {n.split(".")[1] for n in names if n.startswith("rlif_jax.")} - {"__version__"}


def test_every_room_has_a_layer():
    assert {room_of(path) for path in FILES} == set(LAYER_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    room = room_of(path)
    layer = len(LAYERS) - 1 if path in COMMANDS else LAYER_OF[room]
    for other in imported_rooms(path) - {room}:
        below = LAYER_OF[other] < layer
        # Files of these layers may build on each other; the rooms of layer 1 may not.
        beside = LAYER_OF[other] == layer in (0, 3, 4, 5)
        assert below or beside, f"{room} (layer {layer}) imports {other}"


def test_no_file_imports_a_command_of_a_lower_room():
    commands = [".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in COMMANDS]
    importers = [
        str(path)
        for path in FILES
        for name in imported_names(path)
        if any(f"{name}.".startswith(f"{command}.") for command in commands)
    ]
    assert commands == ["rlif_jax.data.check"]
    assert importers == []


SANDBOXED = sorted((PACKAGE / "execution" / "sandbox").glob("*.py"))


@pytest.mark.parametrize("path", SANDBOXED, ids=lambda path: path.stem)
def test_what_runs_in_the_sandbox_needs_nothing_but_the_standard_library(path):
    """It runs without site-packages, and imports nothing of the judge's own side."""
    tree = ast.parse(path.read_text())
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    foreign = {m for m in modules if m.partition(".")[0] not in sys.stdlib_module_names}
    assert all(f"{m}.".startswith("rlif_jax.execution.sandbox.") for m in foreign)
