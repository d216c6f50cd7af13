"""Networks that a search found, from its run in MLflow."""

import os
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from experiments.tracking import tracking_uri
from nas.architecture import Architecture
from nas.errors import UserError

# Else a bar is drawn for every file.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

RUN_PREFIX = "run:"
ARTIFACT = "architecture.json"


@dataclass(frozen=True)
class SearchedNetwork:
    """The network of a search.

    Attributes:
        path: its architecture file, on this machine.
        name: of the run.
    """

    run_id: str
    path: Path
    name: str
    experiment: str


def fetch_searched_network(reference: str, out: Path) -> SearchedNetwork:
    """Downloads the architecture of `run:RUN_ID` into an output folder.

    Raises:
        UserError: the store has no such run, or the run has no architecture.
    """
    run_id, uri = reference.removeprefix(RUN_PREFIX), tracking_uri(out)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(f"{reference}: no MLflow store in {out}; name the folder of the search with --out")
    client = MlflowClient(uri)
    try:
        run = client.get_run(run_id)
        experiment = client.get_experiment(run.info.experiment_id)
    except MlflowException as error:
        raise UserError(
            f"{reference}: not in {uri} ({_first_line(error)}); correct the id, or name the folder of the "
            "search with --out"
        ) from None
    folder = out / "searched" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        path = client.download_artifacts(run_id, ARTIFACT, str(folder))
    except (MlflowException, OSError):
        raise UserError(
            f"{reference}: run '{run.info.run_name}' ({run.info.status}) has no {ARTIFACT}; "
            "name a search that is finished"
        ) from None
    Architecture.load(path)
    return SearchedNetwork(run_id, Path(path), str(run.info.run_name), str(experiment.name))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
