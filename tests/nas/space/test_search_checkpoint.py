"""Search checkpoints of the published implementation, in exactly its layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.foundation.errors import UserError
from nas.space.architecture import Architecture
from nas.space.macro_space import get_space
from nas.space.search_checkpoint import load_search_checkpoint
from tests.support.published import PAPER_LAYER_CHANNELS, make_search_checkpoint, saved

PAPER = get_space("paper")
OP_NAMES = ("k3_e3", "k3_e6", "k5_e3", "k5_e6", "k3_e3_se", "k3_e6_se", "k5_e3_se", "k5_e6_se")


def derive(content: dict[str, Any]) -> list[list[tuple[str, int]]]:
    """Operator and width of each kept layer, by NumPy, from what the checkpoint says."""
    state, masks = content["state_dict"], content["mc_mask_dddict"]
    stages = []
    for stage in range(1, 7):
        depth = int(np.argmax(state[f"module.stage{stage}.betas"].numpy())) + 1
        kept = []
        for block in range(1, depth + 1):
            op = int(np.argmax(state[f"module.stage{stage}.block{block}.log_alphas"].numpy()))
            mask = masks[f"stage{stage}"][f"block{block}"][op].numpy()
            kept.append((OP_NAMES[op], np.count_nonzero(mask)))
        stages.append(kept)
    return stages


def choices(architecture: Architecture) -> list[list[tuple[str, int]]]:
    return [[(choice.op, choice.mid_channels) for choice in stage] for stage in architecture.stages]


def load(content: bytes, path: Path, space_name: str = "paper") -> Architecture:
    path.write_bytes(content)
    return load_search_checkpoint(path, get_space(space_name))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "searched_model_90.pth.tar"


@pytest.mark.parametrize("is_zip", [True, False], ids=["torch now", "torch before 1.6"])
@pytest.mark.parametrize("seed", range(10))
def test_operators_depths_and_widths_are_those_of_alpha_beta_and_masks(
    seed: int, is_zip: bool, path: Path
) -> None:
    content = make_search_checkpoint(seed)
    assert choices(load(saved(content, is_zip=is_zip), path)) == derive(content)


def test_names_without_the_prefix_of_data_parallel_are_read(path: Path) -> None:
    content = make_search_checkpoint()
    expected = derive(content)
    state = {key.removeprefix("module."): value for key, value in content["state_dict"].items()}
    assert choices(load(saved(content | {"state_dict": state}), path)) == expected


@pytest.mark.parametrize(
    "convert", [torch.Tensor.tolist, torch.Tensor.bool, torch.Tensor.long, torch.nn.Parameter]
)
def test_masks_of_other_types_are_read(convert: Any, path: Path) -> None:
    content = make_search_checkpoint()
    expected = derive(content)
    for blocks in content["mc_mask_dddict"].values():
        for masks in blocks.values():
            for op in masks:
                masks[op] = convert(masks[op])
    assert choices(load(saved(content), path)) == expected


def test_of_equal_values_the_first_counts_as_at_the_start_of_a_search(path: Path) -> None:
    content = make_search_checkpoint()
    for key, value in content["state_dict"].items():
        if key.endswith(("log_alphas", "betas")):
            value.fill_(-2.0)
    assert [[op for op, _ in stage] for stage in choices(load(saved(content), path))] == [["k3_e3"]] * 6


def _with(content: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The content with another value in `state_dict`, or without one."""
    state = dict(content["state_dict"])
    if value is None:
        del state[name]
    else:
        state[name] = value
    return content | {"state_dict": state}


ALPHA = "module.stage2.block3.log_alphas"
BETA = "module.stage4.betas"
NAN = float("nan")

