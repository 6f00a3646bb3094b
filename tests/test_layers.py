"""The direction of flow: a file imports only from layers below its own."""

import ast
import sys
from pathlib import Path

import pytest
from support import ROOT

PACKAGE = ROOT / "rlif_jax"

LAYERS = (
    {"errors", "problem", "judgeable", "config", "batch", "groups", "sharding", "distributed"}
    | {"storage", "console"},
    {"kernels", "execution", "data", "rewards", "loss", "packing"},
    {"model"},
    {"weights", "scoring", "sampler", "optimizer", "metrics", "gates", "run", "grading"},
    {"grpo", "evaluation", "submissions", "reporting"},
    {"experience"},
    {"step_record"},
    {"step"},
    {"planning", "prepare"},
    {"train", "evaluate", "grade", "check", "convert", "plan", "replay", "report"},
    {"study"},
)
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}

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
    layer = LAYER_OF[room]
    for other in imported_rooms(path) - {room}:
        below = LAYER_OF[other] < layer
        # Files of these layers may build on each other; the rooms of layer 1 may not.
        beside = LAYER_OF[other] == layer in (0, 3, 4, 5)
        assert below or beside, f"{room} (layer {layer}) imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_private_name_of_another_file_is_imported(path):
    private = [n for n in imported_names(path) if n.startswith("rlif_jax.") and "._" in n]
    assert [n for n in private if not n.endswith("__")] == []


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
