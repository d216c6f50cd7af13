"""A GPU that computes nothing: torch traces a step on it, and this counts what the step would ask of a card.

Tensors are `FakeTensor`s of device `cuda`: shapes, types and layouts without data, on any machine. What needs
data (`.item()`, the size of a `nonzero`) raises, as it would make a real step wait.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)

_NO_KERNEL = (
    "empty",
    "new_empty",
    "detach",
    "lift_fresh",
    "_unsafe_view",
    "prim::device",
    "is_pinned",
    "_pin_memory",
)
"""Operations that launch nothing, beside views."""

_NOT_DETERMINISTIC = (
    *("cumsum", "bincount", "histc", "kthvalue", "median", "put_", "scatter_add", "scatter_add_"),
    *("nll_loss2d_forward", "_adaptive_avg_pool2d_backward", "upsample_bilinear2d_backward"),
    *("grid_sampler_2d_backward", "max_pool2d_with_indices_backward", "reflection_pad2d_backward"),
)
"""Operations of floats that `torch.use_deterministic_algorithms` refuses on CUDA (its documentation)."""


@dataclass
class Trace:
    """What a step asked of the card.

    Attributes:
        num_forward: operations outside of a backward pass that launch a kernel, one at least each.
        num_backward: those within a backward pass.
        num_casts: copies of a tensor to another type, forward and backward.
        saved_bytes: activations that forward passes kept for backward passes, all paths together.
        num_uploads: copies from the host that the host need not wait for.
        waits: copies between host and card that the host waits for, by the operation.
        other_layouts: operations with features that are not channels last, and their shapes.
        refused_by_determinism: operations that have no deterministic algorithm on a GPU.
        names: how often each operation was launched.
    """

    num_forward: int = 0
    num_backward: int = 0
    num_casts: int = 0
    saved_bytes: int = 0
    num_uploads: int = 0
    waits: list[str] = field(default_factory=list)
    other_layouts: list[str] = field(default_factory=list)
    refused_by_determinism: list[str] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)


class _Recorder(TorchDispatchMode):
    def __init__(self, trace: Trace, batch_size: int) -> None:
        super().__init__()
        self.trace = trace
        self.is_backward = False
        self._batch_size = batch_size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        # This one has no meaning for tensors without data yet; it returns nothing.
        out = None if name == "_fused_sgd_" else func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not func.is_view and name not in _NO_KERNEL and _is_on_gpu(*inputs, *outputs):
            self._count(
                name,
                inputs,
                outputs or inputs[:1],
                (kwargs or {}).get("non_blocking") or any(arg is True for arg in args),
            )
        return out

    def _count(self, name: str, inputs: list[Tensor], outputs: list[Tensor], is_asynchronous: bool) -> None:
        trace = self.trace
        # A scalar of the host is an argument of the kernel.
        from_host = [each for each in inputs if each.device.type == "cpu" and each.dim() > 0]
        if any(each.device.type == "cpu" for each in outputs):
            trace.waits.append(f"{name} to the host")
        elif from_host and is_asynchronous and all(hasattr(each, "_was_pinned") for each in from_host):
            trace.num_uploads += 1
        elif from_host and not name.startswith("_foreach"):
            trace.waits.append(f"{name} from the host")
        trace.names[name] += 1
        if name in _NOT_DETERMINISTIC:
            trace.refused_by_determinism.append(name)
        trace.num_backward += self.is_backward
        trace.num_forward += not self.is_backward
        if name in ("_to_copy", "copy_", "_foreach_copy_") and inputs[-1].dtype != outputs[0].dtype:
            trace.num_casts += 1
        for output in outputs:
            if self._is_features(output) and not output.is_contiguous(memory_format=torch.channels_last):
                trace.other_layouts.append(f"{name} {tuple(output.shape)}")

    def _is_features(self, tensor: Tensor) -> bool:
        return tensor.dim() == 4 and len(tensor) == self._batch_size


def _is_on_gpu(*tensors: Tensor) -> bool:
    return any(tensor.device.type == "cuda" for tensor in tensors)


def _pin(tensor: Tensor) -> Tensor:
    """Memory of fake tensors cannot be pinned; the recorder remembers who asked."""
    tensor._was_pinned = True  # type: ignore[attr-defined]
    return tensor


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Within it, tensors hold no data, `cuda` exists, and backward passes run without threads of a card."""
    with ExitStack() as stack:
        # Autocast asks for a card; without one, it would do nothing.
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *_: True))
        # cuDNN is asked about the card, too. It takes channels-last inputs of both types.
        stack.enter_context(
            patch("torch._C._select_conv_backend", lambda *_, **__: torch._C._ConvBackend.Cudnn)
        )
        # Drawn on the host; fake tensors take no generator for it.
        stack.enter_context(patch.object(Tensor, "exponential_", lambda tensor, **_: tensor))
        stack.enter_context(patch.object(Tensor, "pin_memory", _pin))
        # Norms of many tensors are one kernel on a card; torch asks for plain tensors.
        stack.enter_context(patch("torch.nn.utils.clip_grad._has_foreach_support", lambda *_: True))
        stack.enter_context(FakeTensorMode())
        yield


