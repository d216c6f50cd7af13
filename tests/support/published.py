"""What the published implementation writes: `.config` files and search checkpoints."""

import io
import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import Space

SAME_IN_EVERY_LAYER = {"groups": 1, "has_shuffle": False, "bias": False, "use_bn": True, "affine": True}


@st.composite
def architectures(draw: st.DrawFn, space: Space) -> Architecture:
    """Any network of a space, often at the bounds of its widths."""
    stages = []
    for stage, spec in enumerate(space.stages):
        depth = draw(st.integers(space.min_depth(stage), spec.num_layers))
        choices = []
        for layer in space.stage_layers(stage)[:depth]:
            op = draw(st.sampled_from(space.ops))
            low, high = op.width_interval(layer.in_channels)
            width = draw(st.sampled_from([low, high]) | st.integers(low, high))
            choices.append(LayerChoice(op=op.name, mid_channels=width))
        stages.append(tuple(choices))
    return Architecture(space=space.name, stages=tuple(stages))


def make_config(architecture: Architecture, space: Space, num_classes: int = 1000) -> dict[str, Any]:
    """The `.config` of a network, field by field."""

    def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, act: str) -> dict[str, Any]:
        return {
            "name": "ConvLayer",
            "kernel_size": kernel_size,
            "stride": stride,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "act_func": act,
            "ops_order": "weight_bn_act",
            **SAME_IN_EVERY_LAYER,
        }

    def block(
        in_channels: int, mid: int, se: int, out_channels: int, kernel_size: int, stride: int, act: str
    ) -> dict[str, Any]:
        return {
            "name": "MBInvertedResBlock",
            "in_channels": in_channels,
            "mid_channels": mid,
            "se_channels": se,
            "out_channels": out_channels,
            "kernel_size": kernel_size,
            "stride": stride,
            "act_func": act,
            **SAME_IN_EVERY_LAYER,
        }

    stem, head = space.stem_channels, space.head_channels
    stem_se = stem // 4 if space.has_stem_se else 0
    config: dict[str, Any] = {
        "first_stem": conv(3, stem, 3, space.stem_stride, "relu"),
        "second_stem": block(stem, stem, stem_se, space.stem_block_channels, 3, 1, "relu"),
    }
    in_channels = space.stem_block_channels
    for number, (choices, spec) in enumerate(zip(architecture.stages, space.stages, strict=True), start=1):
        blocks = []
        for index, choice in enumerate(choices):
            kernel, expansion, *has_se = choice.op.split("_")
            se = in_channels * (1 if expansion == "e3" else 2) if has_se else 0
            stride = spec.stride if index == 0 else 1
            blocks.append(
                block(
                    in_channels,
                    choice.mid_channels,
                    se,
                    spec.out_channels,
                    int(kernel[1:]),
                    stride,
                    spec.activation,
                )
            )
            in_channels = spec.out_channels
        config[f"stage{number}"] = blocks
    config["feature_mix_layer"] = conv(in_channels, head, 1, 1, space.head_activation)
    config["classifier"] = {
        "name": "LinearLayer",
        "in_features": head,
        "out_features": num_classes,
        "bias": True,
        "use_bn": False,
        "affine": False,
        "act_func": None,
        "ops_order": "weight_bn_act",
    }
    return config


def write_config(config: dict[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(config, indent=4))
    return path


class PublishedSupernet(nn.Module):
    """The parameters of a published search that its architecture is read from, and a few weights."""

    def __init__(self, layers_per_stage: Sequence[int], num_ops: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first_stem = nn.Conv2d(3, 4, 3)
        for stage, num_layers in enumerate(layers_per_stage, start=1):
            module = nn.Module()
            for block in range(1, num_layers + 1):
                log_alphas = torch.randn(num_ops, generator=generator).log_softmax(-1)
                one = nn.Module()
                one.m_ops = nn.ModuleList(nn.Conv2d(1, 1, 1, bias=False) for _ in range(num_ops))
                one.log_alphas = nn.Parameter(log_alphas)
                module.add_module(f"block{block}", one)
            module.betas = nn.Parameter(torch.randn(num_layers, generator=generator))
            self.add_module(f"stage{stage}", module)


def make_masks(
    layer_channels: Sequence[Sequence[int]], generator: torch.Generator
) -> "OrderedDict[str, OrderedDict[str, OrderedDict[int, Tensor]]]":
    """A random mask for each of the paper's operators: between half and all of 4 or 8 times the input.

    Args:
        layer_channels: input channels of each layer of each stage.
    """
    stages = OrderedDict()
    for stage, channels in enumerate(layer_channels, start=1):
        blocks = OrderedDict()
        for block, in_channels in enumerate(channels, start=1):
            masks = OrderedDict()
            for op, factor in enumerate((4, 8) * 4):
                high = factor * in_channels
                width = int(torch.randint(high // 2, high + 1, (), generator=generator))
                masks[op] = torch.zeros(high)
                masks[op][torch.randperm(high, generator=generator)[:width]] = 1.0
            blocks[f"block{block}"] = masks
        stages[f"stage{stage}"] = blocks
    return stages


PAPER_LAYER_CHANNELS = [
    [16, 24],
    [24, 40, 40],
    [40, 80, 80, 80],
    [80, 112, 112, 112],
    [112, 192, 192, 192],
    [192],
]
"""Input channels of the layers of the paper's space, from its table."""


def make_search_checkpoint(seed: int = 0) -> dict[str, Any]:
    """The content of a search checkpoint of the paper's space."""
    generator = torch.Generator().manual_seed(seed)
    supernet = PublishedSupernet([len(stage) for stage in PAPER_LAYER_CHANNELS], 8, generator)
    masks = make_masks(PAPER_LAYER_CHANNELS, generator)
    return {"state_dict": nn.DataParallel(supernet).state_dict(), "mc_mask_dddict": masks}


def saved(content: Any, *, is_zip: bool = True) -> bytes:
    """As torch saves it on a GPU; before version 1.6 that was no ZIP file."""
    buffer = io.BytesIO()
    with mock.patch("torch.serialization.location_tag", return_value="cuda:0"):
        torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()
