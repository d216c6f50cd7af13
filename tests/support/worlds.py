"""Several processes as torchrun starts them, for tests: each runs a function of a test module."""

import os
import socket

import torch
import torch.multiprocessing

from nas.foundation.world import join_world


def run_in_world(function, *args, size=2):
    """Calls `function(world, *args)` in each of so many processes; raises if one of them fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_join, (size, port, function, args), nprocs=size)


def _join(rank, size, port, function, args):
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
    }
    torch.set_num_threads(1)
    with join_world() as world:
        function(world, *args)
