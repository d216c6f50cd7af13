"""Prediction: class probabilities of image files, from an exported network.

Shapes: K classes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from nas.data.image_decoding import center_view, read_image
from nas.foundation.errors import UserError, first_line
from nas.foundation.files import read_file
from nas.foundation.validation import first_error
from nas.training.export import INPUT_NAME, METADATA_KEY, ExportMetadata, PixelClassifier
from nas.training.trained_network import load_trained_network

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictor:
    """A network that classifies image files.

    Attributes:
        run: maps images_BCHW, values 0 to 1, to logits_BK.
    """

    metadata: ExportMetadata
    run: Callable[[Tensor], Tensor]

    def predict(self, path: Path) -> Floats:
        """Probabilities_K of an image file.

        Raises:
            BrokenImageError: the file is missing or not an image.
        """
        logits_1K = self.run(self._prepare(path)[None]).double()
        probabilities_K: Floats = torch.softmax(logits_1K[0], 0).numpy()
        return probabilities_K

    def _prepare(self, path: Path) -> Tensor:
        image = read_image(path)
        if self.metadata.is_gray:
            image = image.convert("L").convert("RGB")
        resolution = self.metadata.resolution
        if self.metadata.view == "center":
            image = center_view(image, resolution)
        else:
            image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
        pixels_HWC = torch.from_numpy(np.array(image))
        return pixels_HWC.permute(2, 0, 1).float() / 255


def load_predictor(path: Path) -> Predictor:
    """Reads an exported ONNX file, or a trained network (`best.pt`).

    Raises:
        UserError: the file is missing, damaged, or not written by tfnas.
    """
    return _load_onnx(path) if path.suffix == ".onnx" else _load_trained(path)


def _load_onnx(path: Path) -> Predictor:
    content = read_file(path, "an exported network")

    def run(images_BCHW: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT_NAME: images_BCHW.numpy()})[0])

    try:
        # Loaded from memory, so it cannot refer to other files.
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        properties = session.get_modelmeta().custom_metadata_map
        metadata = ExportMetadata(**json.loads(properties[METADATA_KEY]))
        logits_1K = run(torch.zeros(1, 3, metadata.resolution, metadata.resolution))
        if logits_1K.shape != (1, len(metadata.class_names)):
            raise ValueError("it does not have one logit per class")
    except ValidationError as error:
        raise UserError(f"{path}: {METADATA_KEY}: {first_error(error)}; export it again") from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: not exported by tfnas: {METADATA_KEY} is missing or invalid ({first_line(error)}); "
            "export it again"
        ) from None
    # The runtime has its own exception for each kind of damage.
    except Exception as error:
        reason = first_line(error)[:120]
        raise UserError(f"{path}: not an ONNX file, or damaged: {reason}; export it again") from None
    return Predictor(metadata, run)


def _load_trained(path: Path) -> Predictor:
    record, network = load_trained_network(path)
    classifier = PixelClassifier(network, record).eval()

    @torch.no_grad()
    def run(images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = classifier(images_BCHW)
        return logits_BK

    return Predictor(ExportMetadata.of(record), run)
