"""The plain block keeps the layout that convolutions are fastest in."""

import pytest
import torch
from torch import Tensor, nn

from nas.supernet.supernet import MixedLayer
from tests.support.tiny import TINY, make_images, make_supernet


@pytest.mark.parametrize("depth", ["sink", "skip"])
def test_features_of_an_architecture_step_are_channels_last(depth: str) -> None:
    """Inputs of blocks are outputs of other blocks, or of sinks."""
    supernet = make_supernet(TINY, depth)  # type: ignore[arg-type]
    num_seen = 0

    def check(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal num_seen
        for features in (inputs[0], output):
            num_seen += 1
            assert features.is_contiguous(memory_format=torch.channels_last)
            assert not features.is_contiguous()

    for module in supernet.modules():
        if isinstance(module, MixedLayer) or module is supernet.head:
            module.register_forward_hook(check)
    supernet(make_images(TINY), supernet.log_alpha().exp())
    assert num_seen == 2 * (len(TINY.layers) + 1)
