"""Networks to train: those of architectures, and those of torchvision for comparison."""

from torch import Tensor, nn

from nas.foundation.errors import UserError
from nas.space.architecture import Architecture
from nas.space.derived_network import DerivedNetwork
from nas.space.network_cost import num_unstrided
from nas.space.network_names import BASELINE_NAMES

BATCH_NORM_MOMENTUM = 0.1


def make_network(
    network: Architecture | str,
    num_classes: int,
    resolution: int,
    *,
    dropout: float = 0.0,
    drop_connect: float = 0.0,
) -> nn.Module:
    """Builds a derived network or, by its name, one of torchvision's, for a resolution.

    Both are fitted to small resolutions by one rule, see `fit_to_resolution`.

    Args:
        dropout: probability before the classifier.
        drop_connect: probability of the last residual branch; linear in depth before it.

    Raises:
        UserError: torchvision's network is none of `BASELINE_NAMES`.
    """
    if isinstance(network, Architecture):
        module: nn.Module = DerivedNetwork(network, num_classes, dropout=dropout, drop_connect=drop_connect)
    elif network not in BASELINE_NAMES:
        raise UserError(f"network: '{network}'; use one of {', '.join(BASELINE_NAMES)}")
    else:
        module = _make_baseline(network, num_classes, dropout, drop_connect)
    fit_to_resolution(module, resolution)
    return module


def fit_to_resolution(module: nn.Module, resolution: int) -> None:
    """Gives the first strided convolutions stride 1, until the last features have 4 pixels a side.

    It is the rule by which the space `small32` follows from `paper`: there, at 32 pixels, the stem
    and the first stage keep the resolution. Weights, and so parameters, stay the same.
    """
    strided = [conv for conv in module.modules() if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2)]
    for conv in strided[: num_unstrided(len(strided), resolution)]:
        conv.stride = (1, 1)


def _make_baseline(name: str, num_classes: int, dropout: float, drop_connect: float) -> nn.Module:
    # Here and below, since torchvision takes seconds to import and derived networks need none of it.
    from torchvision import models

    module: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, dropout=dropout)
    blocks = [block for block in module.modules() if _has_residual(block)]
    for position, block in enumerate(blocks, start=1):
        _set_drop_connect(block, drop_connect * position / len(blocks))
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            # Some of torchvision's are so slow that a short training never fills their statistics.
            norm.momentum = BATCH_NORM_MOMENTUM
    return module


def _has_residual(block: nn.Module) -> bool:
    return any(getattr(block, name, False) for name in ("use_res_connect", "apply_residual"))


def _set_drop_connect(block: nn.Module, probability: float) -> None:
    from torchvision.models.efficientnet import MBConv
    from torchvision.ops import stochastic_depth

    if isinstance(block, MBConv):
        block.stochastic_depth.p = probability
        return

    # The other networks have none; the hook adds it around the block's sum.
    def drop_branch(block: nn.Module, inputs: tuple[Tensor], out_BCHW: Tensor) -> Tensor:
        if not block.training or probability == 0:
            return out_BCHW
        return inputs[0] + stochastic_depth(out_BCHW - inputs[0], probability, "row")

    block.register_forward_hook(drop_branch)
