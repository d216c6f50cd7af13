"""Exceptions and warnings of the package."""

_MAX_LENGTH = 1000


class UserError(ValueError):
    """The user's input is wrong: one line with the place, the problem and the remedy.

    The command line prints the line and exits with code 2; a notebook sees a `ValueError`. The message
    may quote untrusted files. Line breaks and control characters are therefore escaped, and the middle
    of a very long message is cut out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_without_middle(escape_unprintable(message)))


class InfeasibleTargetError(UserError):
    """No width assignment of an architecture reaches the latency target.

    Attributes:
        reachable_ms: lowest and highest latency that the widths allow, in ms.
    """

    def __init__(self, message: str, reachable_ms: tuple[float, float]) -> None:
        super().__init__(message)
        self.reachable_ms = reachable_ms


class RunWarning(UserWarning):
    """A search or training continues, but not as expected; the person who launched it must learn why."""


class DamagedCheckpointWarning(RunWarning):
    """A checkpoint is damaged; its content is recomputed."""


class SkippedImagesWarning(RunWarning):
    """Image files are missing or broken, and were left out as asked."""


class InputWarning(UserWarning):
    """The input can be used, but is perhaps not what was meant."""


class DivergedError(RuntimeError):
    """A loss or a parameter is no longer a finite number."""


class PeerError(RuntimeError):
    """Another process of the same training failed first; the message is the one of that process."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def escape_unprintable(text: str) -> str:
    """The text in one line, with everything escaped that would move the cursor or break the line."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _without_middle(text: str) -> str:
    half = _MAX_LENGTH // 2
    return text if len(text) <= _MAX_LENGTH else f"{text[:half]} ... {text[-half:]}"
