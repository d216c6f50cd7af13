"""The writer of bundles: an experiment with all its runs, their files and the results, in one file."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from analysis.bundles.archive import CRATE, pack, sha256
from analysis.bundles.bundle_store import FORMAT, RECORDS, BundleRecord, BundleStore, RunRecord
from analysis.bundles.crate import describe_files
from analysis.bundles.results_record import compute_results
from analysis.reading import tags
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.registration import FILE as REGISTRATION
from analysis.reading.run import Run
from analysis.reading.run_reader import check_file
from analysis.reading.run_store import RunStore
from nas.foundation.errors import UserError
from nas.foundation.files import read_file

_CONFIG, _TABLE = "config.yaml", "latency_table.json"

_TABLE_LINE = re.compile(rb"^latency_table: (?!null$).*\n(?: .*\n)*", re.MULTILINE)
"""A long path goes on in the next lines."""

_KINDS = ("launch", "search", "train")

_FILES = {
    "search": (
        *("trajectory.npz", "metrics.csv", "architecture.json", "health.json", "evaluations.csv"),
        *(_CONFIG, _TABLE),
    ),
    "train": ("architecture.json", _CONFIG),
    "launch": (REGISTRATION, "study.json", "trials.csv"),
}
"""Files that are taken of runs, by their kind: no weights and no figures."""

_SOURCE_TAG, _LAUNCHED_FROM = "mlflow.source.name", "tfnas launch "
"""The command of a launch ends with the name of its YAML file."""

_KEPT_TAGS = frozenset(
    {
        *(value for name, value in vars(tags).items() if name.isupper() and name != "UNKNOWN"),
        *("tfnas.claims", "tfnas.factors", "tfnas.health", "tfnas.health_findings"),
        "mlflow.source.git.commit",
    }
)
"""What analysis reads, and the commit; who ran it, on which host and into which folder stays private."""


def write_bundle(name: str, store: RunStore) -> tuple[bytes, list[str]]:
    """Returns the bundle of an experiment, and a line for each file that is left out as nobody can read it.

    It holds every run of the experiment, also those that figures leave out.

    Raises:
        UserError: no such experiment, or no finished search in it.
    """
    stored = store.read_experiment(name)
    runs = [run for run in stored.runs if run.kind in _KINDS]
    # The order of MLflow, and one for runs that start at once.
    runs.sort(key=lambda run: (-run.start_time_ms, run.run_id))
    members = _Members()
    records = [_record(run, store, members) for run in runs]
    record = BundleRecord(
        format=FORMAT,
        tfnas=version("tfnas"),
        experiment=name,
        experiment_id=stored.experiment_id,
        views=sorted(stored.views),
        runs=records,
    )
    files = members.content | {RECORDS: record.to_bytes()}
    # Whoever gets the bundle computes the results from what is in it, and so do we.
    written = BundleStore.of(f"experiment '{name}'", files)
    files |= compute_results(read_experiment(name, written))
    newest_ms = max(run.start_time_ms for run in runs)
    files[CRATE] = describe_files(files, name, version("tfnas"), newest_ms)
    return pack(files), members.unreadable


class _Members:
    """Files of a bundle by path; what several runs share is kept once.

    Attributes:
        unreadable: a line for each file that is left out.
    """

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.unreadable: list[str] = []
        self._paths: dict[tuple[str, str], str] = {}

    def add(self, path: str, content: bytes) -> str:
        """Adds a file; returns the path of the one with this content."""
        kept = self._paths.setdefault((path.rpartition("/")[2], sha256(content)), path)
        self.content[kept] = content
        return kept


def _record(run: Run, store: RunStore, members: _Members) -> RunRecord:
    folder = f"runs/{_plain(run.name)[:60]}-{_plain(run.run_id)[:8]}"
    files = {}
    for path in _fetch(run, store):
        try:
            check_file(path)
        except UserError as error:
            members.unreadable.append(f"left out: run {run.name} ({run.short_id}): {error}")
            continue
        content = read_file(path, f"a file of run {run.name}")
        if path.name == _CONFIG:
            content = _TABLE_LINE.sub(f"latency_table: {_TABLE}\n".encode(), content)
        files[path.name] = members.add(f"{folder}/{_plain(path.name)}", content)
    return RunRecord.of(replace(run, config=_config_here(run.config)), _kept_tags(run.tags), files)


def _config_here(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose lookup table is the file in the bundle, not a path of the machine that searched."""
    return {**config, **({"latency_table": _TABLE} if config.get("latency_table") else {})}


def _fetch(run: Run, store: RunStore) -> Iterator[Path]:
    """The files of a run, while they are there; of a launch also its YAML file."""
    spec = run.tags.get(_SOURCE_TAG, "").removeprefix(_LAUNCHED_FROM)
    names = (*_FILES[run.kind], *((spec,) if run.kind == "launch" and spec else ()))
    with TemporaryDirectory() as folder:
        for name in names:
            path = store.fetch(run, name, Path(folder))
            if path is not None:
                yield path


def _kept_tags(run_tags: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in run_tags.items() if name in _KEPT_TAGS or name.startswith("factor.")
    }


def _plain(name: str) -> str:
    """The name with nothing that a path in a bundle must not have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".-") or "_"
