"""Searches that share a warm-up: the same results to the last bit, each epoch computed once."""

import os
import shutil
import signal
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch

from nas.config import SearchConfig
from nas.foundation.checkpoint import find_checkpoints
from nas.foundation.errors import DamagedCheckpointWarning, UserError
from nas.latency.table import LatencyTable
from nas.search.records import EpochRecord
from nas.search.search import Search, run_search
from nas.search.search_identity import FIELDS_AFTER_WARMUP
from nas.supernet.steps import SearchSteps
from tests.support.clean_processes import CLEAN_PROCESSES
from tests.support.tiny import (
    TINY,
    assert_identical,
    make_config,
    make_dense_table,
    register_tiny_spaces,
)

TABLE = make_dense_table(TINY)
OTHER_TABLE = make_dense_table(TINY, seed=1, base_ms=2.1)

CHANGES = {
    "target_latency_ms": 2.5,
    "sampling": "bi_min",
    "elasticity": False,
    "derivation": "in_reach",
    "num_evaluations": 20,
    "evaluation_sample": "random",
    "refine_widths": True,
    "objective": "fbnet",
    "latency_weight": 0.7,
    "objective_scale": 0.3,
    "objective_exponent": 0.9,
    "latency_multiplier_lr": 0.3,
    "weight_steps_per_arch_step": 1,
    "arch_lr": 0.1,
    "arch_lr_schedule": "cosine",
    "arch_beta1": 0.7,
    "arch_beta2": 0.9,
    "arch_weight_decay": 0.01,
    "initial_temperature": 2.0,
    "final_temperature": 0.5,
    "temperature_decay": 0.5,
}
"""Another value of each field that warm-up is said to ignore."""


def config_of(**fields: object) -> SearchConfig:
    return make_config(num_warmup_epochs=2, num_epochs=4, **fields)


def search(
    config: SearchConfig, warmups: Path | None = None, *, table: LatencyTable = TABLE, own: Path | None = None
) -> list[EpochRecord]:
    return list(run_search(config, table=table, warmups_dir=warmups, checkpoint_dir=own))


def are_shared(records: list[EpochRecord]) -> list[bool]:
    return [record.is_shared for record in records]


def test_what_warm_up_is_said_to_ignore_leaves_no_trace_in_it() -> None:
    def warm_up(config: SearchConfig) -> list[torch.Tensor]:
        run = Search(config, TABLE)
        run.run_epoch()
        momentum = [state["momentum_buffer"] for state in run.method._steps.weight_optimizer.state.values()]
        assert momentum
        generators = run.method.state_dict()["generators"].values()
        return [*run.method.supernet.state_dict().values(), *momentum, *generators]

    assert set(CHANGES) == set(FIELDS_AFTER_WARMUP)
    plain = warm_up(config_of())
    for field, value in CHANGES.items():
        changed = warm_up(config_of(**{field: value}))
        assert all(torch.equal(a, b) for a, b in zip(plain, changed, strict=True)), field


@pytest.mark.parametrize(("depth", "reset"), [("sink", False), ("skip", False), ("sink", True)])
def test_a_search_that_takes_up_a_warm_up_is_the_one_that_warms_up_alone(
    depth: str, reset: bool, tmp_path: Path
) -> None:
    shared = {"depth": depth, "reset_optimizers_each_epoch": reset}
    cells = [
        (config_of(**shared), TABLE),
        (
            config_of(
                **shared,
                target_latency_ms=2.5,
                sampling="single",
                refine_widths=True,
                derivation="in_reach",
            ),
            TABLE,
        ),
        (config_of(**shared, target_latency_ms=2.4, objective="proxyless_mul", arch_lr=0.1), OTHER_TABLE),
        (config_of(**shared, elasticity=False, initial_temperature=1.0, temperature_decay=0.5), TABLE),
        (config_of(**shared, objective="lagrangian", latency_multiplier_lr=1.0), TABLE),
    ]
    for index, (config, table) in enumerate(cells):
        records = search(config, tmp_path, table=table)
        assert_identical(records, search(config, table=table))
        assert are_shared(records) == [index > 0, index > 0, False, False]
    assert len(list(tmp_path.iterdir())) == 1


def test_searches_whose_warm_ups_differ_share_none(tmp_path: Path) -> None:
    for fields in ({}, {"depth": "skip"}, {"seed": 1}, {"weight_lr": 0.05}):
        assert not any(are_shared(search(config_of(**fields), tmp_path)))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("num_damaged", [1, 2])
