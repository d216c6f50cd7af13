"""A layer of the supernet as CUDA graphs: what a GPU does for it is recorded, and replayed by one launch.

A step of a search launches thousands of kernels, most of which a GPU ends sooner than the host launches the
next. Paths change from step to step, but there are few candidates of a layer, and its mixture of all: each is
recorded, for its widths. All recordings of a layer share their memory, since only one is in use at a time.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas.foundation.errors import UserError
from nas.supernet.mixed_block import BlockFunction, MBConvShape, MBConvWeights

Replay = Callable[[], None]


class GraphedBlock:
    """Computes a layer as another block does, to rounding; one of its own for each layer.

    The first call of a choice and widths runs the block, the second records it, and later ones replay that:
    all with the same bits, so that a search may be resumed anywhere. Where no gradients are wanted, the block
    runs.

    Args:
        block: what is recorded. It must not wait for the GPU, nor draw random numbers.
    """

    def __init__(self, block: BlockFunction) -> None:
        self._block = block
        self._memory = _LayerMemory()
        self._recordings: dict[Hashable, tuple[Hashable, _Recording | None]] = {}

    def __reduce__(self) -> tuple[type["GraphedBlock"], tuple[BlockFunction]]:
        # A copy records anew.
        return GraphedBlock, (self._block,)

    def __call__(
        self,
        features_BIHX: Tensor,
        candidates: Sequence[MBConvWeights],
        widths: Sequence[int],
        mix_weights_O: Tensor | None,
        shape: MBConvShape,
    ) -> Tensor:
        """See `BlockFunction`.

        Raises:
            UserError: the GPU cannot record it.
        """

        def compute(inputs: _Inputs) -> Tensor:
            return self._block(inputs.features_BIHX, inputs.candidates, widths, inputs.mix_weights_O, shape)

        inputs = _Inputs(features_BIHX, candidates, mix_weights_O)
        if not torch.is_grad_enabled():
            return compute(inputs)
        choice = tuple(each.expansion_WI.data_ptr() for each in candidates)
        conditions = (tuple(widths), inputs.conditions())
        known, recording = self._recordings.get(choice, (None, None))
        passes: _Passes
        if known != conditions:
            # The first call loads kernels and chooses algorithms, which a recording must not.
            self._recordings[choice] = conditions, None
            passes = _Passes(compute, inputs.as_leaves())
        else:
            passes = recording or _Recording(compute, inputs.as_leaves(in_place=False), self._memory)
            self._recordings[choice] = conditions, passes
        replayed: Tensor = _Isolated.apply(passes, features_BIHX, mix_weights_O, *inputs.learned())
        return replayed


class _Inputs(NamedTuple):
    """What a block computes from."""

    features_BIHX: Tensor
    candidates: Sequence[MBConvWeights]
    mix_weights_O: Tensor | None

    def weights(self) -> list[Tensor]:
        """Those of all candidates."""
        return [weight for each in self.candidates for weight in each if weight is not None]

    def learned(self) -> list[Tensor]:
        """The weights that want a gradient."""
        return [weight for weight in self.weights() if weight.requires_grad]

    def conditions(self) -> Hashable:
        """A recording is of use where they are equal."""
        features_BIHX, mix_weights_O = self.features_BIHX, self.mix_weights_O
        weights = self.weights()
        return (
            tuple(weight.data_ptr() for weight in weights),
            tuple(weight.requires_grad for weight in weights),
            (features_BIHX.shape, features_BIHX.stride(), features_BIHX.dtype, features_BIHX.requires_grad),
            mix_weights_O is not None and mix_weights_O.requires_grad,
            torch.is_autocast_enabled(features_BIHX.device.type),
        )

    def as_leaves(self, *, in_place: bool = True) -> "_Inputs":
        """The same as leaves of a graph of autograd of their own.

        Args:
            in_place: whether features and the weights of the sum stay where they are.
        """

        def make_leaf(tensor: Tensor, *, stays: bool = True) -> Tensor:
            leaf = tensor.detach() if stays else torch.empty_like(tensor)
            return leaf.requires_grad_(tensor.requires_grad)

        mix_weights_O = self.mix_weights_O
        return _Inputs(
            make_leaf(self.features_BIHX, stays=in_place),
            [
                MBConvWeights(*(None if each is None else make_leaf(each) for each in weights))  # type: ignore[arg-type]
                for weights in self.candidates
            ],
            None if mix_weights_O is None else make_leaf(mix_weights_O, stays=in_place),
        )


class _LayerMemory:
    """What all recordings of a layer share.

    Attributes:
        turn: counts forward passes; what one of them keeps for its backward pass is lost in the next.
    """

    def __init__(self) -> None:
        self.turn = 0
        self._pool: Any = None
        self._stream: Any = None

    def record(self, compute: Callable[[], None]) -> Replay:
        """Records what a function does on the GPU; it does nothing yet.

        Raises:
            UserError: the GPU cannot record it.
        """
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(self._stream):
                # Other threads may use the GPU meanwhile.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    compute()
                finally:
                    graph.capture_end()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"kernels: this GPU cannot record a layer ({reason}); set kernels: torch"
            ) from error
        return graph.replay


class _Passes:
    """The forward and the backward pass of a block, once, and apart from the rest of the network.

    Autograd adds up the gradients of a tensor in the order of their arrival. A recording adds up those of
    its own features first, and so must whatever runs in its place.
    """

    def __init__(self, compute: Callable[[_Inputs], Tensor], leaves: _Inputs) -> None:
        self._compute, self._leaves = compute, leaves
        self._out_BPHX: Tensor | None = None
        self._gradients: list[Tensor] = []
        self._wanted = leaves.learned()
        for each in (leaves.mix_weights_O, leaves.features_BIHX):
            if each is not None and each.requires_grad:
                self._wanted.append(each)

    def forward(self, features_BIHX: Tensor, mix_weights_O: Tensor | None) -> tuple[Tensor, int]:
        """The output, and the turn that its backward pass needs."""
        self._run_forward()
        assert self._out_BPHX is not None
        return self._out_BPHX.detach(), 0

    def backward(self, gradient_BPHX: Tensor, turn: int) -> list[Tensor]:
        """Gradients: of the weights, of the weights of the sum, and of the features, as far as wanted."""
        # As recordings read it; on a GPU it is already.
        self._run_backward(gradient_BPHX.contiguous(memory_format=torch.channels_last))
        return self._gradients

    def _run_forward(self) -> None:
        with torch.enable_grad():
            self._out_BPHX = self._compute(self._leaves)

    def _run_backward(self, gradient_BPHX: Tensor) -> None:
        assert self._out_BPHX is not None
        # It is recorded within the forward pass, where autocast may be on; backward passes run without.
        with torch.autocast(gradient_BPHX.device.type, enabled=False):
            self._gradients = list(torch.autograd.grad(self._out_BPHX, self._wanted, gradient_BPHX))
        # It keeps all activations of the pass.
        self._out_BPHX = None


class _Recording(_Passes):
    """Both passes on memory that stays where it is.

    Weights are used where they are, so that steps of the optimizer need not be copied.
    """

    def __init__(self, compute: Callable[[_Inputs], Tensor], leaves: _Inputs, memory: _LayerMemory) -> None:
        super().__init__(compute, leaves)
        self._memory = memory
        self._replay_forward = memory.record(self._run_forward)
        assert self._out_BPHX is not None
        self._result_BPHX: Tensor = self._out_BPHX.detach()
        self._gradient_BPHX: Tensor = torch.empty_like(self._result_BPHX)
        self._features_gradient_BIHX: Tensor | None = None
        self._other_gradients: Tensor | None = None
        self._replay_backward = memory.record(self._gather_gradients)

    def _gather_gradients(self) -> None:
        self._run_backward(self._gradient_BPHX)
        if self._leaves.features_BIHX.requires_grad:
            self._features_gradient_BIHX = self._gradients.pop()
        if self._gradients:
            self._other_gradients = torch.cat([gradient.flatten() for gradient in self._gradients])
        self._gradients = []

    def forward(self, features_BIHX: Tensor, mix_weights_O: Tensor | None) -> tuple[Tensor, int]:
        """See `_Passes`; the output is valid until the next call of the layer."""
        self._leaves.features_BIHX.detach().copy_(features_BIHX)
        if self._leaves.mix_weights_O is not None and mix_weights_O is not None:
            self._leaves.mix_weights_O.detach().copy_(mix_weights_O)
        self._memory.turn += 1
        self._replay_forward()
        return self._result_BPHX.detach(), self._memory.turn

    def backward(self, gradient_BPHX: Tensor, turn: int) -> list[Tensor]:
        """See `_Passes`; gradients are copies, since autograd may keep one where it is, and add to it.

        Raises:
            RuntimeError: the layer has run since.
        """
        if turn != self._memory.turn:
            raise RuntimeError("a layer ran again before its backward pass, which it can with kernels: torch")
        self._gradient_BPHX.copy_(gradient_BPHX)
        self._replay_backward()
        gradients: list[Tensor] = []
        if self._other_gradients is not None:
            others = [each for each in self._wanted if each is not self._leaves.features_BIHX]
            parts = torch.split(self._other_gradients.clone(), [each.numel() for each in others])
            gradients += [part.view(each.shape) for part, each in zip(parts, others, strict=True)]
        if self._features_gradient_BIHX is not None:
            gradients.append(self._features_gradient_BIHX.clone())
        return gradients


class _Isolated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, passes: _Passes, features_BIHX: Tensor, mix_weights_O: Tensor | None, *learned: Tensor
    ) -> Tensor:
        ctx.passes = passes
        result_BPHX, ctx.turn = passes.forward(features_BIHX, mix_weights_O)
        return result_BPHX

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BPHX: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.passes.backward(gradient_BPHX, ctx.turn)
        _, wants_features, wants_mix, *_ = ctx.needs_input_grad
        of_features = gradients.pop() if wants_features else None
        of_mix = gradients.pop() if wants_mix else None
        return None, of_features, of_mix, *gradients
