"""The study's four settings fit on real slices: scorer and update, compiled without a TPU."""

import json

import pytest
from support.paper_settings import ON_TPU

from benchmarks.paper_plans import PLANS
from rlif_jax.planning.chips import Slice
from rlif_jax.planning.compiled import CompiledStage, compile_stage

pytestmark = pytest.mark.slow

ON_V5E = [setting for setting in ON_TPU if setting.machine.startswith("v5e")]


@pytest.mark.parametrize("setting", ON_V5E, ids=lambda setting: setting.name)
def test_scorer_and_update_need_what_was_stored(setting, tmp_path, monkeypatch):
    """Another version of libtpu may need a little more or less; a twentieth is a change of ours."""
    monkeypatch.setenv("RLIF_CACHE", str(tmp_path))  # nothing is compiled yet
    stored = json.loads(PLANS.read_text())[setting.folder][setting.machine]
    ahead = setting.ahead()
    assert ahead.stages.form.columns >= setting.config.longest_row
    for name in ("score", "update"):
        stage = compile_stage(ahead.lowered(name), Slice.parse(setting.machine))
        assert isinstance(stage, CompiledStage), stage
        held_gib = (stage.memory.total + ahead.held_beside(name)) / 2**30
        assert held_gib == pytest.approx(stored["gib_held"][name], rel=0.05)
        assert held_gib < setting.gib_of_chip
