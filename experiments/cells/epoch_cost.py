"""What an epoch costs, and what is left of a search or a training at that price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NUM_TIMED_BATCHES = 2


@dataclass(frozen=True)
class EpochCost:
    """Seconds per epoch, alone on the machine.

    Attributes:
        seconds: by the phase of the epoch, see `Cell.phases`.
    """

    seconds: Mapping[str, float]

    def left_s(self, phases: Sequence[str], num_done: int, *, warms_up: bool) -> float:
        """Seconds that a search or a training still takes.

        Args:
            phases: of all its epochs.
            num_done: epochs that are done.
            warms_up: False where it takes its warm-up from another search.
        """
        left = [phase for phase in phases[num_done:] if warms_up or phase != "warmup"]
        return sum(self.seconds[phase] for phase in left)
