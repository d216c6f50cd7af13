"""Exceptions with a meaning of their own."""


class UserError(ValueError):
    """The user's input is wrong: one line that names what, where and the remedy.

    The command line prints the line and exits with code 2; a notebook sees a `ValueError`.
    """


class InfeasibleTargetError(UserError):
    """No width assignment of an architecture reaches the latency target.

    Attributes:
        reachable_ms: lowest and highest latency that the widths allow, in ms.
    """

    def __init__(self, message: str, reachable_ms: tuple[float, float]) -> None:
        super().__init__(message)
        self.reachable_ms = reachable_ms


class DivergedError(RuntimeError):
    """A loss or a parameter is no longer a finite number."""
