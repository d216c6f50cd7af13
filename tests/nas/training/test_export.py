"""Exported networks against the trained ones, and predictions for image files."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from nas.config import TrainConfig
from nas.data.dataset_readers import read_bundled
from nas.data.datasets import DATASETS
from nas.data.image_decoding import BrokenImageError
from nas.foundation.errors import UserError
from nas.space.baselines import make_network
from nas.space.macro_space import get_space
from nas.space.network_names import BASELINE_NAMES, find_architecture
from nas.space.operators import OPERATORS
from nas.training import export
from nas.training.export import ExportError, PixelClassifier, export_network, fold_batch_norm
from nas.training.export_metadata import METADATA_KEY
from nas.training.prediction import load_predictor
from nas.training.trained_network import TrainedNetwork
from tests.support.tiny import full_depth_architecture

CLASS_NAMES = tuple("abcdefghij")


@pytest.fixture(scope="module")
def test_images():
    images_NHWC, _ = read_bundled(TrainConfig(architecture="unused"), "test")
    gray_BCHW = torch.from_numpy(images_NHWC[::50]).permute(0, 3, 1, 2).float() / 255
    return gray_BCHW.expand(-1, 3, -1, -1).contiguous()


def shake(network, images_BCHW):
    """Gives batch norms statistics and scales as a trained network has them."""
    generator = torch.Generator().manual_seed(0)
    network.train()
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.copy_(torch.rand(norm.weight.shape, generator=generator) + 0.5)
                norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator) * 0.1)
        for _ in range(3):
            network(images_BCHW)
    return network.eval()


@pytest.fixture(scope="module")
def trained(test_images):
    architecture = full_depth_architecture(get_space("micro"), OPERATORS["k5_e6_se"])
    config = TrainConfig(architecture="unused")
    dataset = DATASETS[config.dataset]
    record = TrainedNetwork(
        network=architecture,
        class_names=CLASS_NAMES,
        resolution=28,
        mean=dataset.mean,
        std=dataset.std,
        dataset="fashion_mnist_subset",
        epoch=1,
        metrics={},
        config=config.model_dump(mode="json"),
    )
    return record, shake(make_network(architecture, 10, 28), test_images)


@pytest.fixture(scope="module")
def onnx_file(trained, test_images, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "network.onnx"
    assert export_network(*trained, test_images, path, "onnx") < 1e-4
    return path


@pytest.fixture(scope="module")
def expected(trained, test_images):
    record, network = trained
    with torch.no_grad():
        return network((test_images - record.mean[0]) / record.std[0])


@pytest.mark.parametrize("name", [*BASELINE_NAMES, "tf-nas-a"])
def test_folding_leaves_no_batch_norm_and_changes_no_logit(name, test_images):
    network = shake(make_network(find_architecture(name) or name, 10, 28), test_images[:4])
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(test_images[:4]), network(test_images[:4]), atol=1e-4, rtol=1e-4)


def test_onnx_file_gives_the_networks_logits_for_any_batch(onnx_file, expected, test_images):
    session = onnxruntime.InferenceSession(str(onnx_file))
    for size in (1, 7, len(test_images)):
        (logits,) = session.run(None, {"images": test_images[:size].numpy()})
        np.testing.assert_allclose(logits, expected[:size].numpy(), atol=1e-4)


def test_onnx_file_has_folded_norms_its_classes_and_no_path_of_this_machine(onnx_file):
    model = onnx.load(str(onnx_file))
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    (metadata,) = [json.loads(entry.value) for entry in model.metadata_props if entry.key == "tfnas.json"]
    assert metadata["class_names"] == list(CLASS_NAMES)
    assert b".py" not in onnx_file.read_bytes()


def test_torch_export_file_gives_the_networks_logits(trained, expected, test_images, tmp_path):
    path = tmp_path / "network.pt2"
    export_network(*trained, test_images, path, "torch-export")
    extra_files = {METADATA_KEY: ""}
    module = torch.export.load(path, extra_files=extra_files).module()
    for size in (1, 7):
        torch.testing.assert_close(module(test_images[:size]), expected[:size], atol=1e-4, rtol=0)
    assert json.loads(extra_files[METADATA_KEY])["resolution"] == 28


def test_state_dict_is_what_the_network_loads(trained, expected, test_images, tmp_path):
    record, network = trained
    path = tmp_path / "weights.pt"
    assert export_network(record, network, test_images, path, "state-dict") == 0
    again = make_network(record.network, 10, 28)
    again.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        logits = again.eval()((test_images - record.mean[0]) / record.std[0])
    assert torch.equal(logits, expected)


def test_export_that_computes_something_else_is_an_error(trained, test_images, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "fold_batch_norm", lambda network: nn.Sequential(network, nn.Softmax(1)))
    with pytest.raises(ExportError, match="logits differ by"):
        export_network(*trained, test_images, tmp_path / "network.pt2", "torch-export")


@pytest.mark.parametrize("kind", ["onnx", "trained"])
def test_prediction_is_the_softmax_of_the_networks_logits(
    kind, onnx_file, trained, expected, test_images, tmp_path
):
    path = onnx_file
    if kind == "trained":
        path = tmp_path / "best.pt"
        trained[0].save(path, trained[1].state_dict())
    predictor = load_predictor(path)
    for index in range(3):
        pixels = (test_images[index, 0] * 255).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "image.png")
        np.testing.assert_allclose(
            predictor.predict(tmp_path / "image.png"), torch.softmax(expected[index], 0).numpy(), atol=1e-4
        )


def test_images_of_any_size_and_colour_can_be_predicted(onnx_file, tmp_path):
    predictor = load_predictor(onnx_file)
    for mode, size in (("RGB", (300, 200)), ("RGBA", (5, 9)), ("L", (28, 28)), ("P", (64, 64))):
        Image.new(mode, size).save(tmp_path / "image.png")
        assert predictor.predict(tmp_path / "image.png").sum() == pytest.approx(1)


def test_broken_image_is_named(onnx_file, tmp_path):
    (tmp_path / "image.png").write_text("no")
    with pytest.raises(BrokenImageError, match=r"image\.png: not an image"):
        load_predictor(onnx_file).predict(tmp_path / "image.png")


def test_networks_of_image_files_see_the_centre(trained):
    record = trained[0].model_copy(update={"dataset": "image_folder", "mean": (0.5, 0.5, 0.5)})
    metadata = export.metadata_of(record)
    assert (metadata.view, metadata.is_gray) == ("center", False)


def test_classifier_normalizes_colours_each_by_its_own(trained):
    record = trained[0].model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)})
    out = PixelClassifier(nn.Identity(), record)(torch.full((1, 3, 1, 1), 0.3))
    assert out.flatten().tolist() == pytest.approx([0.4, 1 / 6, 0.0], abs=1e-6)


@pytest.mark.parametrize("name", ["gone.onnx", "text.onnx", "other.onnx", "gone.pt", "text.pt"])
def test_files_that_are_no_networks_are_refused(name, tmp_path):
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("text")
    elif name.startswith("other"):
        value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        graph = onnx.helper.make_graph([], "empty", [value], [value])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, str(path))
    with pytest.raises(UserError) as caught:
        load_predictor(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
