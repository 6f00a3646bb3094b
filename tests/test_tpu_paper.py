"""The study's four settings fit on real slices: scorer and update, compiled without a TPU."""

from typing import Any

import pytest
from support.paper_settings import ON_TPU

from rlif_jax.planning.ahead import compile_with_text, total_bytes
from rlif_jax.planning.traffic import bytes_per_step

pytestmark = pytest.mark.slow

BOUNDS = {
    "r1_1p5b_8k": {"score": (0.65, 32), "update": (3.0, 195)},
    "r1_1p5b_16k": {"score": (0.71, 24), "update": (2.9, 205)},
    "qwen3_4b_16k": {"score": (1.75, 111), "update": (3.9, 765)},
    "coder_7b_8k": {"score": (1.0, 104), "update": (4.6, 402)},
}
"""GiB of temporaries and GB that a chip moves for a row: a tenth above what was measured."""

ON_V5E = [setting for setting in ON_TPU if setting.machine.startswith("v5e")]


@pytest.mark.parametrize("setting", ON_V5E, ids=lambda setting: setting.name)
def test_scorer_and_update_fit_on_a_v5e(setting):
    ahead = setting.ahead()
    assert ahead.stages.form.columns >= setting.config.longest_row
    for stage in ("score", "update"):
        temporaries_gib, moved_gb = BOUNDS[setting.folder][stage]
        compiled, text = compile_with_text(ahead.lowered(stage))
        memory: Any = compiled.memory_analysis()
        assert memory.temp_size_in_bytes / 2**30 < temporaries_gib, stage
        assert total_bytes(compiled) / 2**30 < setting.gib_of_chip, stage
        assert bytes_per_step(text) / 1e9 < moved_gb, stage
