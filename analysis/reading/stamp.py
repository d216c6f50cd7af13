"""From which runs a file was made: a JSON file beside it."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from analysis.reading.experiment import Experiment, Run


def write_stamp(
    name: str, title: str, caption: str, runs: Iterable[Run], experiment: Experiment, paths: list[Path]
) -> Path:
    """Writes `NAME.json` beside the files that were made from these runs."""
    stamp = {
        "name": name,
        "title": title,
        "caption": caption,
        "experiment": experiment.name,
        "table_fingerprint": experiment.provenance.table_fingerprint,
        "code_version": experiment.provenance.code_version,
        "analysis_version": version("tfnas"),
        "runs": [run_stamp(run) for run in runs],
        "files": {path.name: sha256(path.read_bytes()) for path in paths},
    }
    path = paths[0].parent / f"{name}.json"
    path.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    return path


def run_stamp(run: Run) -> dict[str, str]:
    """What identifies a run and all that was read of it."""
    content = hashlib.sha256(json.dumps(dict(run.metrics), sort_keys=True).encode())
    if run.trajectory is not None:
        for array in vars(run.trajectory).values():
            content.update(str(array).encode() if isinstance(array, str) else array.tobytes())
    if run.epochs is not None:
        content.update(run.epochs.to_numpy().tobytes())
    return {
        "run_id": run.run_id,
        "name": run.name,
        "cell": run.tags.get("tfnas.cell", "unknown"),
        "config_sha256": sha256(json.dumps(dict(run.config), sort_keys=True).encode()),
        "content_sha256": content.hexdigest(),
    }


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
