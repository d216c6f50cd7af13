"""Latency of trained networks, measured in turn with EfficientNet-B0 where they were trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from experiments.cells.cell import Cell
from experiments.cells.training_cell import SEARCH_RUN_TAG
from experiments.places.place import Place
from experiments.tracking.named_run import find_run
from experiments.tracking.short_names import RUN_PREFIX
from experiments.tracking.tracked_cells import TrackedCell
from experiments.tracking.tracker import Tracker
from nas.config import TrainConfig
from nas.data.datasets import DATASETS
from nas.foundation.device import resolve_device
from nas.foundation.identity import fingerprint
from nas.latency.calibration import NetworkTiming, compare_networks
from nas.latency.quiet import measure_load
from nas.latency.table import LatencyTable, Provenance
from nas.latency.timing import device_name, make_images, prepare_network
from nas.space.baselines import make_network
from nas.training.training import NetworkChoice

REFERENCE = "efficientnet_b0"
"""The network that every other is compared with."""

SESSION_TAG = "tfnas.latency_session"
CONDITIONS_TAG = "tfnas.latency_conditions"
UPPER_BOUND_TAG = "tfnas.latency_is_upper_bound"

_MAX_WAITS = 6


@dataclass(frozen=True)
class Session:
    """Networks that were timed in turn.

    Attributes:
        conditions: batch size, device and versions, in one line.
        is_upper_bound: whether other processes were using the machine.
    """

    timings: list[NetworkTiming]
    conditions: str
    is_upper_bound: bool


def measure_trained(
    cells: Sequence[Cell], out: Path, place: Place, tracker: Tracker, report: Callable[[str], None]
) -> None:
    """Measures the latency of what cells trained, unless that is done; no trial may be running.

    All networks are timed in turn, in one session on an idle machine.

    Args:
        cells: finished ones; searches train nothing and are left out.
        out: output folder of the launch.
        place: where the networks were trained, and are timed.
        tracker: receives the latencies.

    Raises:
        UserError: the tracking server is unreachable, or lacks what it needs of a search.
    """
    networks = {cell.hash: cell.network for cell in cells if cell.network}
    trainings = [cell for cell in cells if cell.hash in networks]
    if not trainings or not needs_measuring(trainings, tracker.cells()):
        return
    resolution = max(network.resolution for network in networks.values())
    distinct = {_key(each): each for each in (NetworkChoice(REFERENCE, resolution), *networks.values())}
    report(f"Measuring the latency of {len(distinct)} networks in turn, now that no trial runs ...")
    table = _shared_table(trainings, out)
    session = place.run(time_session, [*distinct.values()], trainings[0].config, table, alone=True)
    timings = dict(zip(distinct, session.timings, strict=True))
    tags = {
        SESSION_TAG: datetime.now(UTC).isoformat(timespec="seconds"),
        CONDITIONS_TAG: session.conditions,
        UPPER_BOUND_TAG: str(session.is_upper_bound),
    }
    for key, network in networks.items():
        tracker.annotate(key, _metrics(timings[_key(network)]), tags)


def needs_measuring(cells: Sequence[Cell], tracked: Mapping[str, TrackedCell]) -> bool:
    """Whether the latencies of these trainings do not all come from one session on an idle machine."""
    tags = [tracked[cell.hash].tags for cell in cells]
    sessions = {run.get(SESSION_TAG) for run in tags}
    return len(sessions) != 1 or None in sessions or any(run.get(UPPER_BOUND_TAG) == "True" for run in tags)


def time_session(choices: list[NetworkChoice], config: TrainConfig, table: Provenance | None) -> Session:
    """Times networks in turn, on this machine.

    Args:
        choices: EfficientNet-B0 first.
        config: names the dataset, and so the number of classes.
        table: provenance of the lookup table that the networks were searched with. If it is of this
            device, they are timed as it was measured; otherwise one image at a time on one CPU thread.
    """
    device, batch_size, num_threads = _conditions(table)
    num_classes = len(DATASETS[config.dataset].class_names(config))
    networks = [
        (
            prepare_network(make_network(choice.network, num_classes, choice.resolution), device),
            make_images(choice.resolution, batch_size, device),
        )
        for choice in choices
    ]
    # Gives the processes of trials time to end.
    is_busy = all(measure_load().is_busy for _ in range(_MAX_WAITS))
    timings = compare_networks(networks, num_threads=num_threads)
    threads = "" if device.type == "cuda" else f"threads {num_threads}, "
    conditions = (
        f"batch size {batch_size}, {threads}{device_name(device)}, torch {torch.__version__}; "
        f"EfficientNet-B0 {timings[0].median_ms:.3g} ms"
    )
    return Session(timings, conditions, is_busy)


def _conditions(table: Provenance | None) -> tuple[torch.device, int, int]:
    """Device, batch size and CPU threads."""
    if table is not None:
        is_cuda = table.device_type == "cuda" and torch.cuda.is_available()
        device = resolve_device("cuda" if is_cuda else "cpu")
        if table.device_name == device_name(device):
            return device, table.batch_size or 1, table.num_threads or 1
    return torch.device("cpu"), 1, 1


def _shared_table(cells: Sequence[Cell], out: Path) -> Provenance | None:
    """Provenance of the lookup table that all these networks were searched with; None without such a one."""
    searches = {cell.tags.get(SEARCH_RUN_TAG) for cell in cells} - {None}
    found = [find_run(f"{RUN_PREFIX}{run_id}", out) for run_id in searches]
    tables = {run.run.data.tags.get("tfnas.table_fingerprint"): run for run in found}
    if len(tables) != 1:
        return None
    (run,) = tables.values()
    return LatencyTable.load(run.fetch("latency_table.json", "rerun the search")).provenance


def _key(choice: NetworkChoice) -> str:
    return fingerprint(choice.identity())


def _metrics(timing: NetworkTiming) -> dict[str, float]:
    return {
        "measured_latency_ms": timing.median_ms,
        "measured_latency_iqr_ms": timing.iqr_ms,
        "latency_ratio_to_efficientnet_b0": timing.ratio,
    }
