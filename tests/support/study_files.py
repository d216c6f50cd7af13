"""Studies that tests launch: the smallest searches there are."""

import os
import sys
from pathlib import Path
from typing import Any

import optuna
import yaml

from experiments.specs.grid_file import load_grid
from experiments.specs.study_grid import StudyGrid
from nas.foundation.uris import sqlite_uri
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

BASE = {
    "space": "micro",
    "max_train_images": 60,
    "batch_size": 8,
    "augmentation": "none",
    "target_latency_ms": "50%",
    "latency_table": "table.json",
    "num_epochs": 2,
    "num_warmup_epochs": 1,
}
RATES = {"low": 0.01, "high": 0.2, "log": True}
ACCURACY = {"metric": "val_accuracy", "direction": "maximize"}
ERROR = {"metric": "abs_latency_error_percent", "direction": "minimize"}
FINDINGS = {"metric": "num_health_findings", "direction": "minimize"}


def make_study(**changes: Any) -> dict[str, Any]:
    """The content of a file with a study of four points; changes are of its `study` section."""
    study = {
        "space": {"weight_lr": RATES},
        "sampler": "random",
        "objectives": [ACCURACY],
        "budget": {"num_trials": 4},
    }
    return {"experiment": "studied", "base": BASE, "study": study | changes}


def write_study(folder: Path, content: dict[str, Any]) -> Path:
    """Writes the file, and the lookup table that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "table.json").exists():
        make_dense_table(get_space("micro")).save(folder / "table.json")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def load_plan(path: Path) -> StudyGrid:
    """The plan of a file with a study."""
    plan = load_grid(path)
    assert isinstance(plan, StudyGrid)
    return plan


def command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """`tfnas` with its environment."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    line = [sys.executable, "-c", "from experiments.cli.main import main; main()", *arguments]
    return line, environment | {"OMP_NUM_THREADS": "1"}


def load(out: Path) -> optuna.Study:
    """The study as anybody opens it, `optuna-dashboard` for instance."""
    return optuna.load_study(study_name="studied", storage=sqlite_uri(out / "study.db"))
