"""The search's steps agree with those of the plain reference: losses, gradients, parameters."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas.config import SearchConfig
from nas.space.macro_space import SPACES, get_space
from nas.supernet.compiled.compiled_block import CompiledBlock
from nas.supernet.mixed_block import BlockFunction, mixed_block
from nas.supernet.objectives import OBJECTIVES
from nas.supernet.sampling import SAMPLINGS, gumbel_softmax, sample_first_path, sample_gumbel
from nas.supernet.steps import SearchSteps
from nas.supernet.supernet import Depth, Supernet
from tests.support.reference_supernet import (
    ReferenceStep,
    ReferenceSupernet,
    copy_parameters,
    pair_arch_values,
    pair_weights,
    reference_of,
)
from tests.support.tiny import NUM_CLASSES, make_dense_table

TOLERANCE = 1e-4
KINK_MARGIN = 1e-6
TEMPERATURE = 2.5

DEPTHS: tuple[Depth, ...] = ("sink", "skip")


class Duel:
    """A search and the reference that starts from its parameters, stepped together.

    After each step the reference takes over the search's parameters, but not its optimisers'
    states, so that momentum is compared and rounding does not grow from step to step.
    They are stepped on batches on which no ReLU's input is so near 0 that rounding decides its
    gradient.
    """

    def __init__(self, config: SearchConfig, block: BlockFunction) -> None:
        space = get_space(config.space)
        table = make_dense_table(space)
        self.batch_size = config.batch_size
        self.generator = torch.Generator().manual_seed(3)
        self.supernet = Supernet(space, NUM_CLASSES, config.depth, block=block)
        randomize(self.supernet)
        self.steps = SearchSteps(self.supernet, config, table)
        self.reference = ReferenceStep(reference_of(self.supernet, NUM_CLASSES), config, table)

    def weight_step(self, sampling: str) -> None:
        log_alpha_LO = self.supernet.log_alpha().detach()
        first_L = sample_first_path(log_alpha_LO, self.generator)
        second_L = SAMPLINGS[sampling](log_alpha_LO, first_L, self.generator)
        paths = [path.tolist() for path in (first_L, second_L) if path is not None]
        images_BCHW, labels_B = self.draw_batch(paths)
        results = self.steps.weight_step(to_channels_last(images_BCHW), labels_B, paths)
        loss = self.reference.weight_step(images_BCHW, labels_B, paths)
        assert_close("loss", torch.stack([result.loss for result in results]).sum(), loss)
        self.compare_weights()
        self.compare_arch_parameters()

    def arch_step(self) -> None:
        log_alpha_LO = self.supernet.log_alpha().detach()
        weights_LO = gumbel_softmax(log_alpha_LO, TEMPERATURE, torch.Generator().manual_seed(1))
        noise_LO = sample_gumbel(log_alpha_LO.shape, torch.Generator().manual_seed(1))
        choices = [w[: len(a)] for w, a in zip(weights_LO, self.reference.supernet.alphas, strict=True)]
        images_BCHW, labels_B = self.draw_batch([choices])
        ours = self.steps.arch_step(
            to_channels_last(images_BCHW), labels_B, TEMPERATURE, torch.Generator().manual_seed(1)
        )
        loss = self.reference.arch_step(images_BCHW, labels_B, noise_LO, TEMPERATURE)
        assert_close("loss", ours, loss)
        if self.steps.latency_multiplier is not None:
            multiplier = float(self.steps.latency_multiplier.detach())
            assert multiplier == pytest.approx(self.reference.latency_multiplier, rel=TOLERANCE)
            assert multiplier != 0
        self.compare_arch_gradients()
        self.compare_arch_parameters()
        self.compare_weights()

    def compare_weights(self) -> None:
        pairs = list(pair_weights(self.supernet, self.reference.supernet))
        gradients = [pair.reference.grad for pair in pairs if pair.reference.grad is not None]
        # A tensor whose gradients cancel to next to nothing has no digits to compare.
        floor = 1e-2 * float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        for pair in pairs:
            ours, theirs = pair.ours.grad, pair.reference.grad
            assert (ours is None) == (theirs is None), pair.name
            if ours is not None and theirs is not None:
                assert_close(f"gradient of {pair.name}", pair.convert(ours), theirs, floor)
            assert_close(pair.name, pair.convert(pair.ours), pair.reference)
        copy_parameters(self.supernet, self.reference.supernet)

    def compare_arch_parameters(self) -> None:
        for name, ours, theirs in pair_arch_values(self.supernet, self.reference.supernet):
            assert_close(name, ours, theirs)

    def compare_arch_gradients(self) -> None:
        supernet, reference = self.supernet, self.reference.supernet
        norms = [gradient_of(parameter).norm() for parameter in reference.arch_parameters()]
        floor = 1e-1 * float(torch.stack(norms).norm())
        for layer, alpha in enumerate(reference.alphas):
            ours = gradient_of(supernet.alpha)[layer, : len(alpha)]
            assert_close(f"gradient of alpha {layer}", ours, gradient_of(alpha), floor)
        for stage, beta in enumerate(reference.betas):
            start = reference.first_sink_input(stage)
            ours = gradient_of(supernet.beta)[stage, start : start + len(beta)]
            assert_close(f"gradient of beta {stage}", ours, gradient_of(beta), floor)

    def draw_batch(self, all_choices: Sequence[Sequence[int] | Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        resolution, batch_size = self.supernet.space.resolution, self.batch_size
        labels_B = torch.randint(NUM_CLASSES, (batch_size,), generator=self.generator)
        while True:
            images_BCHW = torch.randn(batch_size, 3, resolution, resolution, generator=self.generator)
            margins = (kink_margin(self.reference.supernet, images_BCHW, choices) for choices in all_choices)
            if all(margin > KINK_MARGIN for margin in margins):
                return images_BCHW, labels_B


@torch.no_grad()
def kink_margin(
    reference: ReferenceSupernet, images_BCHW: Tensor, choices: Sequence[int] | Sequence[Tensor]
) -> float:
    """Smallest magnitude that any ReLU sees."""
    margins: list[float] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: margins.append(float(inputs[0].abs().min())))
        for module in reference.modules()
        if isinstance(module, nn.ReLU)
    ]
    reference(images_BCHW, choices)
    for hook in hooks:
        hook.remove()
    return min(margins)


def randomize(supernet: Supernet) -> None:
    """Random widths within the intervals, and no bias, alpha or beta at its initial value."""
    rng = random.Random(0)
    for layer in range(len(supernet.space.layers)):
        for op in range(8):
            candidate = supernet.candidate(layer, op)
            max_width = len(candidate.depthwise)
            candidate.set_width(rng.randint(max_width // 2, max_width))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name in ("alpha", "beta") or "bias" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    supernet.normalize_arch_parameters()


def assert_close(name: str, ours: Tensor, reference: Tensor, floor: float = 1e-12) -> None:
    """Compares whole tensors, by the norm of their difference relative to the reference's norm."""
    assert ours.shape == reference.shape, name
    difference, scale = (ours - reference).detach().norm(), reference.detach().norm()
    error = float(difference / scale.clamp_min(floor))
    assert error < TOLERANCE, f"{name}: relative error {error:.2e}"


def gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def to_channels_last(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.to(memory_format=torch.channels_last)


@pytest.fixture(params=[CompiledBlock(), mixed_block])
def block(request: pytest.FixtureRequest) -> BlockFunction:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_steps_of_each_sampling_agree_with_the_reference(
    depth: Depth, objective: str, block: BlockFunction
) -> None:
    config = SearchConfig(
        space="tiny" if objective in ("tfnas", "fbnet", "lagrangian") else "tiny_at_8",
        depth=depth,
        objective=objective,
        target_latency_ms=2.4,
        latency_multiplier_lr=10.0,
        weight_lr=0.05,
        batch_size=8,
    )
    duel = Duel(config, block)
    for sampling in SAMPLINGS:
        duel.weight_step(sampling)
        duel.arch_step()


def test_clipped_steps_agree_with_the_reference(block: BlockFunction) -> None:
    config = SearchConfig(
        space="tiny", target_latency_ms=2.4, weight_lr=0.05, batch_size=8, grad_clip_norm=0.01
    )
    duel = Duel(config, block)
    for _ in range(2):
        duel.weight_step("bi_random")
        weights = duel.supernet.weight_parameters()
        norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        # Which is what clipping leaves of it: it was larger.
        assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_paper_agrees_with_the_reference_at_32_pixels(
    block: BlockFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = get_space("paper")
    # Of millions of ReLUs one is always at its kink; the tiny spaces have them in their layers.
    stages = tuple(replace(stage, activation="swish") for stage in paper.stages)
    space = replace(paper, name="paper_at_32", resolution=32, stages=stages)
    monkeypatch.setitem(SPACES._values, space.name, space)
    duel = Duel(SearchConfig(space=space.name, target_latency_ms=20.0, batch_size=16), block)
    duel.weight_step("bi_random")
    duel.arch_step()
