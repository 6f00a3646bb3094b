"""How a command ends that cannot do what it was asked for."""

import pytest

from rlif_jax.errors import NotFinite, Outage, UserError, exit_on_user_error


@pytest.mark.parametrize(("kind", "status"), [(UserError, 2), (NotFinite, 2), (Outage, 1)])
def test_a_sentence_and_a_status_that_says_whether_to_try_again(kind, status, capsys):
    with pytest.raises(SystemExit) as end, exit_on_user_error():
        raise kind("why, and what to do")
    assert end.value.code == status
    assert capsys.readouterr().err == "error: why, and what to do\n"


def test_other_exceptions_pass():
    with pytest.raises(KeyError), exit_on_user_error():
        raise KeyError
