"""Saved views of an experiment: the columns and charts with which MLflow's own interface shows its runs.

MLflow keeps a view as a tag of the experiment, lists it in the menu Views, and opens it by address. Without
one it nests runs in a closed row of their launch, and shows neither settings nor results.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient

from experiments.tracking.store_access import open_store, reaching

_TAG = "mlflow.sharedViewState."
_BY_NAME = "tags.`mlflow.runName`"

_MAX_LENGTH = 5000
"""Of a tag of an experiment."""

_METRICS = {
    "search": ("val_accuracy", "derived_latency_ms"),
    "train": ("test_accuracy", "val_accuracy"),
}
_CHARTS = {
    "search": ("val_accuracy", "derived_latency_ms", "derived_depth", "train_loss"),
    "train": ("val_accuracy", "train_loss"),
}
_NAMES = {"search": "Searches", "train": "Trainings"}


@dataclass(frozen=True)
class SavedView:
    """A view of the runs of one kind.

    Attributes:
        kind: of the runs, see `tfnas.kind`.
        params: with a column each.
        metrics: the same.
        charts: metrics with a line chart each, over epochs.
    """

    kind: str
    name: str
    params: Sequence[str]
    metrics: Sequence[str]
    charts: Sequence[Sequence[str]]

    @classmethod
    def of_cells(cls, kind: str, factors: Sequence[str]) -> "SavedView":
        """The view of the searches or trainings of a grid.

        Args:
            factors: the config fields in which they differ.
        """
        params = tuple(dict.fromkeys((*factors, "seed")))
        return cls(kind, _NAMES[kind], params, _METRICS[kind], [(name,) for name in _CHARTS[kind]])

    @property
    def key(self) -> str:
        """Identifies it in an address."""
        return f"tfnas-{self.kind}"

    @property
    def state(self) -> dict[str, Any]:
        """The content, as MLflow reads it.

        Runs are sorted by name: sorted by date, MLflow adds the launches and nests the runs below them.
        """
        params = [f"params.`{name}`" for name in self.params]
        metrics = [f"metrics.`{name}`" for name in self.metrics]
        tags = ["tags.`tfnas.health`"] if self.kind == "search" else []
        return {
            "searchFilter": f"tags.`tfnas.kind` = '{self.kind}'",
            "orderByKey": _BY_NAME,
            "orderByAsc": True,
            "selectedColumns": [*params, *metrics, *tags],
            "compareRunSections": [
                {"uuid": "tfnas", "name": self.name, "display": True, "isReordered": False, "columns": 2}
            ],
            "compareRunCharts": [_line_chart(metrics) for metrics in self.charts],
        }


LAUNCHES = SavedView("launch", "Launches", (), (), ())
"""The view of launches, whose artifacts are report, figures and tables."""


def save_view(uri: str, experiment_id: str, view: SavedView) -> None:
    """Saves a view of an experiment, unless it is there or a person has changed it.

    Raises:
        UserError: the tracking server is unreachable.
    """
    client = open_store(uri)
    with reaching(uri):
        _save(client, experiment_id, view)


def _save(client: MlflowClient, experiment_id: str, view: SavedView) -> None:
    tag, state = f"{_TAG}{view.key}", json.dumps(view.state, separators=(",", ":"))
    saved = _read(client.get_experiment(experiment_id).tags.get(tag))
    if saved is not None and (saved.get("state") == state or saved["updatedAt"] != saved["createdAt"]):
        return
    now_ms = time.time_ns() // 1_000_000
    content = json.dumps({"name": view.name, "createdAt": now_ms, "updatedAt": now_ms, "state": state})
    if len(content) <= _MAX_LENGTH:
        client.set_experiment_tag(experiment_id, tag, content)


def _read(content: str | None) -> dict[str, Any] | None:
    """What a tag holds; None for anything but a view."""
    try:
        found = json.loads(content or "null")
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"createdAt", "updatedAt"} <= found.keys() else None


def _line_chart(metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "LINE",
        "uuid": f"tfnas-{metrics[0]}",
        "metricSectionId": "tfnas",
        "deleted": False,
        "isGenerated": False,
        "displayName": metrics[0],
        "metricKey": metrics[0],
        "selectedMetricKeys": list(metrics),
        "runsCountToCompare": 10,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "scaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
