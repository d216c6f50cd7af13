"""How fast trained networks are, measured in turn with EfficientNet-B0 where they were trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from experiments.cells.cell import TrainingCell
from experiments.places.place import Place
from experiments.tracking.named_run import RUN_PREFIX, find_run
from experiments.tracking.tracker import TrackedCell
from nas.config import TrainConfig
from nas.data.datasets import DATASETS
from nas.foundation.device import resolve_device
from nas.foundation.identity import fingerprint
from nas.latency.calibration import NetworkTiming, compare_networks
from nas.latency.table import LatencyTable, Provenance
from nas.latency.timing import MAX_BUSY_CPUS, device_name, make_images, measure_busy_cpus, prepare_network
from nas.space.baselines import make_network
from nas.training.training import NetworkChoice

REFERENCE = "efficientnet_b0"
"""What every network is compared with."""

SESSION_TAG = "tfnas.latency_session"
CONDITIONS_TAG = "tfnas.latency_conditions"
UPPER_BOUND_TAG = "tfnas.latency_is_upper_bound"

_MAX_WAITS = 6


@dataclass(frozen=True)
class Session:
    """Networks that were timed in turn.

    Attributes:
        conditions: batch size, device and versions, in a line.
        is_upper_bound: whether others were using the machine.
    """

    timings: list[NetworkTiming]
    conditions: str
    is_upper_bound: bool


@dataclass(frozen=True)
class Measurement:
    """The latencies of trainings' networks, all from one session.

    Attributes:
        metrics: for each cell, by its hash.
        tags: of the session, the same for all.
    """

    metrics: dict[str, dict[str, float]]
    tags: dict[str, str]


def needs_measuring(cells: Sequence[TrainingCell], tracked: Mapping[str, TrackedCell]) -> bool:
    """Whether the latencies of these trainings are not all of one session on an idle machine."""
    tags = [tracked[cell.hash].tags for cell in cells]
    sessions = {run.get(SESSION_TAG) for run in tags}
    return len(sessions) != 1 or None in sessions or any(run.get(UPPER_BOUND_TAG) == "True" for run in tags)


def measure_latencies(
    cells: Sequence[TrainingCell], out: Path, place: Place, report: Callable[[str], None]
) -> Measurement:
    """Times every network of these trainings once, in turn with EfficientNet-B0; no trial may be running.

    Args:
        out: output folder of the launch.
        place: where the networks were trained, and are timed.
    """
    choices = {cell.hash: NetworkChoice.of(cell.config) for cell in cells}
    resolution = max(choice.resolution for choice in choices.values())
    distinct = {_key(choice): choice for choice in (NetworkChoice(REFERENCE, resolution), *choices.values())}
    report(f"Measuring the latency of {len(distinct)} networks in turn, now that no trial runs ...")
    session = place.run(
        time_session, [*distinct.values()], cells[0].config, _shared_table(cells, out), alone=True
    )
    timings = dict(zip(distinct, session.timings, strict=True))
    tags = {
        SESSION_TAG: datetime.now(UTC).isoformat(timespec="seconds"),
        CONDITIONS_TAG: session.conditions,
        UPPER_BOUND_TAG: str(session.is_upper_bound),
    }
    return Measurement({name: _metrics(timings[_key(choice)]) for name, choice in choices.items()}, tags)


def time_session(choices: list[NetworkChoice], config: TrainConfig, table: Provenance | None) -> Session:
    """Times networks in turn, on this machine.

    Args:
        choices: EfficientNet-B0 first.
        config: says how many classes there are.
        table: of the lookup table that the networks were searched by: if it is of this machine, they
            are timed as it was measured, else one image at a time on one thread of the CPU.
    """
    device, batch_size, num_threads = _conditions(table)
    num_classes = _num_classes(config)
    networks = [
        (
            prepare_network(make_network(choice.network, num_classes, choice.resolution), device),
            make_images(choice.resolution, batch_size, device),
        )
        for choice in choices
    ]
    # The processes of trials get some time to go away.
    is_busy = all(measure_busy_cpus() > MAX_BUSY_CPUS for _ in range(_MAX_WAITS))
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


def _shared_table(cells: Sequence[TrainingCell], out: Path) -> Provenance | None:
    """Of the lookup table that all these networks were searched by; None if there is no such."""
    found = [
        find_run(f"{RUN_PREFIX}{run_id}", out) for run_id in {cell.search_run for cell in cells} if run_id
    ]
    tables = {run.run.data.tags.get("tfnas.table_fingerprint"): run for run in found}
    if len(tables) != 1:
        return None
    (run,) = tables.values()
    return LatencyTable.load(run.fetch("latency_table.json", "launch the search again")).provenance


def _key(choice: NetworkChoice) -> str:
    return fingerprint(choice.identity())


def _num_classes(config: TrainConfig) -> int:
    return len(DATASETS[config.dataset].class_names(config))


def _metrics(timing: NetworkTiming) -> dict[str, float]:
    return {
        "measured_latency_ms": timing.median_ms,
        "measured_latency_iqr_ms": timing.iqr_ms,
        "latency_ratio_to_efficientnet_b0": timing.ratio,
    }
