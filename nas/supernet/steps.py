"""The two optimizer steps of a search.

Shapes: B batch, C channels, H W space, K classes, L searchable layers, O candidate operators.

Source: TF-NAS, bi-sampling and search procedure.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.foundation.device import backward_from, spare_compiler_import, take_step
from nas.latency.table import LatencyTable
from nas.supernet.objectives import MULTIPLIER, OBJECTIVES, has_multiplier
from nas.supernet.sampling import gumbel_softmax
from nas.supernet.supernet import Supernet

if TYPE_CHECKING:
    from nas.config import SearchConfig


class PathResult(NamedTuple):
    """What one path of a weight step gave: cross-entropy and accuracy, both scalars."""

    loss: Tensor
    accuracy: Tensor


@torch.no_grad()
def ascend(multiplier: Tensor, rate: float) -> None:
    """Moves a learned multiplier up its gradient, by `rate` times that, and clears the gradient."""
    assert multiplier.grad is not None
    multiplier += rate * multiplier.grad
    multiplier.grad = None


class SearchSteps:
    """A supernet, its two optimizers, and one step of each.

    No step waits for the device: what it returns stays there.

    Attributes:
        weight_optimizer: SGD; its momentum follows its channel when widths change.
        arch_optimizer: Adam on alpha and beta.
        latency_multiplier: what an objective such as `lagrangian` learns, a scalar; None under the others.
    """

    def __init__(self, supernet: Supernet, config: "SearchConfig", table: LatencyTable) -> None:
        self.supernet = supernet
        self._config = config
        self._table = table
        parameters = config.objective_fields()
        self.latency_multiplier: Tensor | None = None
        if has_multiplier(config.objective):
            self.latency_multiplier = torch.zeros((), device=supernet.alpha.device, requires_grad=True)
            parameters[MULTIPLIER] = self.latency_multiplier
        self._objective = partial(OBJECTIVES[config.objective], **parameters)
        # Kept, since collecting them walks over a thousand modules.
        self._weights = supernet.weight_parameters()
        self._arch_parameters = supernet.arch_parameters()
        self.reset_optimizers()

    def reset_optimizers(self) -> None:
        """Rebuilds both optimizers, without momentum."""
        config = self._config
        spare_compiler_import()
        self.weight_optimizer = torch.optim.SGD(
            self._weights,
            lr=config.weight_lr,
            momentum=config.weight_momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
        if config.weight_momentum:
            # The fused step takes momenta that are there for all weights or for none.
            for weight in self._weights:
                self.weight_optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        self.arch_optimizer = torch.optim.Adam(
            self._arch_parameters,
            lr=config.arch_lr,
            betas=(config.arch_beta1, config.arch_beta2),
            weight_decay=config.arch_weight_decay,
        )

    def set_weight_lr(self, epoch: int) -> float:
        """Sets, and returns, the learning rate of an epoch (counted from 1): a cosine over all."""
        progress = (epoch - 1) / self._config.num_epochs
        weight_lr = self._config.weight_lr * (1 + math.cos(math.pi * progress)) / 2
        for group in self.weight_optimizer.param_groups:
            group["lr"] = weight_lr
        return weight_lr

    def set_arch_lr(self, epoch: int) -> float:
        """The same for the architecture parameters, by `arch_lr_schedule`."""
        config = self._config
        arch_lr = config.arch_lr
        if config.arch_lr_schedule == "cosine":
            progress = max(epoch - config.num_warmup_epochs - 1, 0) / config.num_joint_epochs
            arch_lr *= (1 + math.cos(math.pi * progress)) / 2
        for group in self.arch_optimizer.param_groups:
            group["lr"] = arch_lr
        return arch_lr

    def weight_step(
        self,
        images_BCHW: Tensor,
        labels_B: Tensor,
        paths: Sequence[Sequence[int]],
        *,
        are_derived: bool = False,
    ) -> list[PathResult]:
        """One step on the sum of the paths' cross-entropies, architecture parameters frozen.

        The stem runs once for all paths, and each path is freed before the next one runs.

        Args:
            images_BCHW: channels last.
            paths: index of a candidate for each layer, one sequence per path.
            are_derived: whether paths are derived networks, whose layers that are not kept are -1.
        """
        forward = self.supernet.forward_derived if are_derived else self.supernet.forward_from_stem
        self._require_gradients(weights=True)
        self.weight_optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            stem_BCHW = self.supernet.stem_features(images_BCHW)
        stem_leaf_BCHW = stem_BCHW.detach().requires_grad_()
        results = []
        for path in paths:
            with self.autocast():
                logits_BK = forward(stem_leaf_BCHW, path)
            loss = F.cross_entropy(logits_BK.float(), labels_B)
            loss.backward()  # type: ignore[no-untyped-call]
            accuracy = (logits_BK.detach().argmax(-1) == labels_B).float().mean()
            results.append(PathResult(loss.detach(), accuracy))
        assert stem_leaf_BCHW.grad is not None
        backward_from(stem_BCHW, stem_leaf_BCHW.grad)
        self._step_clipped()
        return results

    def arch_step(
        self, images_BCHW: Tensor, labels_B: Tensor, temperature: float, generator: torch.Generator
    ) -> Tensor:
        """One step on alpha and beta, weights frozen; returns the loss, latency term included.

        A learned multiplier takes its own step, up the same loss.

        Args:
            images_BCHW: channels last, of the architecture split.
            generator: for the Gumbel noise, on the CPU.
        """
        self._require_gradients(weights=False)
        self.arch_optimizer.zero_grad(set_to_none=True)
        weights_LO = gumbel_softmax(self.supernet.log_alpha(), temperature, generator)
        with self.autocast():
            logits_BK = self.supernet(images_BCHW, weights_LO)
        loss = self._objective(
            F.cross_entropy(logits_BK.float(), labels_B),
            self.supernet.expected_latency_ms(self._table, weights_LO),
        )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._arch_parameters, self._config.grad_clip_norm)
        take_step(self.arch_optimizer)
        if self.latency_multiplier is not None:
            ascend(self.latency_multiplier, self._config.latency_multiplier_lr)
        self.supernet.normalize_arch_parameters()
        return loss.detach()

    def autocast(self) -> torch.autocast:
        """Within it the supernet computes in bfloat16, if the config asks for mixed precision."""
        is_mixed = self._config.mixed_precision
        return torch.autocast(self.supernet.alpha.device.type, torch.bfloat16, enabled=is_mixed)

    def state_dict(self) -> dict[str, Any]:
        """State of both optimizers, and the learned multiplier if there is one."""
        state: dict[str, Any] = {
            "weights": self.weight_optimizer.state_dict(),
            "arch": self.arch_optimizer.state_dict(),
        }
        if self.latency_multiplier is not None:
            state[MULTIPLIER] = self.latency_multiplier.detach()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        self.weight_optimizer.load_state_dict(state["weights"])
        self.arch_optimizer.load_state_dict(state["arch"])
        if self.latency_multiplier is not None:
            self.latency_multiplier.data.copy_(state[MULTIPLIER])

    def _step_clipped(self) -> None:
        """`clip_grad_norm_` and a step of the weights; the fused step divides the gradients itself."""
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        excess = (nn.utils.get_total_norm(gradients) + 1e-6) / self._config.grad_clip_norm
        self.weight_optimizer.grad_scale = excess.clamp(min=1)  # type: ignore[attr-defined]
        take_step(self.weight_optimizer)
        del self.weight_optimizer.grad_scale  # type: ignore[attr-defined]

    def _require_gradients(self, *, weights: bool) -> None:
        for parameter in self._weights:
            parameter.requires_grad_(weights)
        for parameter in self._arch_parameters:
            parameter.requires_grad_(not weights)
