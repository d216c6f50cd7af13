"""The supernet's two steps written in the most direct way: the oracle of tests, the baseline of benchmarks.

NCHW, eager, one module per candidate, unused channels sliced away, each path its own forward, sums
term by term, latencies looked up key by key. It shares no arithmetic with `nas`; it reads
`Space`, the table of operators and the entries of a `LatencyTable`, all of them plain data.

Shapes: B batch, C channels, H W space, L searchable layers, O candidate operators, K classes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.config import SearchConfig
from nas.latency.entry import OpKey
from nas.latency.table import LatencyTable
from nas.space.macro_space import LayerSpec, Space
from nas.space.operators import CandidateOp
from nas.supernet.supernet import Supernet
from tests.support.tiny import OPS

IDENTITY = len(OPS)


def make_batch_norm(num_channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(num_channels, affine=False, track_running_stats=False)


def make_activation(name: str) -> nn.Module:
    return nn.ReLU(inplace=True) if name == "relu" else nn.SiLU(inplace=True)


class ReferenceCandidate(nn.Module):
    """One operator of one layer: its own convolutions at the maximum width, of which `width` channels run."""

    def __init__(self, layer: LayerSpec, op: CandidateOp) -> None:
        super().__init__()
        channels = {3: 4, 6: 8}[op.expansion] * layer.in_channels
        self.width = op.expansion * layer.in_channels
        self.stride = layer.stride
        self.has_residual = layer.stride == 1 and layer.in_channels == layer.out_channels
        self.expand = nn.Conv2d(layer.in_channels, channels, 1, bias=False)
        self.expand_norm = make_batch_norm(channels)
        self.depthwise = nn.Conv2d(channels, channels, op.kernel_size, groups=channels, bias=False)
        self.depthwise_norm = make_batch_norm(channels)
        self.project = nn.Conv2d(channels, layer.out_channels, 1, bias=False)
        self.project_norm = make_batch_norm(layer.out_channels)
        self.activation = make_activation(layer.activation)
        self.has_se = op.has_se
        if op.has_se:
            reduced = {3: 1, 6: 2}[op.expansion] * layer.in_channels
            self.se_reduce = nn.Conv2d(channels, reduced, 1)
            self.se_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        width = self.width
        padding = self.depthwise.kernel_size[0] // 2
        y_BCHW = F.conv2d(x_BCHW, self.expand.weight[:width])
        y_BCHW = self.activation(self.expand_norm(y_BCHW))
        y_BCHW = F.conv2d(
            y_BCHW, self.depthwise.weight[:width], stride=self.stride, padding=padding, groups=width
        )
        y_BCHW = self.activation(self.depthwise_norm(y_BCHW))
        if self.has_se:
            gate_BC11 = F.adaptive_avg_pool2d(y_BCHW, 1)
            gate_BC11 = F.conv2d(gate_BC11, self.se_reduce.weight[:, :width], self.se_reduce.bias)
            gate_BC11 = self.activation(gate_BC11)
            assert self.se_expand.bias is not None
            gate_BC11 = F.conv2d(gate_BC11, self.se_expand.weight[:width], self.se_expand.bias[:width])
            y_BCHW = y_BCHW * torch.sigmoid(gate_BC11)
        y_BCHW = self.project_norm(F.conv2d(y_BCHW, self.project.weight[:, :width]))
        return x_BCHW + y_BCHW if self.has_residual else y_BCHW


class ReferenceStemBlock(nn.Module):
    """MBConv k3 without expansion, with squeeze-and-excitation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.depthwise_norm = make_batch_norm(in_channels)
        self.se_reduce = nn.Conv2d(in_channels, in_channels // 4, 1)
        self.se_expand = nn.Conv2d(in_channels // 4, in_channels, 1)
        self.project = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.project_norm = make_batch_norm(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.has_residual = in_channels == out_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.relu(self.depthwise_norm(self.depthwise(x_BCHW)))
        gate_BC11 = self.se_expand(self.relu(self.se_reduce(F.adaptive_avg_pool2d(y_BCHW, 1))))
        y_BCHW = self.project_norm(self.project(y_BCHW * torch.sigmoid(gate_BC11)))
        return x_BCHW + y_BCHW if self.has_residual else y_BCHW


class ReferenceLayer(nn.Module):
    """All candidates of one layer; in the skip space identity is one of them, where shapes allow."""

    def __init__(self, layer: LayerSpec, *, is_skip_space: bool) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(ReferenceCandidate(layer, op) for op in OPS)
        keeps_shape = layer.stride == 1 and layer.in_channels == layer.out_channels
        if is_skip_space and keeps_shape:
            self.candidates.append(nn.Identity())

    def forward(self, x_BCHW: Tensor, choice: int | Tensor) -> Tensor:
        if isinstance(choice, int):
            out_BCHW: Tensor = self.candidates[choice](x_BCHW)
            return out_BCHW
        terms = (
            weight * candidate(x_BCHW) for weight, candidate in zip(choice, self.candidates, strict=True)
        )
        return reduce(add, terms)


class ReferenceSupernet(nn.Module):
    """The supernet; `alphas` holds one vector per layer, `betas` one per stage (none in the skip space)."""

    def __init__(self, space: Space, num_classes: int, depth: str) -> None:
        super().__init__()
        self.space = space
        self.is_skip_space = depth == "skip"
        self.stem = nn.Conv2d(3, space.stem_channels, 3, space.stem_stride, padding=1, bias=False)
        self.stem_norm = make_batch_norm(space.stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.stem_block = ReferenceStemBlock(space.stem_channels, space.stem_block_channels)
        self.layers = nn.ModuleList(
            ReferenceLayer(layer, is_skip_space=self.is_skip_space) for layer in space.layers
        )
        self.head = nn.Conv2d(space.stages[-1].out_channels, space.head_channels, 1, bias=False)
        self.head_norm = make_batch_norm(space.head_channels)
        self.classifier = nn.Linear(space.head_channels, num_classes)
        self.alphas = nn.ParameterList(
            torch.log_softmax(torch.zeros(len(self.candidates(index))), 0)
            for index in range(len(space.layers))
        )
        self.betas = nn.ParameterList(
            []
            if self.is_skip_space
            else [
                torch.zeros(stage.num_layers + 1 - self.first_sink_input(index))
                for index, stage in enumerate(space.stages)
            ]
        )

    def candidates(self, layer: int) -> nn.ModuleList:
        module = self.layers[layer]
        assert isinstance(module, ReferenceLayer)
        return module.candidates

    def first_sink_input(self, stage: int) -> int:
        """0 where the stage's input joins the sum, else 1."""
        first = next(layer for layer in self.space.layers if layer.stage == stage)
        return 0 if first.stride == 1 and first.in_channels == first.out_channels else 1

    def arch_parameters(self) -> list[nn.Parameter]:
        return [*self.alphas, *self.betas]

    def weight_parameters(self) -> list[nn.Parameter]:
        return [
            parameter
            for name, parameter in self.named_parameters()
            if not name.startswith(("alphas", "betas"))
        ]

    def forward(self, images_BCHW: Tensor, choices: Sequence[int] | Sequence[Tensor]) -> Tensor:
        """Logits of a path (an index per layer) or of the weighted sums (a vector per layer)."""
        x_BCHW = self.stem_block(self.relu(self.stem_norm(self.stem(images_BCHW))))
        for stage in range(len(self.space.stages)):
            outputs = [x_BCHW]
            for index, layer in enumerate(self.space.layers):
                if layer.stage == stage:
                    outputs.append(self.layers[index](outputs[-1], choices[index]))
            x_BCHW = outputs[-1]
            if not self.is_skip_space:
                weights = torch.softmax(self.betas[stage], 0)
                inputs = outputs[self.first_sink_input(stage) :]
                terms = (weight * one for weight, one in zip(weights, inputs, strict=True))
                x_BCHW = reduce(add, terms)
        x_BCHW = F.silu(self.head_norm(self.head(x_BCHW)))
        logits_BK: Tensor = self.classifier(F.adaptive_avg_pool2d(x_BCHW, 1).flatten(1))
        return logits_BK

    def expected_latency_ms(self, lookup: "Lookup", base_ms: float, weights: Sequence[Tensor]) -> Tensor:
        """The spec's triple sum: over stages, over depths, over the layers within, over operators."""
        latency_ms = torch.tensor(base_ms)
        for stage in range(len(self.space.stages)):
            members = [i for i, layer in enumerate(self.space.layers) if layer.stage == stage]
            if self.is_skip_space:
                latency_ms = latency_ms + sum(self._layer_ms(i, lookup, weights[i]) for i in members)
                continue
            start = self.first_sink_input(stage)
            probabilities = torch.softmax(self.betas[stage], 0)
            for depth in range(start, len(members) + 1):
                depth_ms = sum(
                    (self._layer_ms(i, lookup, weights[i]) for i in members[:depth]), torch.zeros(())
                )
                latency_ms = latency_ms + probabilities[depth - start] * depth_ms
        return latency_ms

    def _layer_ms(self, index: int, lookup: "Lookup", weights_O: Tensor) -> Tensor:
        layer = self.space.layers[index]
        layer_ms = torch.zeros(())
        for weight, op, candidate in zip(weights_O, OPS, self.candidates(index), strict=False):
            assert isinstance(candidate, ReferenceCandidate)
            layer_ms = layer_ms + weight * lookup[OpKey.of(layer, op)][candidate.width]
        return layer_ms


Lookup = dict[OpKey, dict[int, float]]


def make_lookup(table: LatencyTable) -> Lookup:
    """The entries of an uncalibrated table by key and width."""
    assert table.calibration is None
    return {entry.key: dict(enumerate(entry.curve_ms.tolist())) for entry in table.entries}


class ReferenceStep:
    """The two optimiser steps of a search."""

    def __init__(self, supernet: ReferenceSupernet, config: SearchConfig, table: LatencyTable) -> None:
        self.supernet = supernet
        self.config = config
        self.base_ms = table.base_ms
        self.lookup = make_lookup(table)
        self.latency_multiplier = 0.0
        self.weight_optimizer = torch.optim.SGD(
            supernet.weight_parameters(),
            lr=config.weight_lr,
            momentum=config.weight_momentum,
            weight_decay=config.weight_decay,
        )
        self.arch_optimizer = torch.optim.Adam(
            supernet.arch_parameters(),
            lr=config.arch_lr,
            betas=(config.arch_beta1, config.arch_beta2),
            weight_decay=config.arch_weight_decay,
        )

    def weight_step(self, images_BCHW: Tensor, labels_B: Tensor, paths: Sequence[Sequence[int]]) -> Tensor:
        """One step on the sum of the paths' cross-entropies, which it returns."""
        self._train_only(self.supernet.weight_parameters())
        losses = [F.cross_entropy(self.supernet(images_BCHW, path), labels_B) for path in paths]
        loss = reduce(add, losses)
        self.weight_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.weight_parameters(), self.config.grad_clip_norm)
        self.weight_optimizer.step()
        return loss.detach()

    def arch_step(
        self, images_BCHW: Tensor, labels_B: Tensor, gumbel_noise_LO: Tensor, temperature: float
    ) -> Tensor:
        """One step on alphas and betas; returns the loss, latency term included."""
        self._train_only(self.supernet.arch_parameters())
        weights = [
            torch.softmax((alpha + noise_O[: len(alpha)]) / temperature, 0)
            for alpha, noise_O in zip(self.supernet.alphas, gumbel_noise_LO, strict=True)
        ]
        cross_entropy = F.cross_entropy(self.supernet(images_BCHW, weights), labels_B)
        latency_ms = self.supernet.expected_latency_ms(self.lookup, self.base_ms, weights)
        loss = self._objective(cross_entropy, latency_ms)
        self.arch_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.supernet.arch_parameters(), self.config.grad_clip_norm)
        self.arch_optimizer.step()
        for parameter in self.supernet.arch_parameters():
            parameter.data = torch.log_softmax(parameter.data, 0)
        if self.config.objective == "lagrangian":
            excess = float(latency_ms.detach()) / self.config.target_latency_ms - 1
            self.latency_multiplier += self.config.latency_multiplier_lr * excess
        return loss.detach()

    def _objective(self, cross_entropy: Tensor, latency_ms: Tensor) -> Tensor:
        config = self.config
        target_ms = config.target_latency_ms
        a = config.objective_scale
        b = config.objective_exponent or {"fbnet": 0.6, "proxyless_mul": 0.3}.get(config.objective, math.nan)
        if config.objective == "tfnas":
            return cross_entropy + config.latency_weight * abs(latency_ms / target_ms - 1)
        if config.objective == "fbnet":
            return cross_entropy * a * latency_ms.log().pow(b)
        if config.objective == "proxyless_add":
            return cross_entropy + config.latency_weight * (latency_ms - target_ms) / target_ms
        if config.objective == "lagrangian":
            return cross_entropy + self.latency_multiplier * (latency_ms / target_ms - 1)
        return a * cross_entropy * (latency_ms.log() / math.log(target_ms)).pow(b)

    def _train_only(self, parameters: list[nn.Parameter]) -> None:
        for parameter in self.supernet.parameters():
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)


class Pair(NamedTuple):
    """A parameter of ours and the reference's; `convert` brings a tensor of ours to the other's layout."""

    name: str
    ours: Tensor
    reference: Tensor
    convert: Callable[[Tensor], Tensor]


def pair_weights(supernet: Supernet, reference: ReferenceSupernet) -> Iterator[Pair]:
    """All weights of both: the one place that knows how a `Supernet` stores them."""
    for name in ("stem", "stem_block", "head", "classifier"):
        ours = list(supernet.get_submodule(name).parameters())
        theirs = list(reference.get_submodule(name).parameters())
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert one.shape == other.shape
            yield Pair(f"{name}.{index}", one, other, lambda tensor: tensor)
    for layer in range(len(supernet.space.layers)):
        for op in range(len(OPS)):
            for pair in _pair_candidate(supernet, reference, layer, op):
                yield pair._replace(name=f"layer {layer}, {OPS[op].name}: {pair.name}")


def _pair_candidate(supernet: Supernet, reference: ReferenceSupernet, layer: int, op: int) -> Iterator[Pair]:
    ours = supernet.candidate(layer, op)
    theirs = reference.candidates(layer)[op]
    assert isinstance(theirs, ReferenceCandidate)
    yield Pair("expansion", ours.expansion, theirs.expand.weight, lambda tensor: tensor[:, :, None, None])
    yield Pair("depthwise", ours.depthwise, theirs.depthwise.weight, lambda tensor: tensor)
    yield Pair(
        "projection", ours.projection, theirs.project.weight, lambda tensor: tensor.t()[:, :, None, None]
    )
    if theirs.has_se:
        assert theirs.se_reduce.bias is not None
        assert theirs.se_expand.bias is not None
        yield Pair(
            "se_reduce", ours.se_reduce, theirs.se_reduce.weight, lambda tensor: tensor.t()[:, :, None, None]
        )
        yield Pair("se_reduce_bias", ours.se_reduce_bias, theirs.se_reduce.bias, lambda tensor: tensor)
        yield Pair(
            "se_expand", ours.se_expand, theirs.se_expand.weight, lambda tensor: tensor[:, :, None, None]
        )
        yield Pair("se_expand_bias", ours.se_expand_bias, theirs.se_expand.bias, lambda tensor: tensor)


def pair_arch_values(
    supernet: Supernet, reference: ReferenceSupernet
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Log-probabilities of each layer's candidates and of each stage's depths, ours and the reference's."""
    for layer, (log_alpha_O, alpha) in enumerate(zip(supernet.log_alpha(), reference.alphas, strict=True)):
        yield f"alpha of layer {layer}", log_alpha_O[: len(alpha)], torch.log_softmax(alpha, 0)
    for stage, beta in enumerate(reference.betas):
        start = reference.first_sink_input(stage)
        log_beta = supernet.log_beta()[stage, start : start + len(beta)]
        yield f"beta of stage {stage}", log_beta, torch.log_softmax(beta, 0)


def reference_of(supernet: Supernet, num_classes: int) -> ReferenceSupernet:
    """The reference with a supernet's widths and parameters."""
    reference = ReferenceSupernet(supernet.space, num_classes, supernet.depth)
    for layer, widths in enumerate(supernet.widths()):
        for width, candidate in zip(widths, reference.candidates(layer), strict=False):
            if isinstance(candidate, ReferenceCandidate):
                candidate.width = width
    copy_parameters(supernet, reference)
    return reference


@torch.no_grad()
def copy_parameters(supernet: Supernet, reference: ReferenceSupernet) -> None:
    """Gives the reference a supernet's weights, alphas and betas."""
    for pair in pair_weights(supernet, reference):
        pair.reference.copy_(pair.convert(pair.ours))
    for layer, alpha in enumerate(reference.alphas):
        alpha.copy_(supernet.alpha[layer, : len(alpha)])
    for stage, beta in enumerate(reference.betas):
        start = reference.first_sink_input(stage)
        beta.copy_(supernet.beta[stage, start : start + len(beta)])
