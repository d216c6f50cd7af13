"""Ctrl-C and SIGTERM during a launch."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


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
