"""The model registry of MLflow: an exported network as a version of a registered model."""

import re
from hashlib import sha256
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from experiments.tracking.named_run import NamedRun

_FILE_TAG = "tfnas.file_sha256"
_MAX_DESCRIPTION = 5000


def register(run: NamedRun, model_uri: str, file: Path, card: str) -> str | None:
    """Registers an exported network; the same file is registered once.

    Args:
        run: the training.
        model_uri: of the model that was logged, which holds the file.
        card: for the description.

    Returns:
        `models:/NAME/VERSION`; None if the store has no registry.

    Raises:
        MlflowException: the registry cannot be used.
    """
    client, digest = run.client, sha256(file.read_bytes()).hexdigest()
    name = re.sub(r"[^\w.=~-]+", "_", f"{run.experiment}-{run.name}")
    try:
        client.create_registered_model(name, tags={"tfnas.experiment": run.experiment})
    except MlflowException as error:
        if error.error_code == "ENDPOINT_NOT_FOUND":
            return None
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions: list[ModelVersion] = client.search_model_versions(f"name = '{name}'")
    for version in versions:
        if version.tags.get(_FILE_TAG) == digest:
            return f"models:/{name}/{version.version}"
    created = client.create_model_version(
        name,
        source=model_uri,
        run_id=run.run_id,
        tags={_FILE_TAG: digest, "tfnas.file": file.name},
        description=card[:_MAX_DESCRIPTION],
    )
    return f"models:/{name}/{created.version}"
