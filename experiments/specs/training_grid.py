"""TrainingGrid: the trainings of a YAML file, each network with each combination of the grid."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from experiments.cells.cell import check_distinct
from experiments.cells.training_cell import TrainingCell
from experiments.places.place import Place
from experiments.specs.experiment_spec import TrainingSpec, parse_fields
from experiments.specs.grid import Grid, Plan
from experiments.specs.preparation import Preparation
from experiments.tracking.named_network import NamedNetwork, check_network, find_networks, resolve_file
from experiments.tracking.named_run import RUN_PREFIX
from nas.config import TrainConfig
from nas.data.image_lists import Listing
from nas.foundation.errors import ErrorList, UserError


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
        """Checks every field, and that files exist; runs are looked up when they are needed.

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
            with errors.collecting():
                parse_fields(TrainConfig, spec, spec.base | factors | {"architecture": references[0]}, path)
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
            networks = find_networks(self.references, out, files)
        except UserError as error:
            raise UserError(f"{self.path}: architectures: {error}") from None
        cells = [
            self._cell(network, factors, preparation)
            for network in networks
            for factors in self.spec.combinations()
        ]
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

    def _cell(self, network: NamedNetwork, factors: dict[str, Any], preparation: Preparation) -> TrainingCell:
        fields = self.spec.base | factors | {"architecture": network.architecture}
        config = parse_fields(TrainConfig, self.spec, fields, self.path)
        images = preparation.data_fingerprint(TrainingCell, config)
        listing = preparation.listing(TrainingCell, config)
        return make_training_cell(network, config, images, preparation.provenance(config), factors, listing)


def make_training_cell(
    network: NamedNetwork,
    config: TrainConfig,
    data_fingerprint: str,
    provenance: Mapping[str, str],
    factors: dict[str, Any],
    listing: Listing,
) -> TrainingCell:
    """The training of a network with a config, named after both."""
    others = [f"{field}={value}" for field, value in factors.items() if field != "seed"]
    return TrainingCell(
        name="-".join(["train", network.name, *others, f"s{config.seed}"]),
        factors={"architecture": network.name, **factors},
        config=config,
        data_fingerprint=data_fingerprint,
        provenance=provenance,
        listing=listing,
        architecture=network.reference,
        search_run=network.search.run_id if network.search else None,
    )
