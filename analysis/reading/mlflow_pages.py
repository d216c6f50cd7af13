"""Addresses of pages in MLflow's own interface, and how to open it.

MLflow 3 has two workflow types and shows the one that its user looked at last, at first that of traces, on
which an experiment looks empty. Only the address of a page can choose the one that shows runs.
"""

from shlex import quote
from urllib.parse import quote as quote_path

from nas.foundation.uris import redact, sqlite_path

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves, unless another port is given."""

_VIEW_TAG = "mlflow.sharedViewState."
_WORKFLOW = "workflowType=machine_learning"


def views_in(tags: dict[str, str]) -> frozenset[str]:
    """The kinds of runs that an experiment has a saved view of, by its tags."""
    prefix = f"{_VIEW_TAG}tfnas-"
    return frozenset(name.removeprefix(prefix) for name in tags if name.startswith(prefix))


def experiment_page(
    tracking_uri: str, experiment_id: str, view: str | None = None, *, shows_charts: bool = False
) -> str:
    """The page with the runs of an experiment.

    Args:
        view: kind of the runs to show, of which the experiment has a saved view; None for all runs. MLflow
            shows an error and no run for a view that is not there.
        shows_charts: whether it opens on charts in place of the table.
    """
    chosen = f"&viewStateShareKey=tfnas-{view}" if view else ""
    charts = "&compareRunsMode=CHART" if shows_charts else ""
    return f"{_server(tracking_uri)}/#/experiments/{experiment_id}/runs?{_WORKFLOW}{chosen}{charts}"


def run_page(tracking_uri: str, experiment_id: str, run_id: str) -> str:
    """The page of a run."""
    return f"{_server(tracking_uri)}/#/experiments/{experiment_id}/runs/{run_id}?{_WORKFLOW}"


def how_to_serve(tracking_uri: str, *, in_its_folder: bool = False) -> str | None:
    """The command that serves a store; None for a store with a server of its own.

    Args:
        in_its_folder: whether it is run in the folder of an SQLite file, wherever that is by then.
    """
    if tracking_uri.startswith("http"):
        return None
    path = sqlite_path(tracking_uri)
    uri = f"sqlite:///{quote_path(path.name)}" if in_its_folder and path else redact(tracking_uri)
    return f"mlflow ui --backend-store-uri {quote(uri)}"


def how_to_look(tracking_uri: str, experiment_id: str, view: str | None = None) -> list[str]:
    """How to look at the runs of an experiment, a line for each step; see `experiment_page`."""
    page = experiment_page(tracking_uri, experiment_id, view)
    command = how_to_serve(tracking_uri)
    return [f"see them at {page}"] if command is None else [f"see them with: {command}", f"and open {page}"]


def _server(tracking_uri: str) -> str:
    return redact(tracking_uri, user="").rstrip("/") if tracking_uri.startswith("http") else LOCAL_SERVER
