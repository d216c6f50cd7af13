"""Files of the published implementation. `data/tf-nas-a.config` is its TF-NAS-A (MIT license)."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.foundation.errors import InputWarning, UserError
from nas.space.architecture import Architecture
from nas.space.baselines import make_network
from nas.space.macro_space import SPACES, get_space
from nas.space.network_names import find_architecture
from nas.space.profile import count_macs, count_parameters
from nas.space.published_files import load_published_architecture
from tests.support.published import architectures, make_config, write_config
from tests.support.tiny import full_depth_architecture

TF_NAS_A = Path(__file__).parent / "data" / "tf-nas-a.config"
SPACE_NAMES = ("paper", "paper_no_se_no_swish", "small32", "micro", "tiny", "tiny_at_8")


def count_by_hand(config: dict[str, Any], num_classes: int) -> int:
    """Parameters, added up over the records of the file: convolutions, batch norms, gates, classifier."""
    blocks = [config["second_stem"]]
    for name in config:
        blocks += config[name] if name.startswith("stage") else []
    total = 0
    for conv in (config["first_stem"], config["feature_mix_layer"]):
        kernel = conv["kernel_size"] ** 2
        total += kernel * conv["in_channels"] * conv["out_channels"] + 2 * conv["out_channels"]
    for block in blocks:
        mid, out, se = block["mid_channels"], block["out_channels"], block["se_channels"]
        if mid > block["in_channels"]:
            total += block["in_channels"] * mid + 2 * mid
        total += block["kernel_size"] ** 2 * mid + 2 * mid
        total += 2 * mid * se + se + mid if se else 0
        total += mid * out + 2 * out
    return total + (config["classifier"]["in_features"] + 1) * num_classes


def count_in_network(architecture: Architecture, num_classes: int) -> int:
    with torch.device("meta"):
        return count_parameters(
            make_network(architecture, num_classes, get_space(architecture.space).resolution)
        )


def load_quietly(path: Path) -> Architecture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        return load_published_architecture(path)


def test_the_published_file_is_the_network_that_comes_with_the_package() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_architecture(str(TF_NAS_A))
    packaged = find_architecture("tf-nas-a")
    assert found is not None
    assert packaged is not None
    assert (found.space, found.stages) == (packaged.space, packaged.stages)
    with torch.device("meta"):
        network = make_network(found, 1000, 224)
    assert (count_parameters(network), count_macs(network, 224)) == (8_757_527, 456_675_855)
    assert count_by_hand(json.loads(TF_NAS_A.read_text()), 1000) == 8_757_527


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(SPACE_NAMES))
def test_any_network_of_a_space_written_and_read_is_the_same_network(
    data: st.DataObject, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    space = get_space(name)
    architecture = data.draw(architectures(space))
    config = make_config(architecture, space)
    path = write_config(config, tmp_path_factory.mktemp("config") / "model.config")
    read = load_quietly(path)
    assert read.space == name
    assert count_in_network(read, 7) == count_by_hand(config, 7)
    for (layer, op, width), (other_layer, other_op, other_width) in zip(
        architecture.layers, read.layers, strict=True
    ):
        assert (layer, width) == (other_layer, other_width)
        is_ambiguous = not op.has_se and width == 4 * layer.in_channels
        assert other_op == op or is_ambiguous
        assert (op.kernel_size, op.has_se) == (other_op.kernel_size, other_op.has_se)
        assert is_ambiguous <= (other_op.expansion == 6)


def test_a_width_that_two_operators_have_is_named_in_one_warning(tmp_path: Path) -> None:
    content = json.loads(TF_NAS_A.read_text())
    content["stage1"][1]["mid_channels"] = 4 * 24
    content["stage3"][2]["mid_channels"] = 4 * 80
    path = write_config(content, tmp_path / "model.config")
    with pytest.warns(InputWarning) as caught:
        architecture = load_published_architecture(path)
    (message,) = (str(warning.message) for warning in caught)
    for part in ("stage1[1]", "96", "k5_e3", "k5_e6", "stage3[2]", "320", "k3_e3", "k3_e6", "the same"):
        assert part in message
    assert architecture.stages[0][1].op == "k5_e6"
    assert architecture.stages[2][2].op == "k3_e6"


def test_with_squeeze_and_excitation_the_same_width_is_no_question(tmp_path: Path) -> None:
    content = json.loads(TF_NAS_A.read_text())
    content["stage1"][1] |= {"mid_channels": 96, "se_channels": 24}
    path = write_config(content, tmp_path / "model.config")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_published_architecture(path).stages[0][1].op == "k5_e3_se"


def test_the_number_of_classes_in_the_file_does_not_matter(tmp_path: Path) -> None:
    content = json.loads(TF_NAS_A.read_text())
    content["classifier"]["out_features"] = 100
    path = write_config(content, tmp_path / "model.config")
    assert load_published_architecture(path) == load_published_architecture(TF_NAS_A)


def test_spaces_are_told_apart_by_stem_strides_gates_and_activations(tmp_path: Path) -> None:
    for name in ("paper", "paper_no_se_no_swish", "small32", "micro"):
        space = SPACES[name]
        config = make_config(full_depth_architecture(space), space)
        path = write_config(config, tmp_path / f"{name}.config")
        assert load_published_architecture(path).space == name


CHANGES: dict[str, tuple[Any, ...]] = {
    # Where, the value there, and what the message names.
    "stage3[1].kernel_size: 7": ("stage3", 1, "kernel_size", 7),
    "stage3[1].se_channels: 81": ("stage3", 1, "se_channels", 81),
    "stage3[1].mid_channels: 159": ("stage3", 1, "mid_channels", 159),
    "stage3[1].mid_channels: 641": ("stage3", 1, "mid_channels", 641),
    "stage3[0].mid_channels: 159": ("stage3", 0, "mid_channels", 159),
    "stage3[1].in_channels: 40": ("stage3", 1, "in_channels", 40),
    "stage3[1].out_channels: 81": ("stage3", 1, "out_channels", 81),
    "stage3[0].stride: 1": ("stage3", 0, "stride", 1),
    "stage3[1].act_func: 'h-swish'": ("stage3", 1, "act_func", "h-swish"),
    "stage3[1].groups: 2": ("stage3", 1, "groups", 2),
    "stage3[1].use_bn: False": ("stage3", 1, "use_bn", False),
    "stage3[1].name: 'IdentityLayer'": ("stage3", 1, "name", "IdentityLayer"),
    "stage3[1].mid_channels: '400'": ("stage3", 1, "mid_channels", "400"),
    "stage3[1].mid_channels: 400.0": ("stage3", 1, "mid_channels", 400.0),
    "stage3[1].mid_channels: True": ("stage3", 1, "mid_channels", True),
    "stage3[1].mid_channels: None": ("stage3", 1, "mid_channels", None),
    "stage3[1].mid_channels: 1000": ("stage3", 1, "mid_channels", 10**4000),
    "stage3: 'k3_e3'": ("stage3", "k3_e3"),
    "number of blocks of stage3: 0": ("stage3", []),
    "number of blocks of stage3: 5": ("stage3", [json.loads(TF_NAS_A.read_text())["stage3"][1]] * 5),
    "stage7: must be absent": ("stage7", []),
    "first_stem.out_channels: 16": ("first_stem", "out_channels", 16),
    "second_stem.se_channels: 9": ("second_stem", "se_channels", 9),
    "second_stem.mid_channels: 33": ("second_stem", "mid_channels", 33),
    "feature_mix_layer.out_channels: 1000000": ("feature_mix_layer", "out_channels", 10**12),
    "classifier.in_features: 1281": ("classifier", "in_features", 1281),
    "classifier.bias: False": ("classifier", "bias", False),
}


@pytest.mark.parametrize(("message", "change"), CHANGES.items(), ids=list(CHANGES))
def test_what_no_space_has_is_refused_in_one_line_with_its_place(
    message: str, change: tuple[Any, ...], tmp_path: Path
) -> None:
    content = json.loads(TF_NAS_A.read_text())
    *places, last, value = change
    inner = content
    for place in places:
        inner = inner[place]
    inner[last] = value
    path = write_config(content, tmp_path / "model.config")
    with pytest.raises(UserError) as refused:
        load_published_architecture(path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert "correct the file" in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1100


@pytest.mark.parametrize("name", ["first_stem", "second_stem", "stage6", "feature_mix_layer", "classifier"])
def test_a_missing_part_is_refused_with_its_name(name: str, tmp_path: Path) -> None:
    content = json.loads(TF_NAS_A.read_text())
    del content[name]
    with pytest.raises(UserError, match=name):
        load_published_architecture(write_config(content, tmp_path / "model.config"))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": ' * 10_000, '{"stage1": [], "stage1": []}'])
def test_what_is_no_published_architecture_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.config"
    path.write_text(text)
    with pytest.raises(UserError, match=r"model\.config: ") as refused:
        find_architecture(str(path))
    assert str(refused.value).isprintable()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.config"):
        find_architecture(str(tmp_path / "nowhere.config"))
