"""What a run was made from, as MLflow's datasets: its images and its lookup table, by fingerprint."""

import json
from collections.abc import Mapping
from pathlib import PurePath

from mlflow.entities import Dataset, DatasetInput, InputTag

from experiments.cells.cell_folder import RunDescription

_NUM_DIGITS = 32
"""Of a fingerprint; MLflow takes 36 characters."""


def inputs_of(description: RunDescription) -> list[DatasetInput]:
    """The inputs of a cell; paths stay on this machine, where they may name people and projects."""
    tags, params = description.tags, description.params
    contents = {
        "images": (_name_images(params), tags.get("tfnas.data_fingerprint")),
        "lookup table": (f"latency of {params.get('space')}", tags.get("tfnas.table_fingerprint")),
    }
    return [
        DatasetInput(_dataset(name, digest), [InputTag("mlflow.data.context", context)])
        for context, (name, digest) in contents.items()
        if digest
    ]


def _name_images(params: Mapping[str, str]) -> str:
    """The name of their list or folder, else of the data set."""
    given = (params.get(field, "None") for field in ("train_list", "data_dir"))
    path = next((path for path in given if path != "None"), "")
    return PurePath(path).name or params.get("dataset", "images")


def _dataset(name: str, digest: str) -> Dataset:
    source = json.dumps({"name": name, "fingerprint": digest})
    return Dataset(name, digest[:_NUM_DIGITS], source_type="tfnas", source=source)
