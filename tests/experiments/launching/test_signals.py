"""Ctrl-C during a launch."""

import signal

import pytest

from experiments.launching.signals import check_ctrl_c, remembering_ctrl_c


class PressesWhenItGoes:
    """Presses Ctrl-C where Python drops what is raised, as it does in a fork."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_raises_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), remembering_ctrl_c():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_python_drops_is_not_forgotten() -> None:
    with remembering_ctrl_c():
        check_ctrl_c()
        _ = PressesWhenItGoes()
        del _
        with pytest.raises(KeyboardInterrupt):
            check_ctrl_c()
