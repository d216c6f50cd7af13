"""Initial weights: PyTorch's own, with biases of zero, and what follows from them at the start of a search.

The reference supernet is made of PyTorch's layers, which initialize themselves.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn
from torch.nn import functional as F

from nas.space.derived_network import DerivedNetwork
from nas.space.macro_space import Space, get_space
from nas.space.network_names import find_architecture
from nas.supernet import mixed_block
from nas.supernet.supernet import Supernet
from tests.support.reference_supernet import Pair, ReferenceSupernet, pair_weights

NUM_CLASSES = 100
SPACE = get_space("paper").at_resolution(128)
BATCH_SIZE = 16
NUM_DRAWS = 8
WEIGHT_LR = 0.025
GRAD_CLIP_NORM = 5.0

STEM_BLOCK_KINDS = {
    "stem_block.0": "depthwise",
    "stem_block.1": "se_reduce",
    "stem_block.2": "se_reduce_bias",
    "stem_block.3": "se_expand",
    "stem_block.4": "se_expand_bias",
    "stem_block.5": "projection",
}
KINDS = [
    *("stem.0", "expansion", "depthwise", "projection", "se_reduce", "se_expand"),
    *("head.0", "classifier.0"),
]


def kind_of(pair: Pair) -> str:
    name = pair.name.split(": ")[-1]
    return STEM_BLOCK_KINDS.get(name, name)


@cache
def pairs(space: Space = SPACE, seed: int = 0) -> tuple[Supernet, ReferenceSupernet, tuple[Pair, ...]]:
    """A supernet, a reference with other weights of the same distribution, and their tensors in pairs."""
    supernet = Supernet(space, NUM_CLASSES, "sink", seed=seed)
    torch.manual_seed(1000 + seed)
    reference = ReferenceSupernet(space, NUM_CLASSES, "sink")
    for module in reference.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return supernet, reference, tuple(pair_weights(supernet, reference))


def test_every_weight_is_drawn_as_pytorch_draws_it_and_every_bias_is_0() -> None:
    tested = set()
    for pair in pairs()[2]:
        ours, reference = pair.ours.detach(), pair.reference.detach()
        if not reference.any():
            assert not ours.any(), pair.name
            continue
        bound = 1 / math.sqrt(reference[0].numel())
        assert ours.abs().max() <= bound
        assert ours.std() == pytest.approx(bound / math.sqrt(3), rel=4 / math.sqrt(ours.numel())), pair.name
        assert ours.mean() == pytest.approx(0, abs=4 * bound / math.sqrt(3 * ours.numel())), pair.name
        # So unlikely that none of 600 tensors falls below it by chance.
        sample = ours.flatten()[:: max(ours.numel() // 10_000, 1)]
        assert kstest(sample / bound, "uniform", args=(-1, 2)).pvalue > 1e-6, pair.name
        tested.add(kind_of(pair))
    assert tested == set(KINDS)


def test_initial_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = Supernet(SPACE, NUM_CLASSES, seed=3)
    torch.manual_seed(2)
    for one, other in zip(first.parameters(), Supernet(SPACE, NUM_CLASSES, seed=3).parameters(), strict=True):
        assert one.equal(other)
    assert not first.head[0].weight.equal(Supernet(SPACE, NUM_CLASSES, seed=4).head[0].weight)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(BATCH_SIZE, 3, SPACE.resolution, SPACE.resolution, generator=generator)
    return images_BCHW, torch.randint(NUM_CLASSES, (BATCH_SIZE,), generator=generator)


def effective_steps(
    network: Supernet | ReferenceSupernet,
    weights: dict[str, Tensor],
    batch: tuple[Tensor, Tensor],
    path: list[int],
) -> Iterator[tuple[str, float]]:
    """The first step of each tensor on a path, relative to the tensor: learning rate * gradient / weight."""
    images_BCHW, labels_B = batch
    F.cross_entropy(network(images_BCHW, path), labels_B).backward()  # type: ignore[no-untyped-call]
    used = [parameter for parameter in network.parameters() if parameter.grad is not None]
    nn.utils.clip_grad_norm_(used, GRAD_CLIP_NORM)
    for name, weight in weights.items():
        if weight.grad is not None and weight.any():
            yield name, WEIGHT_LR * float(weight.grad.norm() / weight.detach().norm())


def test_first_steps_of_paper_have_the_reference_s_size_for_every_kind_of_weight(
    batch: tuple[Tensor, Tensor],
) -> None:
    rng = np.random.default_rng(0)
    log_ratios: dict[str, list[float]] = defaultdict(list)
    for seed in range(NUM_DRAWS):
        supernet, reference, tensors = pairs(seed=seed)
        path = rng.integers(8, size=len(SPACE.layers)).tolist()
        ours = dict(effective_steps(supernet, {pair.name: pair.ours for pair in tensors}, batch, path))
        theirs = dict(
            effective_steps(reference, {pair.name: pair.reference for pair in tensors}, batch, path)
        )
        assert ours.keys() == theirs.keys()
        kinds = {pair.name: kind_of(pair) for pair in tensors}
        for name in ours:
            log_ratios[kinds[name]].append(math.log(ours[name] / theirs[name]))
    ratios = {kind: math.exp(np.mean(values)) for kind, values in log_ratios.items()}
    assert set(ratios) == set(KINDS)
    assert ratios == pytest.approx(dict.fromkeys(KINDS, 1.0), rel=0.1)


def test_gates_of_squeeze_and_excitation_spread_as_the_reference_s(
    batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    gates: list[Tensor] = []

    def record(logits: Tensor, sigmoid=torch.sigmoid) -> Tensor:  # type: ignore[no-untyped-def]
        gates.append(sigmoid(logits).flatten())
        return gates[-1].view(logits.shape)

    # The stem block and the reference call it as `torch.sigmoid`, the mixed block by its own name.
    monkeypatch.setattr(torch, "sigmoid", record)
    monkeypatch.setattr(mixed_block, "sigmoid", record)
    supernet, reference, _ = pairs()
    quantiles = []
    for network, choices in (
        (supernet, torch.full((len(SPACE.layers), 8), 1 / 8)),
        (reference, [torch.full((8,), 1 / 8)] * len(SPACE.layers)),
    ):
        gates.clear()
        with torch.no_grad():
            network(batch[0], choices)
        assert len(gates) == 1 + 4 * len(SPACE.layers)
        all_gates = torch.cat(gates).numpy()
        quantiles.append(np.quantile(all_gates, [0, 0.001, 0.5, 0.999, 1]))
    ours, theirs = quantiles
    assert ours == pytest.approx(theirs, abs=0.02)
    assert 0.4 < ours[0] < 0.45
    assert 0.55 < ours[-1] < 0.6


def test_derived_networks_start_with_pytorch_s_weights_and_biases_of_0() -> None:
    architecture = find_architecture("tf-nas-a")
    assert architecture is not None
    torch.manual_seed(0)
    network = DerivedNetwork(architecture, NUM_CLASSES)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.detach()
            bound = 1 / math.sqrt(weight[0].numel())
            assert kstest(weight.flatten() / bound, "uniform", args=(-1, 2)).pvalue > 1e-6
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
