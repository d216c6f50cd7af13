"""The derived network is the supernet's leading path, with its weights and widths."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nas.config import Depth
from nas.space.derived_network import DerivedNetwork
from nas.space.macro_space import Space
from nas.space.network_names import find_architecture
from nas.space.profile import count_macs, count_parameters
from nas.supernet.supernet import Supernet
from tests.support.tiny import NUM_CLASSES, SKIP, TINY, TINY_AT_8, make_images, make_supernet

DEPTHS = pytest.mark.parametrize("depth", ["sink", "skip"])
Size = tuple[int, int]

SPACES = pytest.mark.parametrize("space", [TINY, TINY_AT_8], ids=lambda space: space.name)


def inherit_weights(supernet: Supernet) -> DerivedNetwork:
    """The derived network as users build it, with the supernet's weights."""
    network = DerivedNetwork(supernet.derive(), NUM_CLASSES)
    kept = [(index, op) for index, op in enumerate(supernet.derived_ops()) if op >= 0]
    with torch.no_grad():
        for name in ("stem", "stem_block", "head"):
            ours, theirs = supernet.get_submodule(name), network.get_submodule(name)
            for target, source in zip(convolutions(theirs), convolutions(ours), strict=True):
                target.load_state_dict(source.state_dict())
        network.classifier.load_state_dict(supernet.classifier.state_dict())
        for block, (index, op) in zip(network.blocks, kept, strict=True):
            candidate = supernet.candidate(index, op)
            width = candidate.width
            expand, depthwise, *squeeze_excite, project = convolutions(block)
            expand.weight.copy_(candidate.expansion[:width, :, None, None])
            depthwise.weight.copy_(candidate.depthwise[:width])
            project.weight.copy_(candidate.projection[:width].t()[:, :, None, None])
            if squeeze_excite:
                reduce_, expand_ = squeeze_excite
                assert reduce_.bias is not None
                assert expand_.bias is not None
                reduce_.weight.copy_(candidate.se_reduce[:width].t()[:, :, None, None])
                reduce_.bias.copy_(candidate.se_reduce_bias)
                expand_.weight.copy_(candidate.se_expand[:width, :, None, None])
                expand_.bias.copy_(candidate.se_expand_bias[:width])
    return network.train()


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (each for each in module.modules() if isinstance(each, nn.Conv2d))


@torch.no_grad()
def forward_derived(supernet: Supernet, images_BCHW: Tensor) -> Tensor:
    """Logits by the supernet's own blocks, of the layers that are kept."""
    features_BCHW = supernet.stem_features(images_BCHW)
    for index, op in enumerate(supernet.derived_ops()):
        if op >= 0:
            features_BCHW = supernet.blocks[index](features_BCHW, op)
    logits_BK: Tensor = supernet.classifier(supernet.head(features_BCHW).mean((2, 3)))
    return logits_BK


@DEPTHS
@SPACES
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_derived_network_with_inherited_weights_gives_the_supernet_s_logits(
    space: Space, depth: Depth, seed: int
) -> None:
    supernet = make_supernet(space, depth, seed=seed)
    network = inherit_weights(supernet)
    images_BCHW = make_images(space, seed=seed)
    ours, theirs = forward_derived(supernet, images_BCHW), network(images_BCHW).detach()
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@DEPTHS
def test_derivation_keeps_the_leading_operators_and_depths(depth: Depth) -> None:
    supernet = Supernet(TINY, NUM_CLASSES, depth)
    with torch.no_grad():
        for layer, op in enumerate([5, 0, 3, 3, 2, 6]):
            supernet.alpha[layer, op] += 1
        if depth == "sink":
            supernet.beta[0, 0] += 1  # nothing of stage 1
            supernet.beta[1, 2] += 1  # two of three layers of stage 2
        else:
            for layer in (0, 1, 3):
                supernet.alpha[layer, SKIP] += 2
    stages = [[choice.op for choice in stage] for stage in supernet.derive().stages]
    last_of_stage_2 = "k5_e6" if depth == "sink" else "k5_e3"
    assert stages == [[], ["k5_e6", last_of_stage_2], ["k5_e3_se"]]


def test_derivation_takes_the_widths_of_the_layers_it_keeps() -> None:
    supernet = make_supernet(TINY, "skip")
    kept = [(layer, op) for layer, op in enumerate(supernet.derived_ops()) if op >= 0]
    widths = [width for _, _, width in supernet.derive().layers]
    assert widths == [supernet.candidate(layer, op).width for layer, op in kept]


def test_one_channel_less_makes_the_derived_network_smaller_by_its_weights() -> None:
    supernet = Supernet(TINY, NUM_CLASSES)
    with torch.no_grad():
        supernet.alpha[2, 2] += 1  # k5_e3 in the first layer of stage 2, from 4 to 6 channels
    before = count_parameters(DerivedNetwork(supernet.derive(), NUM_CLASSES))
    supernet.candidate(2, 2).width -= 1
    after = count_parameters(DerivedNetwork(supernet.derive(), NUM_CLASSES))
    # Expansion, depthwise, projection, and two numbers in each of two batch norms.
    assert before - after == 4 + 25 + 6 + 4


def test_tf_nas_a_has_exactly_the_published_parameters_and_macs() -> None:
    """Also by the arithmetic of the spec: (weights, MACs) of each convolution and linear layer."""
    architecture = find_architecture("tf-nas-a")
    assert architecture is not None
    network = DerivedNetwork(architecture, 1000)
    assert count_parameters(network) == 8_757_527
    assert count_macs(network, 224) == 456_675_855

    def block(in_: int, mid: int, out: int, kernel: int, se: int, pixels: int, out_pixels: int) -> Size:
        expands = in_ * mid if mid != in_ else 0  # the stem block has no expansion
        norms = 2 * (mid + out) + (2 * mid if expands else 0)
        gate = 2 * mid * se
        weights = expands + kernel**2 * mid + mid * out + gate + (mid + se if se else 0) + norms
        return weights, expands * pixels + (kernel**2 * mid + mid * out) * out_pixels + gate

    sizes = [(27 * 32 + 64, 27 * 32 * 112**2), block(32, 32, 16, 3, 8, 112**2, 112**2)]
    for layer, op, mid in architecture.layers:
        pixels, out_pixels = layer.resolution**2, (layer.resolution // layer.stride) ** 2
        se = op.se_channels(layer.in_channels)
        sizes.append(
            block(layer.in_channels, mid, layer.out_channels, op.kernel_size, se, pixels, out_pixels)
        )
    sizes += [(320 * 1280 + 2 * 1280, 320 * 1280 * 49), (1280 * 1000 + 1000, 1280 * 1000)]
    weights, macs = (sum(column) for column in zip(*sizes, strict=True))
    assert (weights, macs) == (8_757_527, 456_675_855)
