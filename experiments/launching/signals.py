"""What Ctrl-C and SIGTERM do to a launch."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_in_order() -> Iterator[None]:
    """For the time of `Tuner.fit`: SIGTERM does what Ctrl-C does, where Ray would exit.

    Tune ends in order at the first Ctrl-C and leaves the second to what was there before. Afterwards
    Ctrl-C does that again: Tune would go on ignoring the first one.
    """
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
