"""What an epoch costs, and what is left of a search or a training at that price."""

from dataclasses import dataclass

from nas.config import SearchConfig, TrainConfig

NUM_TIMED_BATCHES = 2


@dataclass(frozen=True)
class EpochCost:
    """Seconds per epoch, alone on the machine; all epochs of a training cost the same.

    Attributes:
        num_weight_steps: steps of an epoch that train the weights of a supernet; 0 for a training.
    """

    warmup_s: float
    joint_s: float
    num_weight_steps: int

    def left_s(self, config: SearchConfig | TrainConfig, num_done: int, *, warms_up: bool) -> float:
        """Seconds that a search or a training still takes.

        Args:
            num_done: epochs that are done.
            warms_up: False where it takes its warm-up from another search.
        """
        num_warmup = max(config.num_warmup_epochs - num_done, 0) if warms_up else 0
        num_joint = config.num_epochs - max(config.num_warmup_epochs, num_done)
        return num_warmup * self.warmup_s + num_joint * self.joint_s
