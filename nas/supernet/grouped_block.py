"""A layer of the supernet in few kernels, for GPUs: candidates of one kernel size run as one wide candidate.

A GPU takes longer to start a small kernel than to run it. So active weights are sliced, joined and cast in
one kernel, candidates of one kernel size share their expansion, depthwise convolution and batch norms, and
the weights of the sum are the scale of the last batch norm.

Shapes: as in `nas.supernet.mixed_block`, and N pixels of the batch at the input's resolution, M of an image
at the output's (of the batch, where there is no B).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, sigmoid
from torch.nn import functional as F

from nas.supernet.mixed_block import BN_EPS, MBConvShape, MBConvWeights


def grouped_block(
    features_BIHX: Tensor,
    candidates: Sequence[MBConvWeights],
    widths: Sequence[int],
    mix_weights_O: Tensor | None,
    shape: MBConvShape,
) -> Tensor:
    """`nas.supernet.mixed_block.mixed_block`, equal to rounding."""
    groups = _group(candidates)
    projected_BMP: dict[int, Tensor] = {}
    out_space = (0, 0)
    for members, weights in zip(groups, _join(groups, candidates, widths, features_BIHX), strict=True):
        mid_BWHX = _filter(features_BIHX, weights, shape)
        out_space = mid_BWHX.shape[2], mid_BWHX.shape[3]
        parts_BMW = _squeeze_and_excite(_as_pixels(mid_BWHX), weights.each, shape)
        for index, part_BMW, each in zip(members, parts_BMW, weights.each, strict=True):
            projected_BMP[index] = part_BMW @ each.projection_WP
    in_order = [projected_BMP[index] for index in range(len(candidates))]
    sum_BPHX = _mix(in_order, mix_weights_O, out_space)
    return features_BIHX + sum_BPHX if shape.keeps_shape else sum_BPHX


class _GroupWeights(NamedTuple):
    """The active weights of a group: joined, and of each member what cannot be joined."""

    expansion_WI: Tensor
    depthwise_W1KK: Tensor
    each: list[MBConvWeights]


def _group(candidates: Sequence[MBConvWeights]) -> list[list[int]]:
    """Indices by kernel size; within, those with squeeze-and-excitation last, so that they are one slice."""
    groups: dict[int, list[int]] = {}
    for index, weights in enumerate(candidates):
        groups.setdefault(weights.depthwise_W1KK.shape[-1], []).append(index)
    return [sorted(each, key=lambda i: candidates[i].se_reduce_WR is not None) for each in groups.values()]


def _join(
    groups: Sequence[Sequence[int]],
    candidates: Sequence[MBConvWeights],
    widths: Sequence[int],
    features_BIHX: Tensor,
) -> list[_GroupWeights]:
    """The active weights of all groups, in the type that they are used in."""
    device_type = features_BIHX.device.type
    is_mixed = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type) if is_mixed else candidates[0].expansion_WI.dtype
    sources: list[Tensor] = []
    sizes: list[list[int]] = []

    def add(tensors: Sequence[Tensor], rows: Sequence[int]) -> None:
        sources.extend(tensors)
        sizes.append(list(rows))

    for members in groups:
        rows = [widths[index] for index in members]
        add([candidates[index].expansion_WI for index in members], rows)
        add([candidates[index].depthwise_W1KK for index in members], rows)
        for index, width in zip(members, rows, strict=True):
            for name, tensor in zip(MBConvWeights._fields[2:], candidates[index][2:], strict=True):
                if tensor is not None:
                    add([tensor], [len(tensor) if name == "se_reduce_bias_R" else width])
    joined = iter(_Join.apply(sizes, dtype, *sources))
    taken = []
    for members in groups:
        expansion_WI, depthwise_W1KK = next(joined), next(joined)
        each = []
        for index in members:
            rest = [None if tensor is None else next(joined) for tensor in candidates[index][2:]]
            each.append(MBConvWeights(expansion_WI, depthwise_W1KK, *rest))  # type: ignore[arg-type]
        taken.append(_GroupWeights(expansion_WI, depthwise_W1KK, each))
    return taken


class _Join(torch.autograd.Function):
    """Joins the first rows of tensors and casts them: one kernel forward, and two backward."""

    @staticmethod
    def forward(ctx: Any, sizes: list[list[int]], dtype: torch.dtype, *sources: Tensor) -> tuple[Tensor, ...]:
        """Returns one tensor per list of sizes, which has the number of rows of each of its sources."""
        ctx.sizes, ctx.shapes, ctx.dtype = sizes, [each.shape for each in sources], sources[0].dtype
        joined: list[Tensor] = []
        places: list[Tensor] = []
        parts: list[Tensor] = []
        for rows in sizes:
            parts += [source[:num] for source, num in zip(sources[len(parts) :], rows, strict=False)]
            joined.append(parts[-1].new_empty(sum(rows), *parts[-1].shape[1:], dtype=dtype))
            places += torch.split(joined[-1], rows)
        torch._foreach_copy_(places, parts)
        return tuple(joined)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        parts = [
            part for each, rows in zip(gradients, ctx.sizes, strict=True) for part in torch.split(each, rows)
        ]
        wanted = [index for index, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        whole = {index: parts[index].new_empty(ctx.shapes[index], dtype=ctx.dtype) for index in wanted}
        inactive = [whole[index][len(parts[index]) :] for index in wanted]
        if inactive := [each for each in inactive if len(each)]:
            torch._foreach_zero_(inactive)
        if wanted:
            active = [whole[index][: len(parts[index])] for index in wanted]
            torch._foreach_copy_(active, [parts[index] for index in wanted])
        return None, None, *(whole.get(index) for index in range(len(parts)))


def _filter(features_BIHX: Tensor, weights: _GroupWeights, shape: MBConvShape) -> Tensor:
    """Expansion and depthwise convolution of a group, each with batch norm and activation."""
    batch, _, *space = features_BIHX.shape
    # A product over pixels keeps nothing for the backward pass if the weights are frozen; a convolution does.
    mid_NW = _as_pixels(features_BIHX).flatten(0, 1) @ weights.expansion_WI.t()
    mid_BWHX = _activate(_normalize(_as_features(mid_NW.view(batch, -1, mid_NW.shape[1]), space)), shape)
    kernel_size = weights.depthwise_W1KK.shape[-1]
    mid_BWHX = F.conv2d(
        mid_BWHX, weights.depthwise_W1KK, None, shape.stride, kernel_size // 2, groups=mid_BWHX.shape[1]
    )
    return _activate(_normalize(mid_BWHX), shape)


def _squeeze_and_excite(mid_BMW: Tensor, each: Sequence[MBConvWeights], shape: MBConvShape) -> list[Tensor]:
    """The mid channels of each member; those with squeeze-and-excitation are scaled together."""
    rows = [len(weights.projection_WP) for weights in each]
    with_se = [weights for weights in each if weights.se_reduce_WR is not None]
    if not with_se:
        return _split(mid_BMW, rows)
    se_rows = rows[-len(with_se) :]
    *plain, to_scale_BMW = _split(mid_BMW, [*rows[: -len(with_se)], sum(se_rows)])
    means = _split(to_scale_BMW.mean(1), se_rows)
    gates_BW = sigmoid(_concatenate([_gates(*pair, shape) for pair in zip(means, with_se, strict=True)]))
    return [*plain, *_split(to_scale_BMW * gates_BW[:, None], se_rows)]


def _gates(means_BW: Tensor, weights: MBConvWeights, shape: MBConvShape) -> Tensor:
    assert weights.se_reduce_WR is not None
    assert weights.se_expand_WR is not None
    reduced_BR = _activate(F.linear(means_BW, weights.se_reduce_WR.t(), weights.se_reduce_bias_R), shape)
    return F.linear(reduced_BR, weights.se_expand_WR, weights.se_expand_bias_W)


def _mix(projected_BMP: Sequence[Tensor], mix_weights_O: Tensor | None, space: tuple[int, int]) -> Tensor:
    """Batch norm of each candidate's output, and their sum."""
    joined_BMC = _concatenate(projected_BMP)
    num_candidates, num_channels = len(projected_BMP), projected_BMP[0].shape[-1]
    scale_C = None
    if mix_weights_O is not None:
        scale_C = mix_weights_O[:, None].expand(-1, num_channels).flatten()
    features_BCHX = _normalize(_as_features(joined_BMC, space), scale_C)
    if num_candidates == 1:
        return features_BCHX
    terms_MOP = _as_pixels(features_BCHX).reshape(-1, num_candidates, num_channels)
    # Without a type, autocast would sum, and go on, in float32.
    sum_MP = terms_MOP.sum(1, dtype=terms_MOP.dtype)
    return _as_features(sum_MP.view(len(features_BCHX), -1, num_channels), space)


def _split(tensor: Tensor, sizes: list[int]) -> list[Tensor]:
    """The parts of the last dimension; the gradient of a single part would be copied for nothing."""
    return [tensor] if len(sizes) == 1 else list(torch.split(tensor, sizes, -1))


def _concatenate(parts: Sequence[Tensor]) -> Tensor:
    """The same in reverse."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)


def _normalize(features_BCHX: Tensor, scale_C: Tensor | None = None) -> Tensor:
    return F.batch_norm(features_BCHX, None, None, scale_C, training=True, eps=BN_EPS)


def _activate(features: Tensor, shape: MBConvShape) -> Tensor:
    return F.relu(features) if shape.activation == "relu" else F.silu(features)


def _as_pixels(features_BCHX: Tensor) -> Tensor:
    """The same memory as (batch, pixels, channels)."""
    return features_BCHX.permute(0, 2, 3, 1).flatten(1, 2)


def _as_features(pixels_BMC: Tensor, space: Sequence[int]) -> Tensor:
    """The same memory as channels-last features."""
    batch, _, channels = pixels_BMC.shape
    return pixels_BMC.view(batch, *space, channels).permute(0, 3, 1, 2)
