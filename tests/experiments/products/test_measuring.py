"""When and how the latency of trained networks is measured; the timing itself is tested with the tables'."""

from dataclasses import dataclass

import pytest
import torch

from experiments.products.trained_latency import needs_measuring, time_session
from experiments.tracking.tracked_cells import TrackedCell
from nas.config import TrainConfig
from nas.latency.table import Provenance
from nas.latency.timing import device_name
from nas.space.macro_space import get_space
from nas.training.training import NetworkChoice
from tests.support.tiny import full_depth_architecture


@dataclass(frozen=True)
class Hashed:
    hash: str


def tracked(*sessions: str | None, upper_bound: bool = False) -> dict[str, TrackedCell]:
    """Finished trainings, each measured in one of these sessions, or not at all."""
    tags = [
        {"tfnas.latency_session": session, "tfnas.latency_is_upper_bound": str(upper_bound)}
        if session
        else {}
        for session in sessions
    ]
    return {str(index): TrackedCell("run", "FINISHED", "name", {}, tags[index]) for index in range(len(tags))}


@pytest.mark.parametrize(
    ("sessions", "upper_bound", "expected"),
    [
        (("noon", "noon"), False, False),
        (("noon", "noon"), True, True),
        (("noon", "evening"), False, True),
        (("noon", None), False, True),
        ((None, None), False, True),
    ],
)
def test_latencies_are_measured_until_all_are_of_one_session_on_an_idle_machine(
    sessions: tuple[str | None, ...], upper_bound: bool, expected: bool
) -> None:
    runs = tracked(*sessions, upper_bound=upper_bound)
    assert needs_measuring([Hashed(name) for name in runs], runs) is expected  # type: ignore[misc]


def provenance(name: str) -> Provenance:
    return Provenance(source="measured", device_type="cpu", device_name=name, batch_size=3, num_threads=1)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (None, "batch size 1, threads 1, "),
        (provenance("another machine"), "batch size 1, threads 1, "),
        (provenance(device_name(torch.device("cpu"))), "batch size 3, threads 1, "),
    ],
)
def test_networks_are_timed_as_their_table_was_if_it_is_of_this_machine(
    table: Provenance | None, expected: str
) -> None:
    small = full_depth_architecture(get_space("micro"))
    config = TrainConfig(architecture="efficientnet_b0")
    session = time_session([NetworkChoice(small, 28), NetworkChoice(small, 28)], config, table)
    assert session.conditions.startswith(expected)
    assert len(session.timings) == 2
