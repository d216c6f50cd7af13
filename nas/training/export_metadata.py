"""What an exported file has beside the network: what one needs to give it an image."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nas.foundation.field_types import Resolution

METADATA_KEY = "tfnas.json"
INPUT_NAME = "images"


class ExportMetadata(BaseModel):
    """Metadata that one needs to give an image to an exported network.

    Attributes:
        resolution: height and width of the images, in pixels.
        view: how an image of another size gets this resolution: by `resize`, or resized to 256/224 of the
            resolution and cropped at the `center`.
        is_gray: whether the network was trained on gray images, as three equal channels.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: str
    class_names: Annotated[tuple[str, ...], Field(strict=False, min_length=2)]
    resolution: Resolution
    view: Literal["resize", "center"]
    is_gray: bool
