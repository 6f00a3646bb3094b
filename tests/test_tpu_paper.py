"""The paper's four settings fit on real slices: update and scorer, compiled without a TPU."""

import pytest
from support.paper_settings import GIB_OF_CHIP, SETTINGS, lowered

from rlif_jax.planning.ahead import total_bytes
from rlif_jax.planning.traffic import bytes_per_step

pytestmark = pytest.mark.slow

BOUNDS = {  # GiB of temporaries and GB moved a row of tokens: a tenth above what was measured
}


@pytest.mark.parametrize(
    "setting", [s for s in SETTINGS if "v5e" in s.topology], ids=lambda s: s.name
)
def test_update_and_scorer_fit_on_a_v5e(setting):
    chip = GIB_OF_CHIP["v5e"]
    for stage, form, one in lowered(setting):
        assert form.columns >= 2048 + setting.response - 1
        compiled = one.compile()
        memory = compiled.memory_analysis()
        temporaries, moved = BOUNDS[setting.name][stage]
        assert memory.temp_size_in_bytes / 2**30 < temporaries
        assert total_bytes(compiled) / 2**30 < chip
        assert bytes_per_step(compiled.as_text()) / 1e9 < moved
