"""The confidence that a response states, and what brier makes of it."""

from dataclasses import replace

import numpy as np
import pytest
from support.evidence import evidence

from rlif_jax.config import Reward
from rlif_jax.errors import UserError
from rlif_jax.rewards.verifiable import brier, stated_confidence


def tagged(text: str) -> str:
    return f"```python\nx = 3\n```\n<confidence>{text}</confidence>"


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        (tagged("0.85"), 0.85),
        (tagged(" .5\n"), 0.5),
        (tagged("1"), 1.0),
        (tagged("0"), 0.0),
        (tagged("85"), 0.85),
        (tagged("85 %"), 0.85),
        (tagged("0.5%"), 0.005),
        (tagged("150"), 1.0),
        (tagged("-0.2"), 0.0),
        (tagged("0.5-0.7"), 0.7),
        (tagged("between 0.1 and 0.3, say"), 0.3),
        (tagged("0.1") + " no: " + tagged("0.9"), 0.9),
        ("<Confidence>0.4</CONFIDENCE>", 0.4),
        (tagged("high"), None),
        (tagged(""), None),
        (tagged("0.1") + tagged("high"), None),  # the last statement counts
        ("I am 90% sure", None),
        ("<confidence>0.9", None),
        ("", None),
    ],
)
def test_what_is_stated(text, confidence):
    assert stated_confidence(text) == confidence


def test_brier_of_stated_confidences_by_hand():
    """The first and the last of four pass. Who states nothing has the least that is possible."""
    said = evidence(4, logprob=np.full((4, 3), -1.0))
    said = replace(said, settings=Reward(confidence="stated"))
    texts = (tagged("0.8"), tagged("30%"), tagged("0"), tagged("0.5"))
    got = brier(replace(said, texts=texts))
    np.testing.assert_allclose(got, [0.96, -0.09, 0.0, 0.75], rtol=1e-6)
    np.testing.assert_array_equal(brier(replace(said, texts=("sure",) * 4)), [0, -1, -1, 0])


def test_evidence_without_texts_is_refused():
    stated = Reward(confidence="stated")
    with pytest.raises(UserError, match=r"no texts for 4 rows.*give Evidence\.texts"):
        brier(replace(evidence(), texts=None, settings=stated))
    with pytest.raises(UserError, match="1 texts for 4 rows"):
        brier(replace(evidence(), texts=("x",), settings=stated))
