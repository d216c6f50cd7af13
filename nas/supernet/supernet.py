"""The supernet: every candidate operator of every layer, and the parameters that choose.

Shapes: B batch, C channels, H W space, L searchable layers, O candidates (the space's operators and,
where identity is a candidate, identity last), S stages, D depths of a stage (index d: d layers kept).

Source: TF-NAS, search space; operator, depth and width levels.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nas.latency.table import LatencyTable
from nas.space.architecture import Architecture, LayerChoice
from nas.space.blocks import conv_bn, mean_over_pixels
from nas.space.derived_network import make_stem_block
from nas.space.initial_weights import draw_all_weights
from nas.space.macro_space import LayerSpec, Space
from nas.space.operators import CandidateOp
from nas.supernet.candidate import Candidate
from nas.supernet.expected_latency import ExpectedLatency
from nas.supernet.mixed_block import BlockFunction, MBConvShape, mixed_block

Depth = Literal["sink", "skip"]


class MixedLayer(nn.Module):
    """All candidate operators of one layer; runs one of them or a weighted sum of all.

    Attributes:
        block: how candidates are computed.
    """

    def __init__(self, layer: LayerSpec, ops: Sequence[CandidateOp], block: BlockFunction) -> None:
        super().__init__()
        self.block = block
        self.block_shape = MBConvShape(layer.stride, layer.activation, layer.keeps_shape)
        self.candidates = nn.ModuleList(Candidate(layer, op) for op in ops)

    def forward(self, features_BCHW: Tensor, choice: int | Tensor) -> Tensor:
        """Runs the candidate of that index, or sums all with weights_O that sum to 1."""
        num_ops = len(self.candidates)
        if isinstance(choice, Tensor):
            return self._mix(features_BCHW, range(num_ops), choice[:num_ops])
        is_identity = choice == num_ops
        return features_BCHW if is_identity else self._mix(features_BCHW, [choice], None)

    def _mix(self, features_BCHW: Tensor, indices: Iterable[int], mix_weights_O: Tensor | None) -> Tensor:
        candidates = [self.candidate(index) for index in indices]
        return self.block(
            features_BCHW,
            [candidate.weights() for candidate in candidates],
            [candidate.width for candidate in candidates],
            mix_weights_O,
            self.block_shape,
        )

    def candidate(self, index: int) -> Candidate:
        """The candidate operator of that index."""
        candidate = self.candidates[index]
        assert isinstance(candidate, Candidate)
        return candidate


class Supernet(nn.Module):
    """The supernet of a space.

    Args:
        space: macro space.
        num_classes: outputs of the classifier.
        depth: `sink`, a learned sum over each stage's layers; `skip`, identity as a further candidate.
        seed: seeds the initial weights.
        block: how mixed blocks are computed: in plain torch, or by another implementation.

    Attributes:
        has_identity: whether identity is a candidate where a layer keeps its shape.
        alpha: raw operator parameters, one row per layer; read `log_alpha()`.
        beta: raw depth parameters, one row per stage; read `log_beta()`. Empty in the skip space.
        kept_ops: index of each layer's operator in the derived network, -1 where it is not kept; None, as
            published: it is the most probable network.
    """

    has_candidate_LO: Tensor
    has_depth_SD: Tensor

    def __init__(
        self,
        space: Space,
        num_classes: int,
        depth: Depth = "sink",
        *,
        seed: int = 0,
        block: BlockFunction = mixed_block,
    ) -> None:
        super().__init__()
        self.space = space
        self.depth: Depth = depth
        self.has_identity = depth == "skip" or space.has_identity
        self.stem = conv_bn(
            3, space.stem_channels, 3, stride=space.stem_stride, activation="relu", affine=False
        )
        self.stem_block = make_stem_block(space, affine=False)
        self.blocks = nn.ModuleList(MixedLayer(layer, space.ops, block) for layer in space.layers)
        last_channels = space.stages[-1].out_channels
        self.head = conv_bn(
            last_channels, space.head_channels, 1, activation=space.head_activation, affine=False
        )
        self.classifier = nn.Linear(space.head_channels, num_classes)
        has_candidate_LO = _candidates(space, has_identity=self.has_identity)
        has_depth_SD = _depths(space) if depth == "sink" else torch.ones(0, 0, dtype=torch.bool)
        self.register_buffer("has_candidate_LO", has_candidate_LO)
        self.register_buffer("has_depth_SD", has_depth_SD)
        self.alpha = nn.Parameter(torch.zeros(has_candidate_LO.shape))
        self.beta = nn.Parameter(torch.zeros(has_depth_SD.shape))
        self.kept_ops: list[int] | None = None
        self._expected_latency = ExpectedLatency(space)
        self._draw_weights(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.alpha.copy_(self.log_alpha().masked_fill(~has_candidate_LO, 0))

    def _draw_weights(self, generator: torch.Generator) -> None:
        draw_all_weights(self, generator)
        for layer in self.blocks:
            assert isinstance(layer, MixedLayer)
            for index in range(len(layer.candidates)):
                layer.candidate(index).draw_weights(generator)

    # Parameters

    def arch_parameters(self) -> list[nn.Parameter]:
        """Alpha and, in the sink space, beta."""
        return [self.alpha, self.beta] if self.depth == "sink" else [self.alpha]

    def weight_parameters(self) -> list[nn.Parameter]:
        """All that is not alpha or beta, at the maximum width."""
        return [parameter for name, parameter in self.named_parameters() if name not in ("alpha", "beta")]

    def log_alpha(self) -> Tensor:
        """Log-probabilities of the candidates, (L, O); -inf where a layer lacks the candidate."""
        return _masked_log_softmax(self.alpha, self.has_candidate_LO)

    def log_beta(self) -> Tensor:
        """Log-probabilities of the stages' depths, (S, D); -inf where impossible."""
        return _masked_log_softmax(self.beta, self.has_depth_SD)

    @torch.no_grad()
    def normalize_arch_parameters(self) -> None:
        """Replaces alpha and beta by their log-softmax, as after each architecture step."""
        for parameter, log_probabilities in ((self.alpha, self.log_alpha()), (self.beta, self.log_beta())):
            parameter.copy_(log_probabilities.masked_fill(log_probabilities.isinf(), 0))

    # Forward

    def set_blocks(self, make_block: Callable[[], BlockFunction]) -> None:
        """Chooses how mixed blocks are computed from now on; called once for each layer."""
        for layer in self.blocks:
            assert isinstance(layer, MixedLayer)
            layer.block = make_block()

    def stem_features(self, images_BCHW: Tensor) -> Tensor:
        """Features before the first searchable layer; they do not depend on the choices."""
        features_BCHW: Tensor = self.stem_block(self.stem(images_BCHW))
        return features_BCHW

    def forward(self, images_BCHW: Tensor, choices: Sequence[int] | Tensor) -> Tensor:
        """Logits (B, classes) of one path, or of the weighted sum of all candidates.

        Args:
            choices: index of a candidate for each layer, or weights_LO whose rows sum to 1.
        """
        return self.forward_from_stem(self.stem_features(images_BCHW), choices)

    def forward_from_stem(self, features_BCHW: Tensor, choices: Sequence[int] | Tensor) -> Tensor:
        """`forward`, from the stem's features on."""
        # Unbound, their gradients are stacked once; each row taken by its index would fill a whole tensor.
        depth_weights_S = self.log_beta().exp().unbind() if self.depth == "sink" else None
        choices_L = choices.unbind() if isinstance(choices, Tensor) else choices
        for stage in range(len(self.space.stages)):
            outputs = [features_BCHW]
            for index, layer in enumerate(self.space.layers):
                if layer.stage == stage:
                    outputs.append(self.blocks[index](outputs[-1], choices_L[index]))
            features_BCHW = outputs[-1]
            if depth_weights_S is not None:
                features_BCHW = self._sink(outputs, depth_weights_S[stage].unbind(), stage)
        return self._classify(features_BCHW)

    def forward_derived(self, features_BCHW: Tensor, ops_L: Sequence[int]) -> Tensor:
        """Logits of a derived network, from the stem's features on; nothing is summed over depths.

        Args:
            ops_L: index of each layer's operator, -1 where the layer is not kept.
        """
        for block, op in zip(self.blocks, ops_L, strict=True):
            if op >= 0:
                features_BCHW = block(features_BCHW, op)
        return self._classify(features_BCHW)

    def _sink(self, outputs: list[Tensor], weights_D: Sequence[Tensor], stage: int) -> Tensor:
        first = self.space.min_depth(stage)
        if first == len(outputs) - 1:
            return outputs[-1]
        total_BCHW = weights_D[first] * outputs[first]
        for depth in range(first + 1, len(outputs)):
            # Term by term: stacking them would lose the channels-last layout.
            total_BCHW = total_BCHW + weights_D[depth] * outputs[depth]
        return total_BCHW

    def _classify(self, features_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.classifier(mean_over_pixels(self.head(features_BCHW)))
        return logits_BK

    # Latency

    def expected_latency_ms(self, table: LatencyTable, weights_LO: Tensor | None = None) -> Tensor:
        """Expected latency at the current widths, in ms; differentiable in beta and the weights.

        Args:
            weights_LO: probabilities of the candidates; alpha's where not given.
        """
        weights_LO = self.log_alpha().exp() if weights_LO is None else weights_LO
        depths_SD = self.log_beta().exp() if self.depth == "sink" else None
        return self._expected_latency(table, self.widths(), weights_LO, depths_SD)

    # Derivation and widths

    def derived_ops(self) -> list[int]:
        """Index of each layer's operator in the derived network; -1 where it is not kept."""
        if self.kept_ops is not None:
            return self.kept_ops
        leading_L: list[int] = self.log_alpha().argmax(-1).tolist()
        ops_L = [-1 if op == len(self.space.ops) else op for op in leading_L]
        if self.depth == "skip":
            return ops_L
        depths_S: list[int] = self.log_beta().argmax(-1).tolist()
        return [
            op if layer.index < depths_S[layer.stage] else -1
            for op, layer in zip(ops_L, self.space.layers, strict=True)
        ]

    def derive(self) -> Architecture:
        """The network that the parameters choose now, at the current widths."""
        stages: list[list[LayerChoice]] = [[] for _ in self.space.stages]
        for index, (op, layer) in enumerate(zip(self.derived_ops(), self.space.layers, strict=True)):
            if op >= 0:
                width = self.candidate(index, op).width
                stages[layer.stage].append(LayerChoice(op=self.space.ops[op].name, mid_channels=width))
        return Architecture(space=self.space.name, stages=tuple(map(tuple, stages)))

    def candidate(self, layer: int, op: int) -> Candidate:
        """The candidate operator of those indices."""
        block = self.blocks[layer]
        assert isinstance(block, MixedLayer)
        return block.candidate(op)

    def widths(self) -> list[list[int]]:
        """Active mid channels of each layer's candidates; 0 for identity."""
        ops = range(len(self.space.ops))
        widths = [[self.candidate(index, op).width for op in ops] for index in range(len(self.blocks))]
        return [row + [0] * self.has_identity for row in widths]

    def set_widths(self, widths: Sequence[Sequence[int]]) -> None:
        """Restores widths of `widths()`, for weights that are in order already (a checkpoint's)."""
        for index, row in enumerate(widths):
            for op in range(len(self.space.ops)):
                self.candidate(index, op).width = row[op]

    def set_derived_widths(
        self, architecture: Architecture, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Gives the derived operators the widths of `architecture`, which has the operators of `derive()`.

        Args:
            optimizer: the weights' optimizer, whose momentum follows its channels.
        """
        kept = [(index, op) for index, op in enumerate(self.derived_ops()) if op >= 0]
        for (index, op), (_, _, width) in zip(kept, architecture.layers, strict=True):
            candidate = self.candidate(index, op)
            if candidate.width != width:
                candidate.set_width(width, optimizer)


def _candidates(space: Space, *, has_identity: bool) -> Tensor:
    """Which candidates each layer has, (L, O)."""
    has_op_LO = torch.ones(len(space.layers), len(space.ops), dtype=torch.bool)
    if not has_identity:
        return has_op_LO
    return torch.cat([has_op_LO, torch.tensor([[layer.keeps_shape] for layer in space.layers])], 1)


def _depths(space: Space) -> Tensor:
    """Which depths each stage may have, (S, D)."""
    max_depth = max(stage.num_layers for stage in space.stages)
    return torch.tensor(
        [
            [space.min_depth(index) <= depth <= stage.num_layers for depth in range(max_depth + 1)]
            for index, stage in enumerate(space.stages)
        ]
    )


def _masked_log_softmax(parameters: Tensor, mask: Tensor) -> Tensor:
    return torch.log_softmax(parameters.masked_fill(~mask, -torch.inf), dim=-1)
