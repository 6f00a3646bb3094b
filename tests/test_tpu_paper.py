"""The study's four settings fit on real slices: all stages, compiled without a TPU."""

import json

import pytest
from support.paper_settings import ON_TPU

from benchmarks.paper_plans import PLANS, planned

pytestmark = pytest.mark.slow

ON_V5E = [setting for setting in ON_TPU if setting.machine.startswith("v5e")]


@pytest.mark.parametrize("setting", ON_V5E, ids=lambda setting: setting.name)
def test_the_stages_of_a_setting_need_what_was_stored(setting):
    """Another version of libtpu may need a little more or less; a twentieth is a change of ours."""
    plan = planned(setting)
    stored = json.loads(PLANS.read_text())[setting.folder][setting.machine]
    assert plan["gib_held"] == pytest.approx(stored["gib_held"], rel=0.05)
    assert plan["seconds"] == pytest.approx(stored["seconds"], rel=0.05, abs=0.2)
    assert max(plan["gib_held"].values()) < setting.gib_of_chip
