"""The runs behind a file: a JSON file beside it that lists them."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from analysis.reading import tags
from analysis.reading.experiment import Experiment
from analysis.reading.run import NOT_A_SETTING, Run, describe_makers
from nas.search.health import checks_to_json


def write_stamp(
    name: str,
    title: str,
    caption: str,
    runs: Iterable[Run],
    experiment: Experiment,
    paths: list[Path],
    **about: Any,
) -> Path:
    """Writes `NAME.json` beside the files that were made from these runs.

    Args:
        about: what else the reader of such files needs to know.
    """
    runs = tuple(runs)
    stamp = {
        "name": name,
        "title": title,
        "caption": caption,
        "experiment": experiment.name,
        "table_fingerprint": experiment.basis.table_fingerprint,
        "results_version": experiment.basis.results_version,
        **{noun.replace(" ", "_"): found for noun, found in describe_makers(runs).items()},
        "analysis_version": version("tfnas"),
        **about,
        "runs": [run_stamp(run) for run in runs],
        "files": {path.name: sha256(path.read_bytes()) for path in paths},
    }
    path = paths[0].parent / f"{name}.json"
    path.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    return path


def run_stamp(run: Run) -> dict[str, str]:
    """Returns what identifies a run, its settings, and everything that was read of it."""
    content = hashlib.sha256(json.dumps(dict(run.metrics), sort_keys=True).encode())
    if run.trajectory is not None:
        for _, array in sorted(vars(run.trajectory).items()):
            content.update(
                str(array).encode() if array is None or isinstance(array, str) else array.tobytes()
            )
    if run.epochs is not None:
        content.update(run.epochs.to_numpy().tobytes())
    if run.evaluations is not None:
        content.update(run.evaluations.to_csv().encode())
    if run.architecture is not None:
        content.update(run.architecture.model_dump_json().encode())
    if run.health is not None:
        content.update(json.dumps(checks_to_json(run.health)).encode())
    settings = {name: value for name, value in run.config.items() if name not in NOT_A_SETTING}
    return {
        "run_id": run.run_id,
        "name": run.name,
        "cell": run.tag(tags.CELL),
        "config_sha256": sha256(json.dumps(settings, sort_keys=True).encode()),
        "content_sha256": content.hexdigest(),
    }


def sha256(content: bytes) -> str:
    """Returns the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
