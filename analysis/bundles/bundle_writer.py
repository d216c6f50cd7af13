"""The writer of bundles: an experiment with all its runs, their files and the results, in one file."""

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.bundles.archive import CRATE, pack, sha256
from analysis.bundles.bundle_store import FORMAT, RECORDS, BundleRecord, BundleStore, RunRecord
from analysis.bundles.crate import describe_files
from analysis.bundles.results_record import compute_results
from analysis.reading import tags
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.registration import FILE as REGISTRATION
from analysis.reading.registration import parse_registration
from analysis.reading.run import Run
from analysis.reading.run_reader import read_files
from analysis.reading.run_store import RunStore
from nas.foundation.files import read_file
from nas.foundation.validation import parse_json

_KINDS = ("launch", "search", "train")

_FILES = {
    "search": (
        *("trajectory.npz", "metrics.csv", "architecture.json", "health.json", "evaluations.csv"),
        *("config.yaml", "latency_table.json"),
    ),
    "train": ("architecture.json", "config.yaml"),
    "launch": (REGISTRATION, "study.json", "trials.csv"),
}
"""Files that are taken of runs, by their kind: no weights and no figures."""

_KEPT_TAGS = frozenset(
    {
        *(value for name, value in vars(tags).items() if name.isupper() and name != "UNKNOWN"),
        *("tfnas.claims", "tfnas.factors", "tfnas.health", "tfnas.health_findings"),
        "mlflow.source.git.commit",
    }
)
"""What analysis reads, and the commit; who ran it, on which host and into which folder stays private."""


def write_bundle(name: str, store: RunStore) -> bytes:
    """Returns the bundle of an experiment: every run of it, those that figures leave out included.

    Raises:
        UserError: no such experiment, no finished search in it, or a file of a run is damaged.
    """
    stored = store.read_experiment(name)
    runs = sorted((run for run in stored.runs if run.kind in _KINDS), key=lambda run: run.run_id)
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
    read_files([run for run in runs if run.kind == "search" and run.is_finished], written)
    newest_ms = max(run.start_time_ms for run in runs)
    files[CRATE] = describe_files(files, name, version("tfnas"), newest_ms)
    return pack(files)


class _Members:
    """Files of a bundle by path; what several runs share is kept once."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self._paths: dict[tuple[str, str], str] = {}

    def add(self, path: str, content: bytes) -> str:
        """Adds a file; returns the path of the one with this content."""
        kept = self._paths.setdefault((path.rpartition("/")[2], sha256(content)), path)
        self.content[kept] = content
        return kept


def _record(run: Run, store: RunStore, members: _Members) -> RunRecord:
    folder = f"runs/{_plain(run.name)[:60]}-{_plain(run.run_id)[:8]}"
    files = {name: members.add(f"{folder}/{_plain(name)}", content) for name, content in _fetch(run, store)}
    return RunRecord.of(run, _kept_tags(run.tags), files)


def _fetch(run: Run, store: RunStore) -> Iterator[tuple[str, bytes]]:
    """The files of a run, by name; of a launch also its YAML file, which the registration names."""
    with TemporaryDirectory() as folder:

        def fetch(names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
            for name in names:
                path = store.fetch(run, name, Path(folder))
                if path is not None:
                    yield name, read_file(path, f"a file of run {run.name}")

        for name, content in fetch(_FILES[run.kind]):
            yield name, content
            if name == REGISTRATION:
                yield from fetch([parse_registration(parse_json(content)).file])


def _kept_tags(run_tags: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in run_tags.items() if name in _KEPT_TAGS or name.startswith("factor.")
    }


def _plain(name: str) -> str:
    """The name with nothing that a path in a bundle must not have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".-") or "_"
