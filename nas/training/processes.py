"""Coordination of several processes that train together: the first one leads, the others follow.

Only the first process needs to know where a training comes from and what happens to its results.
"""

from contextlib import suppress

from nas.config import TrainConfig
from nas.foundation.errors import DivergedError
from nas.foundation.world import World
from nas.training.training import run_training


def lead(config: TrainConfig, world: World) -> None:
    """Broadcasts the config from rank 0, before training starts."""
    world.spread(config.model_dump(mode="json"))


def dismiss(world: World) -> None:
    """Releases the following processes."""
    world.spread(None)


def follow(world: World) -> None:
    """Trains everything that the first process leads, until it calls `dismiss`; keeps no results.

    Raises:
        UserError, PeerError: this or another process cannot continue.
    """
    while (fields := world.spread(None)) is not None:
        with suppress(DivergedError), world.failing_together():
            for _ in run_training(TrainConfig(**fields), world=world):
                pass
