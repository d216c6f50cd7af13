"""Ctrl-C and SIGTERM during a launch."""

import signal
from collections.abc import Callable, Iterator
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


@contextmanager
def remembering_ctrl_c() -> Iterator[Callable[[], None]]:
    """Yields a function that raises `KeyboardInterrupt` if Ctrl-C was pressed.

    Ctrl-C raises it at once, too, but Python drops what is raised while it forks, as Ray does when it starts.
    """
    before = signal.getsignal(signal.SIGINT)
    is_pressed = False

    def press(*_: object) -> None:
        nonlocal is_pressed
        is_pressed = True
        raise KeyboardInterrupt

    def check() -> None:
        if is_pressed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
