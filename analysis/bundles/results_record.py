"""Results of an experiment as bundles keep them: measures of each run, tables and verdicts."""

import math
from typing import Any

from analysis.bundles.archive import to_json
from analysis.measures import measure_runs
from analysis.reading.experiment import Experiment
from analysis.tables import make_tables
from analysis.tables.table_files import to_csv
from analysis.verdicts import judge
from analysis.verdicts.verdict_record import record_verdict

MEASURES_FILE = "results/measures.json"
VERDICTS_FILE = "results/verdicts.json"
_TABLES_FOLDER = "results/tables"


def compute_results(experiment: Experiment) -> dict[str, bytes]:
    """Returns the files with the results of an experiment, by their paths in a bundle."""
    numbers = measure_runs(experiment)
    measures = {run_id: _without_nan(measured) for run_id, measured in numbers.items()}
    verdicts = [_without_nan(record_verdict(one)) for one in judge(experiment, numbers)]
    tables, _ = make_tables(experiment, numbers)
    return {
        MEASURES_FILE: to_json(measures),
        VERDICTS_FILE: to_json(verdicts),
        **{f"{_TABLES_FOLDER}/{table.name}.csv": to_csv(table).encode() for table in tables},
    }


def is_table(path: str) -> bool:
    """Whether a member of a bundle is a table of results."""
    return path.startswith(f"{_TABLES_FOLDER}/")


def _without_nan(content: Any) -> Any:
    """The content with None for what JSON lacks."""
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
