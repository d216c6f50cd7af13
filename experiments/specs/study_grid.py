"""StudyGrid: a YAML file with a `study` section, and the searches of its points."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from experiments.cells.search_cell import SearchCell
from experiments.specs.experiment_spec import ExperimentSpec
from experiments.specs.grid import Plan
from experiments.specs.preparation import Preparation
from experiments.specs.search_grid import Draft, SearchGrid, draft_cells, make_cells, plan_cells, plan_of
from experiments.specs.study_spec import Study
from nas.config import DataConfig
from nas.foundation.errors import UserError
from nas.foundation.identity import fingerprint
from nas.search.search_identity import RESULTS_VERSION

_FIELDS_OF_REACH = {
    *DataConfig.model_fields,
    *("method", "space", "depth", "objective", "target_latency_ms", "latency_table", "latency_batch_size"),
    *("batch_size", "arch_fraction", "arch_list", "weight_steps_per_arch_step", "device", "num_threads"),
}
"""Fields that decide whether a search has its table and images and can meet its target."""


@dataclass(frozen=True)
class StudyGrid(SearchGrid):
    """A YAML file with a `study` section whose fields are all checked.

    As a grid of searches it holds the extreme points of its space, one search per point.
    """

    @classmethod
    def of(cls, spec: ExperimentSpec, path: Path) -> Self:
        """Checks the fields of every extreme point.

        Raises:
            UserError: names file, field, value and remedy.
        """
        assert spec.study is not None
        corners = {fingerprint(values): values for values in spec.study.corners()}
        drafts = [draft for values in corners.values() for draft in _drafts(spec, values, path)[:1]]
        for problem in _fields_without_effect(drafts):
            raise UserError(f"{path}: {problem}")
        return cls(path, spec, drafts)

    def as_study(self) -> Self:
        """This grid."""
        return self

    @property
    def study(self) -> Study:
        """The section."""
        assert self.spec.study is not None
        return self.spec.study

    @property
    def seeds(self) -> list[int]:
        """The seeds over which the value of a point is averaged."""
        return self.study.seeds or [self.drafts[0].config.seed]

    def point_cells(self, number: int, values: dict[str, Any], preparation: Preparation) -> list[SearchCell]:
        """The searches of a point, one per seed.

        Args:
            number: Optuna's number of the trial.

        Raises:
            UserError: the point is impossible.
        """
        cells = make_cells(_drafts(self.spec, values, self.path), preparation, str(self.path))
        return [replace(cell, name=f"trial-{number}-s{cell.config.seed}") for cell in cells]

    def check_reach(self, preparation: Preparation) -> list[SearchCell]:
        """Checks that the extreme points have tables and images and can meet their targets.

        Returns:
            One search per combination of the fields that matter for this.

        Raises:
            UserError: a table or images are missing, or a target is out of reach.
        """
        kinds = self._kinds()
        # Before a table is measured, which takes minutes.
        plan_cells(kinds, preparation, str(self.path))
        return [make_cells([draft], preparation, str(self.path))[0] for draft in kinds]

    def plan_reach(self, preparation: Preparation) -> Plan:
        """The same as far as it is known without measuring a table."""
        return plan_of(plan_cells(self._kinds(), preparation, str(self.path)), preparation)

    def _kinds(self) -> list[Draft]:
        kinds = {
            fingerprint(
                draft.config.model_dump(mode="json", include=_FIELDS_OF_REACH) | {"target": draft.target}
            ): draft
            for draft in self.drafts
        }
        return list(kinds.values())

    def definition(self, kinds: list[SearchCell]) -> dict[str, Any]:
        """What must not change between launches of a study, so that its points can be compared.

        Args:
            kinds: of `check_reach`.
        """
        content = self.study.model_dump(mode="json", include={"space", "objectives"})
        return content | {
            "base": self.spec.base,
            "seeds": self.seeds,
            "lookup table": sorted({cell.table_fingerprint for cell in kinds}),
            "images": sorted({cell.data_fingerprint for cell in kinds}),
            "results version": RESULTS_VERSION,
        }


def _drafts(spec: ExperimentSpec, values: dict[str, Any], path: Path) -> list[Draft]:
    """The searches of a point, as the cells of its own grid."""
    assert spec.study is not None
    cells = [values | {"seed": seed} for seed in spec.study.seeds or ()] or [values]
    return draft_cells(spec.model_copy(update={"cells": cells}), path)


def _fields_without_effect(drafts: list[Draft]) -> Iterator[str]:
    for draft in drafts:
        for field in sorted(set(draft.config.ineffective_fields()) & set(draft.factors)):
            others = {name: value for name, value in draft.factors.items() if name != field}
            yield (
                f"study.space.{field}: has no effect in some points ({others}); state in its `when` "
                "where it is to vary"
            )
