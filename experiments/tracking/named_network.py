"""Networks to train, as people name them: files, names, results of searches, and whole spaces."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.tracking.named_run import NamedRun, find_run, find_searches
from experiments.tracking.short_names import EXPERIMENT_PREFIX, RUN_PREFIX, SPACE_PREFIX, as_run
from nas.foundation.errors import UserError
from nas.space.architecture import Architecture
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import SPACES
from nas.space.network_names import ARCHITECTURE_NAMES, BASELINE_NAMES, find_architecture


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


def find_networks(references: Iterable[str], out: Path, files: Path | None = None) -> list[NamedNetwork]:
    """Finds the named networks; the network of each search counts once.

    Args:
        references: architecture files, names, `run:RUN` (its id, the first digits of it, or its name, also
            without `run:`), `experiment:NAME` for all of its finished searches, or `space:NAME` for all
            networks of a small space.
        out: folder of the launch whose runs are named.
        files: folder for the files of networks; None for the same.

    Raises:
        UserError: there is no such file, name, run, experiment or space, a search is not finished, or the
            space has too many networks.
    """
    networks: list[NamedNetwork] = []
    found: set[str] = set()
    for named in references:
        reference = as_run(named, out)
        for search in _searches(reference, out):
            if search.run_id not in found:
                networks.append(_of_search(replace(search, out=files or out)))
                found.add(search.run_id)
        if reference.startswith(SPACE_PREFIX):
            networks += _of_space(reference, files or out)
        elif not is_run(reference):
            find_architecture(reference)
            networks.append(NamedNetwork(reference, reference, Path(reference).stem))
    return networks


def is_run(reference: str) -> bool:
    """Whether a reference names searches in MLflow."""
    return reference.startswith((RUN_PREFIX, EXPERIMENT_PREFIX))


def check_network(reference: str) -> None:
    """Checks that a network, or a space, is there; searches are looked up when they are needed.

    Raises:
        UserError: it is not.
    """
    if reference.startswith(SPACE_PREFIX):
        next(all_architectures(SPACES[reference.removeprefix(SPACE_PREFIX)]))
    elif not is_run(reference):
        find_architecture(reference)


def resolve_file(reference: str, folder: Path) -> str:
    """The reference, with an absolute path if it is a file.

    Args:
        folder: what relative paths are relative to.
    """
    is_name = reference in (*ARCHITECTURE_NAMES, *BASELINE_NAMES)
    if is_name or is_run(reference) or reference.startswith(SPACE_PREFIX):
        return reference
    return str(folder / os.path.expanduser(reference))


def _searches(reference: str, out: Path) -> list[NamedRun]:
    if reference.startswith(RUN_PREFIX):
        return [find_run(reference, out)]
    return find_searches(reference, out) if reference.startswith(EXPERIMENT_PREFIX) else []


def _of_space(reference: str, files: Path) -> list[NamedNetwork]:
    space = SPACES[reference.removeprefix(SPACE_PREFIX)]
    folder = files / "networks" / space.name
    folder.mkdir(parents=True, exist_ok=True)
    networks = []
    for architecture in all_architectures(space):
        name = f"{space.name}-{operator_code(architecture, space)}"
        path = folder / f"{name}.json"
        if not _holds(path, architecture):
            architecture.save(path)
        networks.append(NamedNetwork(f"{reference}/{name}", str(path), name))
    return networks


def _holds(path: Path, architecture: Architecture) -> bool:
    """Whether a file is there already; the space may have changed since it was written."""
    try:
        return Architecture.load(path) == architecture
    except UserError:
        return False


def _of_search(search: NamedRun) -> NamedNetwork:
    path = search.fetch("architecture.json", "name a finished search")
    return NamedNetwork(f"{RUN_PREFIX}{search.run_id}", str(path), search.name, search)
