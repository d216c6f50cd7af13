"""The cost of a network by arithmetic against the same, counted in the network that is built."""

import numpy as np
import pytest
import torch

from nas.space.architecture import draw_architecture
from nas.space.baselines import make_network
from nas.space.macro_space import SPACES, get_space
from nas.space.network_cost import NetworkCost, cost_of
from nas.space.network_names import find_architecture
from nas.space.profile import count_macs, count_parameters


def counted(architecture, num_classes, resolution):
    with torch.device("meta"):
        network = make_network(architecture, num_classes, resolution)
        return NetworkCost(count_parameters(network), count_macs(network, resolution))


@pytest.mark.parametrize("resolution", [None, 32, 97, 224])
@pytest.mark.parametrize("space_name", list(SPACES))
def test_the_cost_of_any_network_is_what_is_counted_in_it(space_name, resolution):
    space, rng = get_space(space_name), np.random.default_rng(0)
    resolution = resolution or space.resolution
    for num_classes in (2, 1000):
        architecture = draw_architecture(space, rng)
        assert cost_of(architecture, num_classes, resolution) == counted(
            architecture, num_classes, resolution
        )


def test_the_published_network_has_the_cost_that_is_counted_in_it():
    published = find_architecture("tf-nas-a")
    assert (
        cost_of(published, 1000, 224) == counted(published, 1000, 224) == NetworkCost(8_757_527, 456_675_855)
    )
