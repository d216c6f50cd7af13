"""The supernet: every candidate operator of every layer, and the parameters that choose.

Shapes: B batch, C channels, H W space, L searchable layers, O candidate operators (9 in the
skip space, whose last is identity), S stages, D depths of a stage (index d: d layers kept).

Source: TF-NAS, search space; operator, depth and width levels.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from nas.config import Depth
from nas.latency.table import LatencyTable
from nas.space.architecture import Architecture, LayerChoice
from nas.space.derived_network import make_stem_block
from nas.space.macro_space import LayerSpec, Space
from nas.space.operators import CANDIDATE_OPS, CandidateOp, conv_bn
from nas.supernet.compiled.mbconv import MBConvShape, MBConvWeights
from nas.supernet.compiled.mixed_block import mixed_block

SKIP = len(CANDIDATE_OPS)
"""Index of identity among the candidates of the skip space."""


class Candidate(nn.Module):
    """One candidate operator of one layer, with weights at the maximum width.

    The first `width` channels are active; the others are kept, unused, and can come back. Batch
    norm has no parameters and uses batch statistics always.
    """

    def __init__(self, layer: LayerSpec, op: CandidateOp) -> None:
        super().__init__()
        _, max_width = op.width_interval(layer.in_channels)
        self.width = op.initial_width(layer.in_channels)
        self.expansion = nn.Parameter(torch.empty(max_width, layer.in_channels))
        self.depthwise = nn.Parameter(torch.empty(max_width, 1, op.kernel_size, op.kernel_size))
        # Input channels come first, so that the active ones are one contiguous block.
        self.projection = nn.Parameter(torch.empty(max_width, layer.out_channels))
        se_channels = op.se_channels(layer.in_channels)
        if se_channels:
            self.se_reduce = nn.Parameter(torch.empty(max_width, se_channels))
            self.se_reduce_bias = nn.Parameter(torch.zeros(se_channels))
            self.se_expand = nn.Parameter(torch.empty(max_width, se_channels))
            self.se_expand_bias = nn.Parameter(torch.zeros(max_width))
        self.has_se = bool(se_channels)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draws the weights anew (He et al., fan out); biases become 0."""
        kernel_area = self.depthwise[0].numel()
        stds = {
            "expansion": (2 / self.expansion.shape[0]) ** 0.5,
            "depthwise": (2 / kernel_area) ** 0.5,
            "projection": (2 / self.projection.shape[1]) ** 0.5,
        }
        if self.has_se:
            stds["se_reduce"] = (2 / self.se_reduce.shape[1]) ** 0.5
            stds["se_expand"] = (2 / self.se_expand.shape[0]) ** 0.5
        for name, std in stds.items():
            nn.init.normal_(self.get_parameter(name), 0, std, generator=generator)

    def weights(self) -> MBConvWeights:
        """The weights at the maximum width."""
        always = (self.expansion, self.depthwise, self.projection)
        if not self.has_se:
            return MBConvWeights(*always)
        return MBConvWeights(
            *always, self.se_reduce, self.se_reduce_bias, self.se_expand, self.se_expand_bias
        )

    def channel_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters whose first dimension is the mid channels."""
        for name, parameter in self.named_parameters():
            if name != "se_reduce_bias":
                yield parameter

    @torch.no_grad()
    def set_width(self, width: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Makes the `width` channels with the largest L1 norm of the depthwise weight active.

        Channels are reordered, the active ones first, which does not change the function; the
        optimiser's momentum moves with its channel.
        """
        norms_C = self.depthwise.abs().sum((1, 2, 3))
        order_C = torch.sort(norms_C, descending=True, stable=True).indices
        for parameter in self.channel_parameters():
            parameter.copy_(parameter[order_C])
            state = optimizer.state.get(parameter, {}) if optimizer else {}
            for value in state.values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.copy_(value[order_C])
        self.width = width


