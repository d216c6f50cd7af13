"""TrainingGrid: the trainings of a YAML file, each network with each combination of the grid."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from experiments.cells.cell import check_distinct
from experiments.cells.cell_names import join_names
from experiments.cells.training_cell import TrainingCell
from experiments.places.place import Place
from experiments.specs.experiment_spec import TrainingSpec, parse_fields
from experiments.specs.grid import Grid, Plan
from experiments.specs.preparation import Preparation
from experiments.specs.searched_images import Inheritance, SearchedImages
from experiments.tracking.named_network import NamedNetwork, check_network, find_networks, resolve_file
from experiments.tracking.short_names import RUN_PREFIX
from nas.config import TrainConfig
from nas.data.datasets import SOURCE_FIELDS
from nas.foundation.errors import ErrorList, UserError
from nas.space.network_names import BASELINE_NAMES


@dataclass(frozen=True)
class TrainingGrid(Grid):
    """Trainings of several networks under the same protocol.

    Attributes:
        references: networks as `find_networks` takes them, with absolute paths.
    """

    spec: TrainingSpec
    references: tuple[str, ...]

    @classmethod
    def of(cls, spec: TrainingSpec, path: Path) -> Self:
        """Checks fields, and that files exist; runs, and so their images, are looked up when they are needed.

        Raises:
            UserError: names file, field, value and remedy.
        """
        references = tuple(resolve_file(each, path.resolve().parent) for each in spec.architectures)
        errors = ErrorList()
        for reference in references:
            try:
                check_network(reference)
            except UserError as error:
                errors.add(f"{path}: architectures: {error}")
        for factors in spec.combinations():
            fields = spec.base | factors | {"architecture": references[0]}
            if "dataset" not in fields:
                # That of a search may follow, which decides what the others may be.
                fields = {name: value for name, value in fields.items() if name not in SOURCE_FIELDS}
            with errors.collecting():
                parse_fields(TrainConfig, spec, fields, path)
        errors.check()
        return cls(path, spec, references)

    def with_searches(self, run_ids: Iterable[str]) -> Self:
        """The same grid with the networks of these searches first."""
        runs = (f"{RUN_PREFIX}{run_id}" for run_id in run_ids)
        return replace(self, references=tuple(dict.fromkeys((*runs, *self.references))))

    def cells(
        self, out: Path, place: Place, report: Callable[[str], None], *, even_if_busy: bool = False
    ) -> list[TrainingCell]:
        """The trainings; downloads architectures of searches into the output folder."""
        return self._cells(out, out, place, report)

    def plan(
        self,
        out: Path,
        scratch: Path,
        place: Place,
        report: Callable[[str], None],
        *,
        even_if_busy: bool = False,
    ) -> Plan:
        """See `Grid`; trainings wait for no table."""
        return Plan.of(self._cells(out, scratch, place, report))

    def _cells(
        self, out: Path, files: Path, place: Place, report: Callable[[str], None]
    ) -> list[TrainingCell]:
        preparation = Preparation(out, place, str(self.path), report)
        try:
            networks = with_own_names(find_networks(self.references, out, files))
            inheritance = Inheritance(networks)
        except UserError as error:
            raise UserError(f"{self.path}: architectures: {error}") from None
        cells = name_trainings(
            [
                self._cell(network, factors, preparation, inheritance)
                for network in networks
                for factors in self.spec.combinations()
            ]
        )
        check_distinct(cells, str(self.path))
        return cells

    def as_trainings(self) -> Self:
        """This grid."""
        return self

    def check_follows(self, experiment: str) -> None:
        """Checks that it can follow the searches of an experiment.

        Raises:
            UserError: it is of another experiment.
        """
        if self.spec.experiment != experiment:
            raise UserError(
                f"{self.path}: experiment: '{self.spec.experiment}'; must be '{experiment}', like the "
                "searches', so that figures and report show both"
            )

    def check_images(self, searched: Iterable[SearchedImages], place: Place) -> None:
        """Checks that networks found on some images can be trained on them, before anything is searched.

        Raises:
            UserError: fields do not fit the images, or images for the training or its test are missing.
        """
        preparation = Preparation(Path(), place, str(self.path), report=lambda _: None)
        for images in searched:
            for factors in self.spec.combinations():
                said = {"architecture": BASELINE_NAMES[0], "resolution": images.resolution}
                fields = images.add_to(said | self.spec.base | factors)
                preparation.images(TrainingCell, parse_fields(TrainConfig, self.spec, fields, self.path))

    def _cell(
        self,
        network: NamedNetwork,
        factors: dict[str, Any],
        preparation: Preparation,
        inheritance: Inheritance,
    ) -> TrainingCell:
        try:
            fields = inheritance.complete(self.spec.base | factors, network)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        config = parse_fields(TrainConfig, self.spec, fields, self.path)
        return make_training_cell(network, config, preparation, inheritance, factors)


def make_training_cell(
    network: NamedNetwork,
    config: TrainConfig,
    preparation: Preparation,
    inheritance: Inheritance,
    factors: dict[str, Any],
) -> TrainingCell:
    """The training of a network with a config; `name_trainings` names it.

    Raises:
        UserError: device or images are missing.
    """
    images = preparation.images(TrainingCell, config)
    return TrainingCell(
        name="",
        factors={"architecture": network.name, **factors},
        config=config,
        data_fingerprint=images.fingerprint,
        provenance=preparation.provenance(config),
        listing=preparation.listing(TrainingCell, config),
        images=images.description,
        architecture=network.reference,
        search_run=network.search.run_id if network.search else None,
        searched_on=_searched_on(inheritance.images(network), config, preparation),
    )


def name_trainings(cells: Sequence[TrainingCell]) -> list[TrainingCell]:
    """Names trainings after their seed, network and other settings: `t0-efficientnet_b0`."""
    names = join_names([_parts_of_name(cell) for cell in cells], first="seed")
    return [replace(cell, name=name) for cell, name in zip(cells, names, strict=True)]


def _parts_of_name(cell: TrainingCell) -> dict[str, str]:
    others = {
        field: f"{field}={value}"
        for field, value in cell.factors.items()
        if field not in ("architecture", "seed")
    }
    return {"seed": f"t{cell.config.seed}", "architecture": str(cell.factors["architecture"]), **others}


def with_own_names(networks: Sequence[NamedNetwork]) -> list[NamedNetwork]:
    """Networks whose names differ: searches of two grids, and files in two folders, may share a name."""
    counts = Counter(network.name for network in networks)
    seen: Counter[str] = Counter()
    named = []
    for network in networks:
        seen[network.name] += 1
        mark = network.search.run_id[:4] if network.search else str(seen[network.name])
        is_shared = counts[network.name] > 1
        named.append(replace(network, name=f"{network.name}.{mark}") if is_shared else network)
    return named


def _searched_on(
    searched: SearchedImages | None, config: TrainConfig, preparation: Preparation
) -> str | None:
    """The images of a search if a training is on other ones, wherever they lie; None if not, or not known."""
    if searched is None or searched.fingerprint is None:
        return None
    as_searched = config.model_copy(update={"max_train_images": searched.max_train_images})
    if preparation.training_images(TrainingCell, as_searched) == searched.fingerprint:
        return None
    return searched.describe_for(config)
