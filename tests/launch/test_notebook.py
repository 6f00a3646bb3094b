"""The notebook for Colab, executed: it trains, shows rewards, adds one, and makes the report."""

import re
import shutil

import nbformat
import pytest
from support import ROOT
from support.small_runs import metrics

NOTEBOOK = ROOT / "launch" / "colab.ipynb"


@pytest.fixture(scope="module")
def executed(flags, tmp_path_factory):
    """The notebook after two steps of the very small model, and the checkout that it ran in."""
    from nbclient import NotebookClient

    checkout = tmp_path_factory.mktemp("checkout")
    (checkout / "rlif_jax").symlink_to(ROOT / "rlif_jax")
    shutil.copytree(ROOT / "configs", checkout / "configs")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    given = {"STEPS": 2, "FLAGS": " ".join([*flags, "--eval.every=0"]), "REPOSITORY": ""}
    assert {line.split(" = ")[0] for line in parameters.source.splitlines()} == given.keys()
    parameters.source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(checkout)}})
    client.execute()  # which raises where a cell does, as each does when its command fails
    return notebook, checkout


def printed(notebook, begin: str) -> str:
    """What the cell prints whose source has this in it."""
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and begin in c.source)
    return "".join(output.get("text", "") for output in cell.outputs)


def test_it_trains_and_shows_the_rewards(executed):
    notebook, checkout = executed
    assert "done: runs/notebook has metrics.jsonl" in printed(notebook, "configs/prob_disparity.py")
    lines = printed(notebook, "for step in steps").splitlines()
    recorded = metrics(checkout / "runs" / "notebook")
    assert [re.search(r"reward (\S+)", line)[1] for line in lines] == [
        f"{one['reward/mean']:.3f}" for one in recorded
    ]
    shown = re.findall(r": reward (\S+), \w+$", printed(notebook, "rollouts"), re.MULTILINE)
    surest, least = map(float, shown)
    assert least <= recorded[-1]["reward/mean"] + 0.001 <= surest + 0.002


def test_the_reward_of_one_s_own_is_trained_on(executed):
    _, checkout = executed
    for one in metrics(checkout / "runs" / "my_reward"):
        assert 0 < one["reward/my_confidence"] == one["reward/mean"] < 1


def test_the_report_shows_both_runs(executed):
    notebook, checkout = executed
    assert "wrote report.html" in printed(notebook, "rlif_jax.report")
    page = (checkout / "report.html").read_text("utf-8")
    assert "<title>notebook, my_reward · rlif_jax</title>" in page
    (cell,) = (c for c in notebook.cells if "rlif_jax.report" in c.source)
    shown = [output.data for output in cell.outputs if output.output_type == "display_data"]
    assert ["image/png" in data for data in shown] == [True, False]
    assert "&lt;!doctype html&gt;" in shown[1]["text/html"]


def test_the_stored_notebook_has_no_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.get("outputs", []) == []
