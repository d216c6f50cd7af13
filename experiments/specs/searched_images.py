"""The images of searches, which the trainings of their networks use too unless they name others."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from experiments.tracking.named_network import NamedNetwork
from experiments.tracking.named_run import NamedRun
from nas.config import SearchConfig, TrainConfig
from nas.data.datasets import DATASETS
from nas.foundation.errors import UserError
from nas.space.macro_space import get_space
from nas.space.network_names import ARCHITECTURE_NAMES, BASELINE_NAMES

INHERITED_FIELDS = ("dataset", "data_dir", "train_list", "arch_list", "test_list", "skip_broken_images")
"""Fields that choose images; `max_train_images` and `augmentation` belong to the protocol."""

_FINGERPRINT_TAG = "tfnas.data_fingerprint"
_NUMBER = re.compile("[0-9]{1,10}")


@dataclass(frozen=True)
class SearchedImages:
    """The images of a search.

    Attributes:
        fields: those of `INHERITED_FIELDS` that are not at their default, and `dataset`.
        resolution: of the search's space, in pixels.
        max_train_images: how many of them the search used; None for all.
        fingerprint: of what it used; None if it is not known.
    """

    fields: tuple[tuple[str, Any], ...]
    resolution: int
    max_train_images: int | None = None
    fingerprint: str | None = None

    @classmethod
    def of_config(cls, config: SearchConfig) -> Self:
        """The images of a search that is to run."""
        fields = config.model_dump(mode="json", include=set(INHERITED_FIELDS))
        return cls(
            tuple((name, fields[name]) for name in INHERITED_FIELDS if fields[name]),
            get_space(config.space).resolution,
        )

    @classmethod
    def of_run(cls, run: NamedRun) -> Self:
        """The images of a search in MLflow.

        Raises:
            UserError: it is not recorded there what they are.
        """
        # Params are text; a field that is False or None is at its default.
        unset = ("False", "None", "")
        params = {name: text for name, text in run.run.data.params.items() if text not in unset}
        for name in ("dataset", "space"):
            if name not in params:
                raise UserError(
                    f"{run.reference}: run '{run.name}' is no search of `tfnas launch`: it has no param "
                    f"'{name}'; name such a search, or give the architecture as a file"
                )
        num_images = params.get("max_train_images", "")
        return cls(
            tuple((name, _value(params[name])) for name in INHERITED_FIELDS if name in params),
            get_space(params["space"]).resolution,
            int(num_images) if _NUMBER.fullmatch(num_images) else None,
            run.run.data.tags.get(_FINGERPRINT_TAG),
        )

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(dict(self.fields)["dataset"])

    def add_to(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a training, completed by those of these images that it does not name itself.

        A training that names another data set gets none of them.
        """
        if said.get("dataset", self.dataset) != self.dataset:
            return dict(said)
        return dict(self.fields) | dict(said)

    def describe_for(self, config: TrainConfig) -> str:
        """What they are, for people who read about a training on other images."""
        fields = dict(self.fields)
        place = f" '{Path(fields['data_dir']).name}'" if "data_dir" in fields else ""
        own = config.model_dump(mode="json", include=set(INHERITED_FIELDS))
        is_same_place = all(fields.get(name) == (own[name] or None) for name in INHERITED_FIELDS)
        return f"{self.dataset}{place}{', as it was then' if is_same_place else ''}"


class Inheritance:
    """Which images each of several networks is trained on.

    A network that a search found is trained on the images of that search, and any other beside it on the same
    ones, at the same resolution if the images have none of their own.

    Raises:
        UserError: see `SearchedImages.of_run`.
    """

    def __init__(self, networks: Iterable[NamedNetwork]) -> None:
        self._of_search = {
            network.search.run_id: SearchedImages.of_run(network.search)
            for network in networks
            if network.search
        }

    def images(self, network: NamedNetwork) -> SearchedImages | None:
        """The images of the search that found a network; None if none did."""
        return self._of_search[network.search.run_id] if network.search else None

    def complete(self, said: Mapping[str, Any], network: NamedNetwork) -> dict[str, Any]:
        """All fields of the training of a network.

        Args:
            said: the fields that the user set.

        Raises:
            UserError: searches on several sets of images stand beside a network that none of them found.
        """
        said = {**said, "architecture": network.architecture}
        images = self.images(network) or self._images_of_all(said, network)
        if images is None:
            return said
        fields = images.add_to(said)
        if "resolution" in said or fields["dataset"] != images.dataset or not _takes_any_size(fields):
            return fields
        return fields | {"resolution": self._resolution_of_all(network)}

    def _images_of_all(self, said: Mapping[str, Any], network: NamedNetwork) -> SearchedImages | None:
        """What all searches have in common; None without any, or if they differ and the user chose."""
        of_all = {images.fields: images for images in self._of_search.values()}
        if len(of_all) > 1 and "dataset" not in said:
            raise UserError(
                f"dataset: missing for '{network.name}': the searches beside it used several sets of images; "
                "set dataset, and its folder, or train it apart"
            )
        return next(iter(of_all.values())) if len(of_all) == 1 else None

    def _resolution_of_all(self, network: NamedNetwork) -> int:
        first, *others = sorted({images.resolution for images in self._of_search.values()})
        if others:
            raise UserError(
                f"resolution: missing for '{network.name}': the searches beside it used images of "
                f"{', '.join(map(str, (first, *others)))} pixels; set one, or train it apart"
            )
        return first


def _value(text: str) -> str | bool:
    return True if text == "True" else text


def _takes_any_size(fields: Mapping[str, Any]) -> bool:
    """Whether neither the network nor the images of a training have a resolution."""
    is_named = fields["architecture"] in (*ARCHITECTURE_NAMES, *BASELINE_NAMES)
    return is_named and DATASETS[fields["dataset"]].resolution is None
