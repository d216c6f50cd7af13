"""Export of trained networks: one file from pixels to logits, with the metadata to use it.

An exported network takes any number of images_BCHW at its resolution, with RGB values 0 to 1. It
includes the normalization of the data set, and every batch norm after a convolution is folded into the
convolution.

Shapes: B batch, C channels, H W space, K classes.
"""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nas.data.datasets import DATASETS
from nas.training.export_metadata import INPUT_NAME, METADATA_KEY, ExportMetadata
from nas.training.trained_network import TrainedNetwork

OUTPUT_NAME = "logits"
ExportFormat = Literal["onnx", "torch-export", "state-dict"]

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2", "state-dict": ".state-dict.pt"}

MAX_ERROR = 1e-4
"""Largest accepted difference of a logit between the network and its export."""

Run = Callable[[Tensor], Tensor]
"""Maps images_BCHW, values 0 to 1, to logits_BK."""

_BATCH_IS_FREE = {0: torch.export.Dim("batch")}


class PixelClassifier(nn.Module):
    """A network that includes the normalization: from RGB values 0 to 1 to logits_BK."""

    def __init__(self, network: nn.Module, record: TrainedNetwork) -> None:
        super().__init__()
        self.network = network
        self.mean_C11 = nn.Buffer(torch.tensor(record.mean).expand(3).reshape(3, 1, 1).clone())
        self.std_C11 = nn.Buffer(torch.tensor(record.std).expand(3).reshape(3, 1, 1).clone())

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Returns logits_BK, one row per image."""
        logits_BK: Tensor = self.network((images_BCHW - self.mean_C11) / self.std_C11)
        return logits_BK


def metadata_of(record: TrainedNetwork) -> ExportMetadata:
    """The metadata of a trained network."""
    return ExportMetadata(
        name=record.name,
        class_names=record.class_names,
        resolution=record.resolution,
        view="center" if DATASETS[record.dataset].is_in_files else "resize",
        is_gray=len(record.mean) == 1,
    )


class ExportError(RuntimeError):
    """The exported network computes other values than the original."""


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy for inference, in which each convolution absorbs the batch norm directly after it."""
    folded = copy.deepcopy(network).eval()
    for sequence in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(sequence) - 1):
            conv, norm = sequence[index], sequence[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[index] = fuse_conv_bn_eval(conv, norm)
                sequence[index + 1] = nn.Identity()
    return folded


def export_network(
    record: TrainedNetwork, network: nn.Module, images_BCHW: Tensor, path: Path, export_format: ExportFormat
) -> float:
    """Writes a trained network to a file, reads it back, and compares both on real images.

    Args:
        images_BCHW: at least two images, with values 0 to 1.
        export_format: `onnx` and `torch-export` are whole networks from pixels to logits. `state-dict` is
            only the weights, including batch norms, in the form that `load_state_dict` takes.

    Returns:
        The largest difference of a logit.

    Raises:
        ExportError: the difference exceeds `MAX_ERROR`.
    """
    expected = PixelClassifier(network, record).eval()
    write_and_load = {
        "onnx": _write_onnx,
        "torch-export": _write_torch_export,
        "state-dict": _write_state_dict,
    }
    run = write_and_load[export_format](record, network, images_BCHW[:2], path)
    with torch.no_grad():
        # These batch sizes differ from the example's, so a fixed batch size would show.
        error = max(
            float((run(batch_BCHW) - expected(batch_BCHW)).abs().max())
            for batch_BCHW in (images_BCHW, images_BCHW[:1])
        )
    if not error <= MAX_ERROR:
        raise ExportError(
            f"{path}: logits differ by {error:.2g} from the network's; at most {MAX_ERROR:.0e} is allowed"
        )
    return error


def _write_onnx(record: TrainedNetwork, network: nn.Module, example_BCHW: Tensor, path: Path) -> Run:
    with warnings.catch_warnings(), torch.no_grad():
        # The warnings concern the exporter's own internals.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _for_inference(record, network),
            (example_BCHW,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=(_BATCH_IS_FREE,),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = _without_traces(program.model_proto)
    model.metadata_props.add(key=METADATA_KEY, value=metadata_of(record).model_dump_json())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images_BCHW: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT_NAME: images_BCHW.numpy()})[0])

    return run


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes the Python origin of each node: it contains paths of this machine and is half the file."""
    for part in (
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _write_torch_export(record: TrainedNetwork, network: nn.Module, example_BCHW: Tensor, path: Path) -> Run:
    program = torch.export.export(
        _for_inference(record, network), (example_BCHW,), dynamic_shapes=(_BATCH_IS_FREE,)
    )
    metadata = metadata_of(record).model_dump_json()
    torch.export.save(program, path, extra_files={METADATA_KEY: metadata})
    return torch.export.load(path).module()


def _write_state_dict(record: TrainedNetwork, network: nn.Module, example_BCHW: Tensor, path: Path) -> Run:
    torch.save(network.state_dict(), path)
    return PixelClassifier(record.build(torch.load(path, weights_only=True)), record).eval()


def _for_inference(record: TrainedNetwork, network: nn.Module) -> nn.Module:
    return PixelClassifier(fold_batch_norm(network), record).eval()
