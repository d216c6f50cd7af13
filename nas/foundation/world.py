"""The processes that train one network together: those that torchrun started, or a single one."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from nas.foundation.errors import DivergedError, PeerError, UserError

_FAILURE = "failure"
_NONE = "none"


@dataclass(frozen=True)
class World:
    """The processes that train one network together. The default is a single process.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        store: shared store of the processes, beside their default group of torch.distributed.
    """

    rank: int = 0
    size: int = 1
    store: Store | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, num_samples: int) -> slice:
        """This process's share of the samples of a batch. Shares differ by at most one, and may be empty."""
        return slice(num_samples * self.rank // self.size, num_samples * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place; equal in all of them to the last bit."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def spread(self, content: Any) -> Any:
        """Broadcasts content from the first process: tensors, numbers, strings and containers of them."""
        if self.size == 1:
            return content
        buffer = io.BytesIO()
        if self.is_first:
            torch.save(content, buffer)
        num_bytes = torch.tensor(len(buffer.getbuffer()))
        dist.broadcast(num_bytes, src=0)
        stored = bytearray(buffer.getbuffer()) if self.is_first else bytearray(int(num_bytes))
        dist.broadcast(torch.frombuffer(stored, dtype=torch.uint8), src=0)
        return torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Reports the first failure of any process to all of them.

        Raises:
            PeerError: in a process that fails because another one failed before.
        """
        try:
            yield
        except (DivergedError, PeerError):
            # Each process sees a divergence by itself.
            raise
        except Exception as error:
            if self.store is None:
                raise
            own = f"process {self.rank}: {error}"
            first = self.store.compare_set(_FAILURE, _NONE, own).decode()
            if first == own:
                raise
            raise PeerError(first) from error


ALONE = World()
"""A single process."""


@contextmanager
def join_world() -> Iterator[World]:
    """Joins the processes that torchrun started. A process that torchrun did not start stays alone.

    With CUDA, each process takes the GPU of its local rank.
    """
    if not dist.is_torchelastic_launched():
        yield World()
        return
    store, rank, size = next(rendezvous("env://"))
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        local_rank = int(os.environ["LOCAL_RANK"])
        if local_rank < torch.cuda.device_count():
            torch.cuda.set_device(local_rank)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    own_store = PrefixStore("tfnas", store)
    own_store.compare_set(_FAILURE, "", _NONE)
    world = World(rank, size, own_store)
    try:
        with world.failing_together():
            yield world
            # A process that ends while another one still receives can crash the other.
            dist.barrier()
    finally:
        dist.destroy_process_group()


def check_device(device: torch.device, world: World) -> None:
    """Checks that each process has its own device, if devices are GPUs.

    Raises:
        UserError: processes share a GPU.
    """
    if device.type != "cuda" or world.size == 1:
        return
    if str(device) != "cuda":
        raise UserError(f"device: {device}; each of several processes takes its own GPU: set cuda or auto")
    num_gpus, local_size = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local_size > num_gpus:
        raise UserError(f"--nproc-per-node: {local_size} processes, but {num_gpus} GPUs; start one per GPU")
