"""A trained network as one file: what to build, its weights, and how it sees images."""

import io
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from nas.config import Positive, Resolution
from nas.foundation.checkpoint import load_torch
from nas.foundation.errors import UserError
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
    """A network that was trained, without its weights' values.

    Attributes:
        network: an architecture, or the name of a network of torchvision's.
        class_names: one an output.
        resolution: height and width of the images it was trained on, in pixels.
        mean: of each channel, or of all, for values 0..1; with `std` it normalises images.
        dataset: which images it was trained on.
        epoch: epochs of training.
        metrics: of that epoch.
        config: the `TrainConfig`, as JSON has it.
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
        """What to call it."""
        if isinstance(self.network, str):
            return self.network
        return self.network.name or "derived network"

    def build(self, weights: dict[str, Tensor]) -> nn.Module:
        """The network with these weights, in evaluation mode."""
        module = make_network(self.network, len(self.class_names), self.resolution)
        module.load_state_dict(weights)
        return module.eval()

    def save(self, path: Path, weights: dict[str, Tensor]) -> None:
        """Writes the record and the weights to a file, atomically."""
        buffer = io.BytesIO()
        torch.save({"format": 1, "record": self.model_dump(mode="json"), "weights": weights}, buffer)
        write_atomically(path, buffer.getbuffer())


def load_trained_network(path: str | Path) -> tuple[TrainedNetwork, nn.Module]:
    """Reads a file of `TrainedNetwork.save`; never unpickles code.

    Raises:
        UserError: the file is missing, damaged or something else.
    """
    stored = read_file(path, "a trained network")
    try:
        content = load_torch(stored)
        record = TrainedNetwork.model_validate(content["record"])
        return record, record.build(content["weights"])
    except ValidationError as error:
        raise UserError(f"{path}: not a trained network: {first_error(error)}") from None
    # A damaged file can raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: not a trained network, or damaged: {reason}; train it again") from None
