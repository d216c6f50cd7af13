"""Prediction: class probabilities of image files, from an exported network.

An ONNX file is run without torch, which takes longer to import than a few images to classify.

Shapes: B batch, C channels, H W space, K classes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError

from nas.data.image_decoding import center_view, read_image
from nas.foundation.errors import UserError, first_line
from nas.foundation.files import read_file
from nas.foundation.validation import first_error
from nas.training.export_metadata import INPUT_NAME, METADATA_KEY, ExportMetadata

Floats = NDArray[np.float64]
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Maps images_BCHW, values 0 to 1, to logits_BK."""


@dataclass(frozen=True)
class Predictor:
    """A network that classifies image files."""

    metadata: ExportMetadata
    run: Run

    def predict(self, path: Path) -> Floats:
        """Probabilities_K of an image file.

        Raises:
            BrokenImageError: the file is missing or not an image.
        """
        logits_K = self.run(self._prepare(path)[None])[0].astype(np.float64)
        # Without the highest logit, which could exceed the range of the exponential.
        weights_K = np.exp(logits_K - logits_K.max())
        probabilities_K: Floats = weights_K / weights_K.sum()
        return probabilities_K

    def _prepare(self, path: Path) -> NDArray[np.float32]:
        """The pixels_CHW of an image file, values 0 to 1."""
        image = read_image(path)
        if self.metadata.is_gray:
            image = image.convert("L").convert("RGB")
        resolution = self.metadata.resolution
        if self.metadata.view == "center":
            image = center_view(image, resolution)
        else:
            image = image.resize((resolution, resolution), Image.Resampling.BILINEAR)
        pixels_HWC = np.asarray(image, np.float32) / 255
        return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))


def load_predictor(path: Path) -> Predictor:
    """Reads an exported ONNX file, or a trained network (`best.pt`).

    Raises:
        UserError: the file is missing, damaged, or not written by tfnas.
    """
    return _load_onnx(path) if path.suffix == ".onnx" else _load_trained(path)


def _load_onnx(path: Path) -> Predictor:
    # Imported here, and torch below: each kind of file needs one of them.
    import onnxruntime

    content = read_file(path, "an exported network")

    def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {INPUT_NAME: images_BCHW})[0])

    try:
        # Loaded from memory, so it cannot refer to other files.
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        properties = session.get_modelmeta().custom_metadata_map
        metadata = ExportMetadata(**json.loads(properties[METADATA_KEY]))
        logits_1K = run(np.zeros((1, 3, metadata.resolution, metadata.resolution), np.float32))
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
    import torch

    from nas.training.export import PixelClassifier, metadata_of
    from nas.training.trained_network import load_trained_network

    record, network = load_trained_network(path)
    classifier = PixelClassifier(network, record).eval()

    @torch.no_grad()
    def run(images_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        logits_BK: NDArray[np.float32] = classifier(torch.from_numpy(images_BCHW)).numpy()
        return logits_BK

    return Predictor(metadata_of(record), run)