def test_a_damaged_shared_checkpoint_is_computed_again_with_a_warning(
    num_damaged: int, tmp_path: Path
) -> None:
    search(config_of(), tmp_path)
    (folder,) = tmp_path.iterdir()
    for path in find_checkpoints(folder)[-num_damaged:]:
        path.write_bytes(path.read_bytes()[:-1])
    other = config_of(target_latency_ms=2.5)
    with pytest.warns(DamagedCheckpointWarning, match="damaged"):
        records = search(other, tmp_path)
    assert_identical(records, search(other))
    assert are_shared(records) == [num_damaged == 1, False, False, False]
    assert are_shared(search(config_of(sampling="single"), tmp_path)) == [True, True, False, False]


def test_a_checkpoint_of_another_warm_up_is_refused(tmp_path: Path) -> None:
    search(config_of(), tmp_path)
    (folder,) = tmp_path.iterdir()
    other = Search(config_of(seed=1), TABLE)
    folder.rename(tmp_path / other.method.shared_identity[:32])
    with pytest.raises(UserError, match="checkpoint of another"):
        other.share_epochs(other.method, tmp_path)


@pytest.mark.parametrize("num_done", [1, 2, 3])
def test_a_search_goes_on_from_its_own_checkpoint_though_the_warm_up_is_gone(
    num_done: int, tmp_path: Path
) -> None:
    warmups, own = tmp_path / "warmups", tmp_path / "own"
    search(config_of(sampling="single"), warmups)
    config = config_of()
    run = run_search(config, table=TABLE, warmups_dir=warmups, checkpoint_dir=own)
    for _ in range(num_done):
        next(run)
    shutil.rmtree(warmups)
    records = search(config, own=own)
    assert_identical(records, search(config))
    assert are_shared(records) == [True, True, False, False]


def test_a_search_that_began_to_warm_up_alone_may_go_on_with_others(tmp_path: Path) -> None:
    config = config_of()
    next(run_search(config, table=TABLE, checkpoint_dir=tmp_path / "own"))
    records = search(config, tmp_path / "warmups", own=tmp_path / "own")
    assert_identical(records, search(config))
    assert are_shared(search(config_of(sampling="single"), tmp_path / "warmups")) == [
        *(True, True),
        *(False, False),
    ]


def _search_until_killed_in_step(config: SearchConfig, warmups: Path, num_steps: int) -> None:
    register_tiny_spaces()
    weight_step, steps = SearchSteps.weight_step, iter(range(1, num_steps + 1))

    def step_or_die(*args: object) -> object:
        if next(steps) == num_steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return weight_step(*args)  # type: ignore[arg-type]

    SearchSteps.weight_step = step_or_die  # type: ignore[method-assign, assignment]
    search(config, warmups)


def test_a_process_that_is_killed_while_it_warms_up_holds_nobody_up(tmp_path: Path) -> None:
    """Four steps an epoch: the sixth is in the second epoch, under the lock."""
    process = CLEAN_PROCESSES.Process(target=_search_until_killed_in_step, args=(config_of(), tmp_path, 6))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    other = config_of(target_latency_ms=2.5)
    records = search(other, tmp_path)
    assert are_shared(records) == [True, False, False, False]
    assert_identical(records, search(other))


def _search_with_others(config: SearchConfig, warmups: Path, start: Barrier, results: Path) -> None:
    register_tiny_spaces()
    start.wait()
    records = search(config, warmups)
    assert_identical(records, search(config))
    results.write_text("".join("T" if shared else "F" for shared in are_shared(records)))


def test_processes_that_warm_up_at_once_compute_each_epoch_once(tmp_path: Path) -> None:
    start = CLEAN_PROCESSES.Barrier(3)
    targets_ms = (2.3, 2.4, 2.5)
    processes = [
        CLEAN_PROCESSES.Process(
            target=_search_with_others,
            args=(
                config_of(target_latency_ms=target_ms),
                tmp_path / "warmups",
                start,
                tmp_path / str(target_ms),
            ),
        )
        for target_ms in targets_ms
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    shared = [(tmp_path / str(target_ms)).read_text() for target_ms in targets_ms]
    for epoch in range(2):
        assert sorted(flags[epoch] for flags in shared) == ["F", "T", "T"]
    assert [flags[2:] for flags in shared] == ["FF"] * 3


def test_searches_in_turn_in_one_process_share_a_warm_up_too(tmp_path: Path) -> None:
    configs = config_of(), config_of(target_latency_ms=2.5)
    runs = [run_search(config, table=TABLE, warmups_dir=tmp_path) for config in configs]
    for records, config in zip(zip(*zip(*runs, strict=True), strict=True), configs, strict=True):
        assert_identical(list(records), search(config))
