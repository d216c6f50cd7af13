"""Exceptions and warnings of the package."""

from collections.abc import Iterator
from contextlib import contextmanager

from nas.foundation.escaping import safe_line
from nas.foundation.uris import redact

_MAX_LENGTH = 1000
_MAX_LINES = 20


class UserError(ValueError):
    """The user's input is wrong: a line with the place, the problem and the remedy for each thing.

    The command line prints the lines and exits with code 2; a notebook sees a `ValueError`. A message
    may quote untrusted files, and URIs with passwords. Line breaks and control characters are therefore
    escaped, secrets are hidden, and the middle of a very long message is cut out.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(_without_middle(safe_line(each)) for each in messages))


class ErrorList:
    """Collects what is wrong, so that a person learns all of it at once."""

    def __init__(self) -> None:
        self._messages: dict[str, None] = {}

    def add(self, message: str) -> None:
        """Adds a line, once."""
        self._messages[message] = None

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds the user error that ends the block, if one does."""
        try:
            yield
        except UserError as error:
            for line in str(error).splitlines():
                self.add(line)

    def check(self) -> None:
        """Ends here if something is wrong.

        Raises:
            UserError: of the first twenty things.
        """
        messages = list(self._messages)
        if messages:
            more = [f"and {len(messages) - _MAX_LINES} more"] if len(messages) > _MAX_LINES else []
            raise UserError(*messages[:_MAX_LINES], *more)


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
    """The first line of what an exception says, without secrets of URIs; its type if it says nothing."""
    return redact((str(error).strip() or type(error).__name__).splitlines()[0])


def _without_middle(text: str) -> str:
    half = _MAX_LENGTH // 2
    return text if len(text) <= _MAX_LENGTH else f"{text[:half]} ... {text[-half:]}"
