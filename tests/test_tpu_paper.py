"""The paper's four settings fit on real slices: scorer and update, compiled without a TPU."""

import pytest
from support.paper_settings import CODER, GIB_OF_CHIP, QWEN3, R1, SETTINGS, lowered

from rlif_jax.planning.ahead import total_bytes
from rlif_jax.planning.traffic import bytes_per_step

pytestmark = pytest.mark.slow

BOUNDS = {
    (R1, 8192): {"score": (0.65, 32), "update": (3.0, 195)},
    (R1, 16384): {"score": (0.71, 24), "update": (2.9, 205)},
    (QWEN3, 16384): {"score": (1.75, 111), "update": (3.9, 765)},
    (CODER, 8192): {"score": (1.0, 104), "update": (4.6, 402)},
}
"""GiB of temporaries and GB that a chip moves for a row: a tenth above what was measured."""

ON_V5E = [setting for setting in SETTINGS if "v5e" in setting.topology]


@pytest.mark.parametrize("setting", ON_V5E, ids=lambda setting: setting.name)
def test_scorer_and_update_fit_on_a_v5e(setting):
    for stage, form, one in lowered(setting):
        assert form.columns >= 2048 + setting.response - 1
        temporaries_gib, moved_gb = BOUNDS[setting.model, setting.response][stage]
        compiled = one.compile()
        memory = compiled.memory_analysis()
        assert memory.temp_size_in_bytes / 2**30 < temporaries_gib, stage
        assert total_bytes(compiled) / 2**30 < GIB_OF_CHIP["v5e"], stage
        assert bytes_per_step(compiled.as_text()) / 1e9 < moved_gb, stage
