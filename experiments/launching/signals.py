"""Ctrl-C and SIGTERM during a launch."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_IS_PRESSED = threading.Event()


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Makes SIGTERM act like Ctrl-C during `Tuner.fit`, where Ray would exit.

    Tune stops cleanly at the first Ctrl-C and restores the previous handler for the second. That handler is
    restored here as well, since Tune itself would keep ignoring the first Ctrl-C afterwards.
    """
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def remembering_ctrl_c() -> Iterator[None]:
    """Remembers that Ctrl-C was pressed, for `check_ctrl_c`.

    Ctrl-C raises `KeyboardInterrupt` at once, too, but Python drops what is raised in some callbacks, such
    as those of a fork, and Ray and MLflow fork when they start.
    """
    before = signal.getsignal(signal.SIGINT)
    _IS_PRESSED.clear()

    def press(*_: object) -> None:
        _IS_PRESSED.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check_ctrl_c() -> None:
    """Ends here if Ctrl-C was pressed since `remembering_ctrl_c` began.

    Raises:
        KeyboardInterrupt: it was.
    """
    if _IS_PRESSED.is_set():
        raise KeyboardInterrupt
