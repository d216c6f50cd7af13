"""What runs are read from: an MLflow store, or a bundle, which needs no store."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from analysis.reading.run import Run


@dataclass(frozen=True)
class ExperimentRuns:
    """All runs of an experiment, without their files.

    Attributes:
        views: kinds of runs that MLflow has a saved view of.
    """

    name: str
    experiment_id: str
    views: frozenset[str]
    runs: tuple["Run", ...]


class RunStore(Protocol):
    """Where the runs of experiments are, and their files.

    Attributes:
        tracking_uri: address of the MLflow store, for links; empty if there is none.
        name: of the store, for errors.
        refuses_damage: whether a file that cannot be read is an error; else it is a notice on its run.
    """

    @property
    def tracking_uri(self) -> str: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def refuses_damage(self) -> bool: ...  # noqa: D102

    def is_slow(self, run: "Run") -> bool:
        """Whether each file of a run takes a request."""

    def read_experiment(self, name: str) -> ExperimentRuns:
        """Reads the runs of an experiment.

        Raises:
            UserError: there is no such experiment, or the store cannot be read.
        """

    def find_runs(self, name: str) -> list["Run"]:
        """Finds runs of any experiment by their name, or by their id or its first digits.

        Raises:
            UserError: there is none, which offers near names; or the store cannot be read.
        """

    def fetch(self, run: "Run", name: str, folder: Path) -> Path | None:
        """Returns the path of a file of a run; None if the run has none of that name.

        Args:
            folder: where the file goes, if it is not a file of this machine yet.

        Raises:
            UserError: the store cannot be read.
        """


def store_at(store: RunStore | str) -> RunStore:
    """Returns the store itself, or the MLflow store of an address."""
    if not isinstance(store, str):
        return store
    # Here, since MLflow takes seconds to import, and bundles are read without it.
    from analysis.reading.store import MlflowStore

    return MlflowStore(store)


def no_such_run(name: str, known: list[str]) -> str:
    """What to say where no run has that name: the names that are near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(dict.fromkeys(known)), cutoff=0.5)
    offered = f" (near names: {', '.join(near)})" if near else ""
    return f"run '{name}': there is none{offered}; give the name or the first digits of the id of a run"
