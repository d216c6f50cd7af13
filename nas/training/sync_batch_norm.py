"""Batch norm over the batch of all processes.

Shapes: B batch (this process's share), C channels, H W space.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


def synchronize_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Makes batch norm take its statistics from the batch of all processes.

    A training then does not depend on how many processes share a batch. Parameters, buffers and their
    names stay. torch's own implementation supports only GPUs; on the CPU, plain operations do the same.
    """
    if device.type != "cpu":
        synchronized: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synchronized
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                norm = CpuSyncBatchNorm(child.num_features, child.eps, child.momentum)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm)
    return network


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """`nn.SyncBatchNorm` for the CPU."""

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """Returns normalized features; in evaluation mode like `nn.BatchNorm2d`."""
        if not self.training:
            return super().forward(features_BCHW)
        features_BCHW, dtype = features_BCHW.float(), features_BCHW.dtype
        num_pixels = features_BCHW.new_tensor([features_BCHW.numel() / self.num_features])
        sums_C, num_1 = _sum(torch.cat([features_BCHW.sum((0, 2, 3)), num_pixels])).tensor_split([-1])
        mean_C = sums_C / num_1
        centered_BCHW = features_BCHW - mean_C[:, None, None]
        # A second pass, because the difference of two large sums would lose digits.
        var_C = _sum(centered_BCHW.square().sum((0, 2, 3))) / num_1
        self._track(mean_C.detach(), (var_C * num_1 / (num_1 - 1)).detach())
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        return torch.addcmul(self.bias[:, None, None], centered_BCHW, scale_C[:, None, None]).to(dtype)

    def _track(self, mean_C: Tensor, var_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(var_C, self.momentum)
        self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """Sum over all processes. Its gradient is summed, too, because the loss of each process depends on it."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Any) -> Tensor:
        total: Tensor = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum(own: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(own)
    return total
