"""Networks to train, as people name them: files, names, and results of searches."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments.tracking.named_run import EXPERIMENT_PREFIX, RUN_PREFIX, NamedRun, find_run, find_searches
from nas.space.baselines import ARCHITECTURE_NAMES, BASELINE_NAMES, find_architecture


@dataclass(frozen=True)
class NamedNetwork:
    """A network to train.

    Attributes:
        reference: as a person names it; `run:RUN_ID` for the result of a search.
        architecture: for `TrainConfig`: a file, or a name that comes with the package.
        name: for people.
        search: the run that found it, if one did.
    """

    reference: str
    architecture: str
    name: str
    search: NamedRun | None = None


def find_networks(references: Iterable[str], out: Path) -> list[NamedNetwork]:
    """Finds the named networks; the network of each search counts once.

    Args:
        references: architecture files, names, `run:RUN_ID`, or `experiment:NAME` for all of its
            finished searches.
        out: folder of the launch whose runs are named.

    Raises:
        UserError: there is no such file, name, run or experiment, or a search is not finished.
    """
    networks: list[NamedNetwork] = []
    found: set[str] = set()
    for reference in references:
        for search in _searches(reference, out):
            if search.run_id not in found:
                networks.append(_of_search(search))
                found.add(search.run_id)
        if not is_run(reference):
            find_architecture(reference)
            networks.append(NamedNetwork(reference, reference, Path(reference).stem))
    return networks


def is_run(reference: str) -> bool:
    """Whether a reference names searches in MLflow."""
    return reference.startswith((RUN_PREFIX, EXPERIMENT_PREFIX))


def resolve_file(reference: str, folder: Path) -> str:
    """The reference, with an absolute path if it is a file.

    Args:
        folder: what relative paths are relative to.
    """
    is_name = reference in (*ARCHITECTURE_NAMES, *BASELINE_NAMES)
    return reference if is_run(reference) or is_name else str(folder / reference)


def _searches(reference: str, out: Path) -> list[NamedRun]:
    if reference.startswith(RUN_PREFIX):
        return [find_run(reference, out)]
    return find_searches(reference, out) if reference.startswith(EXPERIMENT_PREFIX) else []


def _of_search(search: NamedRun) -> NamedNetwork:
    path = search.fetch("architecture.json", "name a finished search")
    return NamedNetwork(f"{RUN_PREFIX}{search.run_id}", str(path), search.name, search)
