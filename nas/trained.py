"""A trained network as one file: what to build, its weights, and how it sees images."""

import io
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from nas.architecture import Architecture
from nas.baselines import make_network
from nas.checkpoint import write_atomically
from nas.errors import UserError
from nas.validation import first_error


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
    class_names: Annotated[tuple[str, ...], Field(strict=False)]
    resolution: int
    mean: Annotated[tuple[float, ...], Field(strict=False)]
    std: Annotated[tuple[float, ...], Field(strict=False)]
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
    try:
        stored = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read a trained network: {error.strerror}; check the path") from None
    try:
        content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
        record = TrainedNetwork.model_validate(content["record"])
        return record, record.build(content["weights"])
    except ValidationError as error:
        raise UserError(f"{path}: not a trained network: {first_error(error)}") from None
    # A damaged file can raise nearly anything.
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a trained network, or damaged: {reason}; train it again") from None