PARAMETERS = {
    "a NaN alpha": (ALPHA, torch.tensor([0.0] * 7 + [NAN]), "state_dict.stage2.block3.log_alphas: has nan"),
    "an infinite beta": (
        BETA,
        torch.tensor([0.0, 0.0, 0.0, -torch.inf]),
        "state_dict.stage4.betas: has -inf",
    ),
    "nine candidates": (ALPHA, torch.zeros(9), r"log_alphas: has shape \(9,\), not \(8,\)"),
    "a matrix": (ALPHA, torch.zeros(2, 4), r"log_alphas: has shape \(2, 4\)"),
    "a number": (ALPHA, 1.0, "log_alphas: is no vector"),
    "words": (ALPHA, ["a"] * 8, "log_alphas: has 'a'"),
    "a huge tensor of one number": (ALPHA, torch.zeros(1).expand(10**15), r"has shape \(1000000000000000,\)"),
    "five sink inputs": (BETA, torch.zeros(5), r"betas: has shape \(5,\), not \(4,\)"),
    "no alpha": (ALPHA, None, "state_dict: no 'stage2.block3.log_alphas'"),
    "no beta": (BETA, None, "state_dict: no 'stage4.betas'"),
    "a fourth layer": ("module.stage2.block4.log_alphas", torch.zeros(8), "has 'stage2.block4.log_alphas'"),
    "a seventh stage": ("module.stage7.betas", torch.zeros(1), "has 'stage7.betas'"),
    "both names": ("stage4.betas", torch.zeros(4), "'stage4.betas' is there with and without 'module.'"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters_that_no_search_of_the_space_has_are_refused(case: str, path: Path) -> None:
    name, value, message = PARAMETERS[case]
    with pytest.raises(UserError, match=rf"searched_model_90\.pth\.tar: .*{message}") as refused:
        load(saved(_with(make_search_checkpoint(), name, value)), path)
    assert str(refused.value).isprintable()


HALF = [1.0] * 64 + [0.0] * 64

MASKS = {
    "one too long": (torch.ones(129), r"has shape \(129,\), not \(128,\)"),
    "one too short": ([1.0] * 127, r"has shape \(127,\), not \(128,\)"),
    "an entry of a half": (torch.tensor([0.5, *HALF[1:]]), r"stage1\.block1\[1\]: has 0\.5"),
    "a NaN": ([NAN, *HALF[1:]], "has nan"),
    "too few ones": ([0.0, *HALF[1:]], r"stage1\.block1\[1\]: 63 active channels; 'k3_e6' takes 64 to 128"),
    "text": ("1" * 128, "is no vector"),
    "a dictionary": ({0: 1.0}, "is no vector"),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks_that_no_search_of_the_space_has_are_refused(case: str, path: Path) -> None:
    content = make_search_checkpoint()
    mask, message = MASKS[case]
    content["mc_mask_dddict"]["stage1"]["block1"][1] = mask
    with pytest.raises(UserError, match=message):
        load(saved(content), path)


def test_a_mask_of_half_the_channels_is_the_lowest_width(path: Path) -> None:
    content = make_search_checkpoint()
    content["state_dict"]["module.stage1.block1.log_alphas"][1] = 10.0
    content["mc_mask_dddict"]["stage1"]["block1"][1] = HALF
    assert load(saved(content), path).stages[0][0].mid_channels == 64


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("stage6",), "mc_mask_dddict: no 'stage6'"),
        (("stage2", "block3"), "mc_mask_dddict.stage2: no 'block3'"),
        (("stage2", "block3", 7), "mc_mask_dddict.stage2.block3: no 7"),
    ],
)
def test_missing_and_excess_masks_are_refused(keys: tuple[Any, ...], message: str, path: Path) -> None:
    content = make_search_checkpoint()
    inner: Any = content["mc_mask_dddict"]
    for key in keys[:-1]:
        inner = inner[key]
    removed = inner.pop(keys[-1])
    with pytest.raises(UserError, match=message):
        load(saved(content), path)
    inner |= {keys[-1]: removed, "extra": removed}
    with pytest.raises(UserError, match="has 'extra'"):
        load(saved(content), path)


def test_a_checkpoint_of_one_space_is_no_checkpoint_of_another(path: Path) -> None:
    for name in ("micro", "paper_no_se"):
        with pytest.raises(UserError, match=f"'{name}' has stages of"):
            load(saved(make_search_checkpoint()), path, name)


def test_small32_has_the_layers_of_the_paper_and_reads_its_checkpoints(path: Path) -> None:
    content = make_search_checkpoint()
    architecture = load(saved(content), path, "small32")
    assert architecture.space == "small32"
    assert choices(architecture) == derive(content)


def test_the_written_layout_is_the_space_of_the_paper() -> None:
    found = [[layer.in_channels for layer in PAPER.stage_layers(stage)] for stage in range(6)]
    assert found == PAPER_LAYER_CHANNELS
