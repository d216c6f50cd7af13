"""Tables: rows first, then LaTeX, Markdown and CSV."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from analysis.reading.nothing_to_draw import NothingToDrawError, OutOfPlaceError
from nas.foundation.registry import Registry

if TYPE_CHECKING:
    from analysis.measures.measure import Numbers
    from analysis.reading.experiment import Experiment
    from analysis.tables.result_table import ResultTable

TABLES: "Registry[Callable[[Experiment, Numbers], ResultTable]]" = Registry(
    "table",
    {
        "ablation": "analysis.tables.ablation_table:ablation_table",
        "targets": "analysis.tables.targets_table:targets_table",
        "health": "analysis.tables.health_table:health_table",
        "budget": "analysis.tables.budget_table:budget_table",
        "trained": "analysis.tables.trained_table:trained_table",
        "published": "analysis.tables.published_table:published_table",
        "effects": "analysis.tables.effects_table:effects_table",
        "mixed-models": "analysis.tables.mixed_models_table:mixed_models_table",
        "study-best": "analysis.tables.best_points_table:best_points_table",
    },
)
"""Tables by the name of their files: each makes its rows from an experiment and its measures.

To add one, write `def my_table(experiment: Experiment, numbers: Numbers) -> ResultTable` and register it
with `TABLES.register("name", "my_module:my_table")`; decorate it with `for_grids` if it shows settings.
"""


def make_tables(experiment: "Experiment", numbers: "Numbers") -> tuple[list["ResultTable"], list[str]]:
    """Makes all tables that an experiment supports, and names what each of the others lacks."""
    tables: list[ResultTable] = []
    missing: list[str] = []
    for name, make in TABLES.items():
        try:
            tables.append(make(experiment, numbers))
        except OutOfPlaceError:
            continue
        except NothingToDrawError as reason:
            missing.append(f"table '{name}': not made: {reason}")
    return tables, missing
