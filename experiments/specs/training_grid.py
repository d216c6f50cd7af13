"""From a spec to its trainings: each network for each combination of the grid."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from experiments.cells.cell import Cell, TrainingCell, check_distinct
from experiments.places.place import Place
from experiments.products.trained_latency import measure_latencies, needs_measuring
from experiments.specs.experiment_spec import TrainingSpec, parse_fields
from experiments.specs.preparation import Preparation
from experiments.specs.search_grid import Grid
from experiments.tracking.named_network import NamedNetwork, find_networks, is_run, resolve_file
from experiments.tracking.named_run import RUN_PREFIX
from experiments.tracking.tracker import Tracker
from nas.config import TrainConfig
from nas.foundation.errors import UserError
from nas.space.baselines import find_architecture


@dataclass(frozen=True)
class TrainingGrid(Grid):
    """Trainings of several networks under one budget.

    Attributes:
        references: networks as `find_networks` takes them, paths absolute.
    """

    spec: TrainingSpec
    references: tuple[str, ...]

    @classmethod
    def of(cls, spec: TrainingSpec, path: Path) -> Self:
        """Checks every field, and that files are there; runs are looked up when they are needed.

        Raises:
            UserError: names file, field, value and remedy.
        """
        references = tuple(resolve_file(each, path.resolve().parent) for each in spec.architectures)
        try:
            for reference in references:
                if not is_run(reference):
                    find_architecture(reference)
        except UserError as error:
            raise UserError(f"{path}: architectures: {error}") from None
        for factors in spec.combinations():
            parse_fields(TrainConfig, spec, spec.base | factors | {"architecture": references[0]}, path)
        return cls(path, spec, references)

    def with_searches(self, run_ids: Iterable[str]) -> Self:
        """The same, with the networks of these searches first."""
        runs = (f"{RUN_PREFIX}{run_id}" for run_id in run_ids)
        return replace(self, references=tuple(dict.fromkeys((*runs, *self.references))))

    def cells(self, out: Path, place: Place, report: Callable[[str], None]) -> list[Cell]:
        """The trainings; fetches architectures of searches into the output folder."""
        preparation = Preparation(out, place, str(self.path), report)
        try:
            networks = find_networks(self.references, out)
        except UserError as error:
            raise UserError(f"{self.path}: architectures: {error}") from None
        cells: list[Cell] = [
            self._cell(network, factors, preparation)
            for network in networks
            for factors in self.spec.combinations()
        ]
        check_distinct(cells, str(self.path))
        return cells

    def measure(
        self, cells: list[Cell], out: Path, place: Place, tracker: Tracker, report: Callable[[str], None]
    ) -> None:
        """Measures the latency of what was trained, unless all that is done already."""
        trainings = [cell for cell in cells if isinstance(cell, TrainingCell)]
        if trainings and needs_measuring(trainings, tracker.cells()):
            measurement = measure_latencies(trainings, out, place, report)
            for cell in trainings:
                tracker.annotate(cell.hash, measurement.metrics[cell.hash], measurement.tags)

    def _cell(self, network: NamedNetwork, factors: dict[str, Any], preparation: Preparation) -> Cell:
        fields = self.spec.base | factors | {"architecture": network.architecture}
        config = parse_fields(TrainConfig, self.spec, fields, self.path)
        provenance = preparation.provenance(config)
        return make_training_cell(network, config, preparation.data_fingerprint(config), provenance, factors)


def make_training_cell(
    network: NamedNetwork,
    config: TrainConfig,
    data_fingerprint: str,
    provenance: Mapping[str, str],
    factors: dict[str, Any],
) -> TrainingCell:
    """The training of a network by a config; named after both."""
    others = [f"{field}={value}" for field, value in factors.items() if field != "seed"]
    return TrainingCell(
        name="-".join(["train", network.name, *others, f"s{config.seed}"]),
        factors={"architecture": network.name, **factors},
        config=config,
        data_fingerprint=data_fingerprint,
        provenance=provenance,
        architecture=network.reference,
        search_run=network.search.run_id if network.search else None,
    )