class MixedBlock(nn.Module):
    """All candidate operators of one layer; runs one of them or a weighted sum of all."""

    def __init__(self, layer: LayerSpec) -> None:
        super().__init__()
        self.layer = layer
        self.block_shape = MBConvShape(layer.stride, layer.activation, layer.keeps_shape)
        self.candidates = nn.ModuleList(Candidate(layer, op) for op in CANDIDATE_OPS)

    def forward(self, features_BCHW: Tensor, choice: int | Tensor) -> Tensor:
        """Runs the candidate of that index, or sums all with weights_O that sum to 1."""
        if isinstance(choice, int):
            if choice == SKIP:
                return features_BCHW
            return self._mix(features_BCHW, [choice], None)
        return self._mix(features_BCHW, range(SKIP), choice[:SKIP])

    def _mix(self, features_BCHW: Tensor, indices: Iterable[int], mix_weights_O: Tensor | None) -> Tensor:
        candidates = [self.candidate(index) for index in indices]
        return mixed_block(
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
        depth: `sink`, a learned sum over each stage's layers; `skip`, identity as ninth candidate.
        seed: seeds the initial weights.

    Attributes:
        alpha: raw operator parameters, one row a layer; read `log_alpha()`.
        beta: raw depth parameters, one row a stage; read `log_beta()`. Empty in the skip space.
    """

    has_candidate_LO: Tensor
    has_depth_SD: Tensor

    def __init__(self, space: Space, num_classes: int, depth: Depth = "sink", *, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        self.depth: Depth = depth
        self.stem = conv_bn(
            3, space.stem_channels, 3, stride=space.stem_stride, activation="relu", affine=False
        )
        self.stem_block = make_stem_block(space, affine=False)
        self.blocks = nn.ModuleList(MixedBlock(layer) for layer in space.layers)
        last_channels = space.stages[-1].out_channels
        self.head = conv_bn(last_channels, space.head_channels, 1, activation="swish", affine=False)
        self.classifier = nn.Linear(space.head_channels, num_classes)
        has_candidate_LO, has_depth_SD = _choices(space, depth)
        self.register_buffer("has_candidate_LO", has_candidate_LO)
        self.register_buffer("has_depth_SD", has_depth_SD)
        self.alpha = nn.Parameter(torch.zeros(has_candidate_LO.shape))
        self.beta = nn.Parameter(torch.zeros(has_depth_SD.shape))
        self._latency = LatencyModel(self)
        self._reset_parameters(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.alpha.copy_(self.log_alpha().masked_fill(~has_candidate_LO, 0))

    def _reset_parameters(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01, generator=generator)
                nn.init.zeros_(module.bias)
            elif isinstance(module, Candidate):
                module.reset_parameters(generator)

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
        depth_weights_SD = self.log_beta().exp() if self.depth == "sink" else None
        for stage in range(len(self.space.stages)):
            outputs = [features_BCHW]
            for index, layer in enumerate(self.space.layers):
                if layer.stage == stage:
                    outputs.append(self.blocks[index](outputs[-1], choices[index]))
            features_BCHW = outputs[-1]
            if depth_weights_SD is not None:
                features_BCHW = self._sink(outputs, depth_weights_SD[stage], stage)
        return self._classify(features_BCHW)

    def _sink(self, outputs: list[Tensor], weights_D: Tensor, stage: int) -> Tensor:
        first = self.space.min_depth(stage)
        terms = [weights_D[depth] * outputs[depth] for depth in range(first, len(outputs))]
        return torch.stack(terms).sum(0) if len(terms) > 1 else outputs[-1]

    def _classify(self, features_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.classifier(self.head(features_BCHW).mean((2, 3)))
        return logits_BK

    @torch.no_grad()
    def forward_derived(self, images_BCHW: Tensor) -> Tensor:
        """Logits of the derived network with the supernet's weights."""
        features_BCHW = self.stem_features(images_BCHW)
        for index, op in enumerate(self.derived_ops()):
            if op >= 0:
                features_BCHW = self.blocks[index](features_BCHW, op)
        return self._classify(features_BCHW)

    # Latency

    def expected_latency_ms(self, table: LatencyTable, weights_LO: Tensor | None = None) -> Tensor:
        """Expected latency at the current widths, in ms; differentiable in beta and the weights.

        Args:
            weights_LO: probabilities of the candidates; alpha's where not given.
        """
        weights_LO = self.log_alpha().exp() if weights_LO is None else weights_LO
        return self._latency.expected_ms(table, weights_LO)

    # Derivation and widths

    def derived_ops(self) -> list[int]:
        """Index of each layer's operator in the derived network; -1 where it is not kept."""
        ops_L: list[int] = self.log_alpha().argmax(-1).tolist()
        if self.depth == "skip":
            return [-1 if op == SKIP else op for op in ops_L]
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
                stages[layer.stage].append(LayerChoice(op=CANDIDATE_OPS[op].name, mid_channels=width))
        return Architecture(space=self.space.name, stages=tuple(map(tuple, stages)))

    def candidate(self, layer: int, op: int) -> Candidate:
        """The candidate operator of those indices."""
        block = self.blocks[layer]
        assert isinstance(block, MixedBlock)
        return block.candidate(op)

    def widths(self) -> list[list[int]]:
        """Active mid channels of each layer's candidates; 0 for identity."""
        num_candidates = self.alpha.shape[1]
        widths = [[self.candidate(i, o).width for o in range(SKIP)] for i in range(len(self.blocks))]
        return [row + [0] * (num_candidates - SKIP) for row in widths]

    def set_widths(self, widths: Sequence[Sequence[int]]) -> None:
        """Takes up widths of `widths()`, for weights that are in order already (a checkpoint's)."""
        for index, row in enumerate(widths):
            for op in range(SKIP):
                self.candidate(index, op).width = row[op]

    def set_derived_widths(
        self, architecture: Architecture, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Gives the derived operators the widths of `architecture`, which is `derive()` re-widthed.

        Args:
            optimizer: the weights' optimiser, whose momentum follows its channels.
        """
        kept = [(index, op) for index, op in enumerate(self.derived_ops()) if op >= 0]
        for (index, op), (_, _, width) in zip(kept, architecture.layers, strict=True):
            candidate = self.candidate(index, op)
            if candidate.width != width:
                candidate.set_width(width, optimizer)


class LatencyModel:
    """The expected latency of a supernet as one tensor expression over latencies_LO."""

    def __init__(self, supernet: Supernet) -> None:
        self._supernet = supernet
        self._widths: list[list[int]] = []
        self._table: LatencyTable | None = None
        self._latencies_LO = torch.empty(0)

    def expected_ms(self, table: LatencyTable, weights_LO: Tensor) -> Tensor:
        """Base + sum over layers of P(layer is kept) * sum over operators of weight * latency."""
        layer_ms_L = (weights_LO * self._latencies(table).to(weights_LO)).sum(-1)
        return table.base_latency_ms + (self._keep_probabilities() * layer_ms_L).sum()

    def _latencies(self, table: LatencyTable) -> Tensor:
        widths = self._supernet.widths()
        if table is not self._table or widths != self._widths:
            self._latencies_LO = torch.tensor(
                [
                    [
                        float(table.curve_ms(layer, op)[width])
                        for op, width in zip(CANDIDATE_OPS, row, strict=False)
                    ]
                    + [0.0] * (len(row) - SKIP)
                    for layer, row in zip(self._supernet.space.layers, widths, strict=True)
                ]
            )
            self._table, self._widths = table, widths
        return self._latencies_LO

    def _keep_probabilities(self) -> Tensor | float:
        """P(layer is kept): the probability that its stage is at least as deep."""
        if self._supernet.depth == "skip":
            return 1.0
        probabilities_SD = self._supernet.log_beta().exp()
        at_least_SD = probabilities_SD.flip(-1).cumsum(-1).flip(-1)
        stages = [layer.stage for layer in self._supernet.space.layers]
        depths = [layer.index + 1 for layer in self._supernet.space.layers]
        return at_least_SD[stages, depths]


def _choices(space: Space, depth: Depth) -> tuple[Tensor, Tensor]:
    """Which candidates each layer has, (L, O), and which depths each stage, (S, D)."""
    num_ops = len(CANDIDATE_OPS)
    if depth == "skip":
        can_skip = torch.tensor([[layer.keeps_shape] for layer in space.layers])
        return torch.cat([torch.ones(len(space.layers), num_ops, dtype=torch.bool), can_skip], 1), torch.ones(
            0, 0, dtype=torch.bool
        )
    max_depth = max(stage.num_layers for stage in space.stages)
    has_depth_SD = [
        [space.min_depth(index) <= d <= stage.num_layers for d in range(max_depth + 1)]
        for index, stage in enumerate(space.stages)
    ]
    return torch.ones(len(space.layers), num_ops, dtype=torch.bool), torch.tensor(has_depth_SD)


def _masked_log_softmax(parameters: Tensor, mask: Tensor) -> Tensor:
    return torch.log_softmax(parameters.masked_fill(~mask, -torch.inf), dim=-1)
