"""A trained network as one file: its architecture, its weights, and how it sees images."""

import io
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from nas.foundation.checkpoint import load_torch
from nas.foundation.errors import UserError
from nas.foundation.field_types import Positive, Resolution
from nas.foundation.files import read_file, write_atomically
from nas.foundation.validation import first_error
from nas.space.architecture import Architecture
from nas.space.baselines import make_network

Finite = Annotated[float, Field(allow_inf_nan=False)]


def _check_channels(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise ValueError("must be one value, or one for each of 3 channels")
    return values


class TrainedNetwork(BaseModel):
    """The description of a trained network, without its weights.

    Attributes:
        network: an architecture, or the name of a torchvision network.
        class_names: one per output.
        resolution: height and width of the training images, in pixels.
        mean: mean of each channel, or one for all channels, for values 0..1.
        std: standard deviation, in the same form. Mean and deviation normalize images.
        dataset: name of the data set of the training.
        epoch: number of training epochs.
        metrics: metrics of that epoch.
        config: the `TrainConfig`, as JSON.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    network: Architecture | str
    class_names: Annotated[tuple[str, ...], Field(strict=False, min_length=2)]
    resolution: Resolution
    mean: Annotated[tuple[Finite, ...], Field(strict=False), AfterValidator(_check_channels)]
    std: Annotated[tuple[Positive, ...], Field(strict=False), AfterValidator(_check_channels)]
    dataset: str
    epoch: int
    metrics: dict[str, float]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """A name for people."""
        if isinstance(self.network, str):
            return self.network
        return self.network.name or "derived network"

    def build(self, weights: dict[str, Tensor]) -> nn.Module:
        """Builds the network with these weights, in evaluation mode."""
        module = make_network(self.network, len(self.class_names), self.resolution)
        module.load_state_dict(weights)
        return module.eval()

    def save(self, path: Path, weights: dict[str, Tensor]) -> None:
        """Writes the record and the weights to a file, atomically."""
        buffer = io.BytesIO()
        torch.save({"format": 1, "record": self.model_dump(mode="json"), "weights": weights}, buffer)
        write_atomically(path, buffer.getbuffer())


def load_trained_network(path: str | Path) -> tuple[TrainedNetwork, nn.Module]:
    """Reads a file that `TrainedNetwork.save` wrote; never unpickles code.

    Raises:
        UserError: the file is missing, damaged, or not a trained network.
    """
    stored = read_file(path, "a trained network")
    try:
        content = load_torch(stored)
        record = TrainedNetwork.model_validate(content["record"])
        return record, record.build(content["weights"])
    except ValidationError as error:
        raise UserError(f"{path}: not a trained network: {first_error(error)}") from None
    # A damaged file can raise almost anything.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: not a trained network, or damaged: {reason}; train it again") from None
