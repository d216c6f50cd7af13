"""The supernet: its size, the sink, gradients, expected latency."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.config import Depth
from nas.latency.table import Calibration
from nas.space.macro_space import Space, get_space
from nas.supernet.supernet import Supernet
from tests.support.reference_supernet import make_lookup, reference_of
from tests.support.tiny import (
    NUM_CLASSES,
    SKIP,
    TINY,
    TINY_AT_8,
    make_dense_table,
    make_images,
    make_supernet,
)

DEPTHS = pytest.mark.parametrize("depth", ["sink", "skip"])
SPACES = pytest.mark.parametrize("space", [TINY, TINY_AT_8], ids=lambda space: space.name)


def soft_weights(supernet: Supernet) -> Tensor:
    return supernet.log_alpha().exp()


# Size


def test_paper_at_maximum_width_has_the_number_of_weights_that_the_spec_implies() -> None:
    """Counted by hand from the spec, for 100 classes.

    A candidate with input I, output O, kernel k and at most M mid channels has M * (I + O + k^2)
    weights in its three convolutions, M being 4 I for e3 and 8 I for e6. Over k 3 and 5 that is
    M * (2 I + 2 O + 34), over e3 and e6 12 I * (2 I + 2 O + 34), twice (with and without SE):
    48 I^2 + 48 I O + 816 I. SE with R reduced channels has 2 M R weights and M + R biases; R is I
    for e3 (8 I^2 + 5 I) and 2 I for e6 (32 I^2 + 10 I), each for two kernels: 80 I^2 + 30 I.
    Together a layer has 128 I^2 + 48 I O + 846 I:

        I     O    a layer  layers      in all
       16    24     64,736       1      64,736
       24    24    121,680       1     121,680
       24    40    140,112       1     140,112
       40    40    315,440       2     630,880
       40    80    392,240       1     392,240
       80    80  1,194,080       3   3,582,240
       80   112  1,316,960       1   1,316,960
      112   112  2,302,496       3   6,907,488
      112   192  2,732,576       1   2,732,576
      192   192  6,650,496       3  19,951,488
      192   320  7,830,144       1   7,830,144
                                    43,670,544
    Stem convolution: 3 * 32 * 9 = 864. Stem block: depthwise 32 * 9 = 288, SE with 8 reduced
    channels 2 * 32 * 8 + 8 + 32 = 552, projection 32 * 16 = 512. Head: 320 * 1280 = 409,600.
    Classifier: 1280 * 100 + 100 = 128,100. Batch norm has none.
    """
    supernet = Supernet(get_space("paper"), 100)
    num_weights = sum(weight.numel() for weight in supernet.weight_parameters())
    assert num_weights == 43_670_544 + 864 + 288 + 552 + 512 + 409_600 + 128_100 == 44_210_460


def test_the_skip_space_has_the_same_weights() -> None:
    sink, skip = (Supernet(TINY, NUM_CLASSES, depth) for depth in ("sink", "skip"))
    assert [p.shape for p in sink.weight_parameters()] == [p.shape for p in skip.weight_parameters()]


@DEPTHS
def test_parameters_are_weights_or_architecture_parameters_and_never_both(depth: Depth) -> None:
    supernet = Supernet(TINY, NUM_CLASSES, depth)
    ids = [id(p) for p in (*supernet.weight_parameters(), *supernet.arch_parameters())]
    assert len(ids) == len(set(ids))
    named = {id(p) for name, p in supernet.named_parameters() if p.numel()}
    assert {id(p) for p in supernet.parameters() if p.numel()} == named <= set(ids)


# Choices


def test_alpha_and_beta_begin_uniform() -> None:
    supernet = Supernet(get_space("paper"), NUM_CLASSES)
    assert torch.allclose(supernet.log_alpha().exp(), torch.full((18, 8), 1 / 8))
    for stage, spec in enumerate(supernet.space.stages):
        probabilities_D = supernet.log_beta()[stage].exp()
        expected = [0.0] + [1 / spec.num_layers] * spec.num_layers
        assert torch.allclose(probabilities_D[: len(expected)], torch.tensor(expected))
        assert (probabilities_D[len(expected) :] == 0).all()


def test_identity_is_a_candidate_of_the_skip_space_where_shapes_allow_and_nowhere_else() -> None:
    probabilities_LO = Supernet(get_space("paper"), NUM_CLASSES, "skip").log_alpha().exp()
    for layer, probabilities_O in zip(get_space("paper").layers, probabilities_LO, strict=True):
        num_candidates = 9 if layer.index > 0 else 8
        assert torch.allclose(probabilities_O[:num_candidates], torch.tensor(1 / num_candidates))
        assert probabilities_O[num_candidates:].sum().item() == 0


@DEPTHS
def test_normalising_changes_no_probability(depth: Depth) -> None:
    supernet = Supernet(TINY, NUM_CLASSES, depth)
    with torch.no_grad():
        for parameter in supernet.arch_parameters():
            parameter.copy_(torch.randn_like(parameter) * 3)
    before = supernet.log_alpha().exp(), supernet.log_beta().exp()
    supernet.normalize_arch_parameters()
    torch.testing.assert_close((supernet.log_alpha().exp(), supernet.log_beta().exp()), before)
    for parameter, mask in (
        (supernet.alpha, supernet.has_candidate_LO),
        (supernet.beta, supernet.has_depth_SD),
    ):
        sums = (parameter.exp() * mask).sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))


# The sink


@pytest.mark.parametrize("is_soft", [False, True])
def test_a_stage_s_output_is_the_beta_weighted_sum_of_its_layers_outputs(is_soft: bool) -> None:
    supernet = make_supernet(TINY, "sink")
    choices = soft_weights(supernet) if is_soft else [1, 2, 3, 4, 5, 6]
    images_BCHW = make_images(TINY)
    x = supernet.stem_features(images_BCHW)
    first, second, third = torch.softmax(supernet.beta.masked_fill(~supernet.has_depth_SD, -torch.inf), -1)
    # Stage 1: two layers that keep the shape, so its input joins the sum.
    x1 = supernet.blocks[0](x, choices[0])
    x2 = supernet.blocks[1](x1, choices[1])
    x = first[0] * x + first[1] * x1 + first[2] * x2
    # Stage 2: three layers, the first of which has stride 2.
    x1 = supernet.blocks[2](x, choices[2])
    x2 = supernet.blocks[3](x1, choices[3])
    x3 = supernet.blocks[4](x2, choices[4])
    x = second[1] * x1 + second[2] * x2 + second[3] * x3
    # Stage 3: one layer, always kept.
    assert third[1].item() == 1
    x = supernet.blocks[5](x, choices[5])
    logits_BK = supernet.classifier(supernet.head(x).mean((2, 3)))
    torch.testing.assert_close(supernet(images_BCHW, choices), logits_BK)


def test_identity_alone_leaves_the_features_as_they_are() -> None:
    supernet = make_supernet(TINY, "skip")
    features_BCHW = supernet.stem_features(make_images(TINY))
    assert torch.equal(supernet.blocks[0](features_BCHW, SKIP), features_BCHW)
    only_identity_O = F.one_hot(torch.tensor(SKIP), SKIP + 1).float()
    torch.testing.assert_close(supernet.blocks[0](features_BCHW, only_identity_O), features_BCHW)


@DEPTHS
@SPACES
def test_weights_that_choose_one_candidate_give_its_path(space: Space, depth: Depth) -> None:
    supernet = make_supernet(space, depth)
    path = [layer % 8 for layer in range(len(space.layers))]
    one_hot_LO = F.one_hot(torch.tensor(path), supernet.alpha.shape[1]).float()
    images_BCHW = make_images(space)
    torch.testing.assert_close(
        supernet(images_BCHW, one_hot_LO), supernet(images_BCHW, path), rtol=1e-3, atol=1e-4
    )


# Gradients


@DEPTHS
@SPACES
def test_every_weight_alpha_and_beta_receives_a_gradient(space: Space, depth: Depth) -> None:
    # With a seed where the stem block's reduced channels, two in all, are not both below ReLU's kink.
    supernet = make_supernet(space, depth, seed=1)
    logits_BK = supernet(make_images(space), soft_weights(supernet))
    F.cross_entropy(logits_BK, torch.arange(8) % NUM_CLASSES).backward()
    for name, parameter in supernet.named_parameters():
        if parameter.numel() and name not in ("alpha", "beta"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert supernet.alpha.grad is not None
    assert ((supernet.alpha.grad != 0) == supernet.has_candidate_LO).all()
    if depth == "sink":
        assert supernet.beta.grad is not None
        # Where a stage has one depth only, there is nothing to choose.
        has_choice_S1 = supernet.has_depth_SD.sum(-1, keepdim=True) > 1
        assert (supernet.beta.grad[~supernet.has_depth_SD] == 0).all()
        assert (supernet.beta.grad[supernet.has_depth_SD & has_choice_S1] != 0).all()


@DEPTHS
def test_a_path_gives_gradients_to_its_own_active_channels_and_to_nothing_else(depth: Depth) -> None:
    supernet = make_supernet(TINY, depth)
    path = [layer % 8 for layer in range(len(TINY.layers))]
    F.cross_entropy(supernet(make_images(TINY), path), torch.arange(8) % NUM_CLASSES).backward()
    for layer in range(len(TINY.layers)):
        for op in range(SKIP):
            candidate = supernet.candidate(layer, op)
            for parameter in candidate.channel_parameters():
                if op != path[layer]:
                    assert parameter.grad is None
                else:
                    assert parameter.grad is not None
                    assert parameter.grad[: candidate.width].any()
                    assert not parameter.grad[candidate.width :].any()


# Expected latency


@DEPTHS
@SPACES
def test_expected_latency_is_the_spec_s_triple_sum(space: Space, depth: Depth) -> None:
    table = make_dense_table(space)
    for seed in range(3):
        supernet = make_supernet(space, depth, seed=seed)
        weights_LO = torch.softmax(torch.randn(supernet.alpha.shape), -1) * supernet.has_candidate_LO
        weights_LO = weights_LO / weights_LO.sum(-1, keepdim=True)
        reference = reference_of(supernet, NUM_CLASSES)
        weights = [row[: len(alpha)] for row, alpha in zip(weights_LO, reference.alphas, strict=True)]
        by_loops_ms = reference.expected_latency_ms(make_lookup(table), table.base_ms, weights)
        ours_ms = supernet.expected_latency_ms(table, weights_LO)
        assert ours_ms.item() == pytest.approx(by_loops_ms.item(), rel=1e-6)


@DEPTHS
def test_expected_latency_of_a_certain_network_is_that_network_s(depth: Depth) -> None:
    table = make_dense_table(TINY)
    supernet = make_supernet(TINY, depth)
    with torch.no_grad():
        for parameter in supernet.arch_parameters():
            parameter.mul_(1000)
    latency_ms = supernet.expected_latency_ms(table).item()
    assert latency_ms == pytest.approx(table.latency_ms(supernet.derive()), rel=1e-6)


def test_expected_latency_follows_widths_tables_and_calibrations() -> None:
    supernet, table = make_supernet(TINY, "sink"), make_dense_table(TINY)
    before_ms = supernet.expected_latency_ms(table).item()
    calibration = Calibration(
        slope=1.5,
        intercept_ms=0.25,
        num_networks=3,
        mape_percent=1.0,
        half_width_percent=1.0,
        measured_on="2000-01-01",
    )
    calibrated_ms = supernet.expected_latency_ms(table.with_calibration(calibration)).item()
    assert calibrated_ms == pytest.approx(1.5 * before_ms + 0.25, rel=1e-6)
    supernet.candidate(0, 0).width += 1
    assert supernet.expected_latency_ms(table).item() != before_ms
    supernet.candidate(0, 0).width -= 1
    assert supernet.expected_latency_ms(table).item() == before_ms


@DEPTHS
@SPACES
def test_the_gradient_of_expected_latency_agrees_with_finite_differences(space: Space, depth: Depth) -> None:
    supernet, table = make_supernet(space, depth).double(), make_dense_table(space)
    supernet.expected_latency_ms(table).backward()
    for parameter in supernet.arch_parameters():
        assert parameter.grad is not None
        for index in np.ndindex(*parameter.shape):
            difference = _central_difference(supernet, table, parameter, index)
            assert parameter.grad[index].item() == pytest.approx(difference, rel=1e-5, abs=1e-8)


@torch.no_grad()
def _central_difference(
    supernet: Supernet, table: object, parameter: Tensor, index: tuple[int, ...]
) -> float:
    step, values = 1e-5, []
    for sign in (1, -1):
        parameter[index] += sign * step
        values.append(supernet.expected_latency_ms(table).item())  # type: ignore[arg-type]
        parameter[index] -= sign * step
    return (values[0] - values[1]) / (2 * step)
