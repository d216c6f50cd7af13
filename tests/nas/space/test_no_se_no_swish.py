"""A space without squeeze-and-excitation and Swish: searched, derived, trained and exported like others."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from nas.config import TrainConfig
from nas.latency.entry import space_keys
from nas.search.search import run_search
from nas.space.architecture import Architecture, LayerChoice
from nas.space.blocks import SqueezeExcite
from nas.space.derived_network import DerivedNetwork
from nas.space.macro_space import SPACES, Space, get_space
from nas.space.profile import count_parameters
from nas.supernet import mixed_block
from nas.supernet.supernet import Supernet
from nas.training.export import export_network
from nas.training.trained_network import load_trained_network
from nas.training.training import BEST_FILE, run_training
from tests.support.tiny import TINY, full_depth_architecture, make_config, make_dense_table

PAPER = get_space("paper_no_se_no_swish")
TINY_PLAIN = replace(
    TINY,
    name="tiny_plain",
    operators=TINY.operators[:4],
    stages=tuple(replace(stage, activation="relu") for stage in TINY.stages),
    head_activation="relu",
    has_stem_se=False,
)


@pytest.fixture(autouse=True)
def _tiny_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES._values, TINY_PLAIN.name, TINY_PLAIN)


def num_parameters_by_hand(space: Space, num_classes: int) -> int:
    """Of the network with all layers, each k3_e3 at its initial width; batch norm has two per channel."""
    stem, mid = space.stem_channels, space.stem_block_channels
    total = 3 * stem * 9 + 2 * stem
    total += stem * 9 + 2 * stem + stem * mid + 2 * mid
    channels = mid
    for stage in space.stages:
        for _ in range(stage.num_layers):
            width = 3 * channels
            total += channels * width + 2 * width
            total += width * 9 + 2 * width
            total += width * stage.out_channels + 2 * stage.out_channels
            channels = stage.out_channels
    total += channels * space.head_channels + 2 * space.head_channels
    return total + (space.head_channels + 1) * num_classes


@pytest.mark.parametrize("space", [PAPER, TINY_PLAIN], ids=lambda space: space.name)
def test_its_networks_have_relu_and_nothing_else(space: Space) -> None:
    network = DerivedNetwork(full_depth_architecture(space), 10)
    kinds = {type(module) for module in network.modules()}
    assert nn.ReLU in kinds
    assert not kinds & {nn.SiLU, SqueezeExcite}
    assert count_parameters(network) == num_parameters_by_hand(space, 10)


def test_it_differs_from_paper_in_operators_and_activations_alone() -> None:
    paper = get_space("paper")
    assert [op.name for op in PAPER.ops] == ["k3_e3", "k3_e6", "k5_e3", "k5_e6"]
    shapes = [
        [(layer.in_channels, layer.out_channels, layer.stride, layer.resolution) for layer in space.layers]
        for space in (paper, PAPER)
    ]
    assert shapes[0] == shapes[1]
    assert {(key.se_channels, key.activation) for key in space_keys(PAPER)} == {(0, "relu")}


def test_its_supernet_computes_no_gate_and_no_swish(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(mixed_block, "sigmoid", fail)
    monkeypatch.setattr(torch, "sigmoid", fail)
    monkeypatch.setattr(torch.nn.functional, "silu", fail)
    supernet = Supernet(TINY_PLAIN, 10)
    weights_LO = supernet.log_alpha().exp()
    assert supernet(torch.rand(4, 3, 16, 16), weights_LO).isfinite().all()
    with pytest.raises(AssertionError, match="called"):
        Supernet(TINY, 10)(torch.rand(4, 3, 16, 16), Supernet(TINY, 10).log_alpha().exp())


def test_a_search_ends_in_a_network_that_is_trained_and_exported(tmp_path: Path) -> None:
    config = make_config(space=TINY_PLAIN.name, num_epochs=2, target_latency_ms=2.4)
    architecture = list(run_search(config, table=make_dense_table(TINY_PLAIN)))[-1].architecture
    assert architecture.space == TINY_PLAIN.name
    assert {op.has_se for _, op, _ in architecture.layers} == {False}
    architecture.save(tmp_path / "found.json")
    training = TrainConfig(
        architecture=str(tmp_path / "found.json"),
        num_epochs=1,
        num_warmup_epochs=0,
        batch_size=32,
        max_train_images=100,
        augmentation="none",
        device="cpu",
    )
    list(run_training(training, networks_dir=tmp_path))
    record, network = load_trained_network(tmp_path / BEST_FILE)
    images_BCHW = torch.rand(4, 3, record.resolution, record.resolution)
    export_network(record, network, images_BCHW, tmp_path / "found.onnx", "onnx")
    ops = {node.op_type for node in onnx.load(tmp_path / "found.onnx").graph.node}
    assert "Relu" in ops
    assert not ops & {"Sigmoid", "HardSigmoid", "Swish"}


def test_an_operator_with_squeeze_and_excitation_is_none_of_its_own() -> None:
    choice = LayerChoice(op="k3_e3_se", mid_channels=PAPER.layers[0].in_channels * 3)
    stages = full_depth_architecture(PAPER).stages
    with pytest.raises(ValueError, match=r"stages\[0\]\[0\]\.op: 'k3_e3_se'; use one of k3_e3, k3_e6"):
        Architecture(space=PAPER.name, stages=((choice, *stages[0][1:]), *stages[1:]))
