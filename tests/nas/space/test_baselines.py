"""Networks that have a name, and the rule for small images."""

import pytest
import torch
from torch import nn
from torchvision import models

from nas.foundation.errors import UserError
from nas.space.architecture import Architecture
from nas.space.baselines import fit_to_resolution, make_network
from nas.space.derived_network import DerivedNetwork
from nas.space.macro_space import SPACES, get_space
from nas.space.network_names import BASELINE_NAMES, find_architecture
from nas.space.profile import count_macs, count_parameters
from tests.support.tiny import full_depth_architecture


def strides(module):
    return [conv.stride[0] for conv in module.modules() if isinstance(conv, nn.Conv2d)]


def is_residual(block):
    return getattr(block, "use_res_connect", getattr(block, "apply_residual", False))


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_baselines_at_224_are_torchvisions(name):
    network, reference = make_network(name, 1000, 224), models.get_model(name, weights=None)
    assert strides(network) == strides(reference)
    assert count_parameters(network) == count_parameters(reference)
    network.load_state_dict(reference.state_dict())
    images_BCHW = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images_BCHW), reference.eval()(images_BCHW))


def test_efficientnet_b0_has_the_published_size():
    network = make_network("efficientnet_b0", 1000, 224)
    assert count_parameters(network) == 5_288_548
    assert round(count_macs(network, 224) / 1e6, 1) == 385.8


@pytest.mark.parametrize("space_name", list(SPACES))
def test_networks_of_a_space_keep_their_strides_at_its_resolution(space_name):
    space = get_space(space_name)
    network = DerivedNetwork(full_depth_architecture(space), 10)
    before = strides(network)
    fit_to_resolution(network, space.resolution)
    assert strides(network) == before


def test_paper_at_32_pixels_becomes_small32():
    paper = full_depth_architecture(get_space("paper"))
    small = Architecture(space="small32", stages=paper.stages)
    assert strides(make_network(paper, 10, 32)) == strides(make_network(small, 10, 32))


@pytest.mark.parametrize("name", [*BASELINE_NAMES, "tf-nas-a"])
@pytest.mark.parametrize(("resolution", "final"), [(28, 4), (32, 4), (64, 4), (128, 4), (224, 7)])
def test_last_features_have_at_least_4_pixels_a_side(name, resolution, final):
    network = make_network(find_architecture(name) or name, 10, resolution)
    sides = []
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size != (1, 1):
            conv.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, resolution, resolution))
    assert sides[-1] == final


@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_drop_connect_drops_residual_branches_in_training_only(name):
    network = make_network(name, 10, 32, drop_connect=0.9)
    blocks = [block for block in network.modules() if is_residual(block)]
    block = blocks[-1]
    conv = next(module for module in block.modules() if isinstance(module, nn.Conv2d))
    images_BCHW = torch.randn(400, conv.in_channels, 2, 2)
    with torch.no_grad():
        for norm in block.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.eval()
        out_BCHW = block.eval()(images_BCHW)
        assert not (out_BCHW == images_BCHW).all((1, 2, 3)).any()
        block.training = True
        for module in block.children():
            module.training = "Stochastic" in type(module).__name__
        is_kept_B = ~torch.isclose(block(images_BCHW), images_BCHW, atol=1e-6).all(-1).all(-1).all(-1)
    assert 15 <= is_kept_B.sum() <= 70  # 40 expected of 400 at a tenth


def test_unknown_architecture_is_named_with_the_choices():
    with pytest.raises(UserError, match="'resnet': no such file; name one, or one of tf-nas-a, efficientnet"):
        find_architecture("resnet")
