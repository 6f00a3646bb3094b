"""Names of slices, and what is refused."""

import pytest

from rlif_jax.errors import UserError
from rlif_jax.planning.chips import CHIPS, Slice


@pytest.mark.parametrize(
    ("name", "platform", "chips", "chip"),
    [
        ("v5e:4x4", "tpu", 16, "v5e"),
        ("v6e:16x16", "tpu", 256, "v6e"),
        ("v5p:2x2x4", "tpu", 16, "v5p"),
        ("v4:2x2x1", "tpu", 4, "v4"),
        ("gpu:h100x8", "gpu", 8, "h100"),
        ("cpu:8", "cpu", 8, None),
    ],
)
def test_a_slice_is_read_from_its_name(name, platform, chips, chip):
    found = Slice.parse(name)
    assert (found.name, found.platform, found.chips) == (name, platform, chips)
    assert found.chip is (None if chip is None else CHIPS[chip])


@pytest.mark.parametrize(
    "name",
    [
        *("", "v5e", "v5e:16", "v5e:4x4x1", "v5p:4x4", "v7:2x2", "gpu:8", "gpu:b200x8"),
        *("gpu:h100x0", "cpu:0", "cpu:2x4", "v5e:0x4", "V5E:4x4"),
    ],
)
def test_another_name_is_refused_with_those_that_are_known(name):
    with pytest.raises(UserError, match=rf"--topology {name} is not known.*v5e:4x4.*gpu:h100x8"):
        Slice.parse(name)