def to_gpu(module: nn.Module) -> nn.Module:
    """Moves a module, in place, its weights channels last; fake tensors do not take part in `module.to`."""
    for each in module.modules():
        for name, parameter in each.named_parameters(recurse=False):
            layout = torch.channels_last if parameter.dim() == 4 else torch.preserve_format
            each._parameters[name] = nn.Parameter(parameter.to(GPU, memory_format=layout))
        for name, buffer in each.named_buffers(recurse=False):
            each._buffers[name] = buffer.to(GPU)
    return module


@contextmanager
def tracing(batch_size: int) -> Iterator[Trace]:
    """Records what happens on the fake GPU.

    Args:
        batch_size: tensors of four dimensions of which the first has this size are features.
    """
    trace = Trace()
    recorder = _Recorder(trace, batch_size)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.device.type == "cuda":
            # One storage may be saved more than once, and as views.
            kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    def backward(tensor: Tensor, gradient: Tensor | None = None, **_: Any) -> None:
        recorder.is_backward = True
        # Recomputation asks which pass it belongs to, so that it runs once in each.
        with patch("torch._C._current_graph_task_id", lambda: id(tensor)):
            _run_backward(tensor, gradient)
        recorder.is_backward = False

    with (
        patch.object(torch.Tensor, "backward", backward),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        recorder,
    ):
        yield trace
    trace.saved_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@torch.no_grad()
def _run_backward(tensor: Tensor, gradient: Tensor | None) -> None:
    """A backward pass by hand: torch's engine starts a thread for each card, and there is none."""
    root = tensor.grad_fn
    received: dict[Any, dict[int, Tensor]] = {
        root: {0: torch.ones_like(tensor) if gradient is None else gradient}
    }
    for node in _in_order(root):
        gradients = received.pop(node, None)
        if gradients is None:
            continue
        if node.name().endswith("AccumulateGrad"):
            leaf = node.variable
            leaf.grad = gradients[0] if leaf.grad is None else leaf.grad + gradients[0]
            continue
        call = getattr(node, "apply", node)
        passed = call(*(gradients.get(index) for index in range(len(node._input_metadata))))
        passed = passed if isinstance(passed, tuple) else (passed,)
        # Functions of our own take what is no tensor first, and pass nothing to it.
        passed = passed[len(passed) - len(node.next_functions) :]
        for (following, index), each in zip(node.next_functions, passed, strict=True):
            if following is not None and each is not None:
                known, expected = received.setdefault(following, {}), following._input_metadata[index]
                # What was broadcast is summed, and what was cast is cast back, by the engine.
                each = each.sum_to_size(expected.shape).to(expected.dtype)
                known[index] = known[index] + each if index in known else each


def _in_order(root: Any) -> list[Any]:
    """The nodes of a graph, each before those that it passes gradients to."""
    done: list[Any] = []
    seen = {root}
    stack = [(root, iter(root.next_functions))]
    while stack:
        node, following = stack[-1]
        for each, _ in following:
            if each is not None and each not in seen:
                seen.add(each)
                stack.append((each, iter(each.next_functions)))
                break
        else:
            done.append(node)
            stack.pop()
    return done[::-1]
