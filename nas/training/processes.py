"""How the processes of one world come to train the same: the first leads, the others follow.

Of a training that is led, only the first process needs to know where it comes from and what
becomes of it.
"""

from contextlib import suppress

from nas.config import TrainConfig
from nas.foundation.errors import DivergedError
from nas.foundation.world import World
from nas.training.training import run_training


def lead(config: TrainConfig, world: World) -> None:
    """Tells the processes that follow to train this too; the first one does so before it does."""
    world.spread(config.model_dump(mode="json"))


def dismiss(world: World) -> None:
    """Lets the processes go that follow."""
    world.spread(None)


def follow(world: World) -> None:
    """Trains what the first process trains, until it dismisses; keeps nothing.

    Raises:
        UserError, PeerError: this or another process cannot go on.
    """
    while (fields := world.spread(None)) is not None:
        with suppress(DivergedError), world.failing_together():
            for _ in run_training(TrainConfig(**fields), world=world):
                pass
