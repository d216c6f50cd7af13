"""A search whose process is killed, and resumed: the same to the last bit as one left alone."""

import os
import pkgutil
import random
import signal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.config import SearchConfig
from nas.foundation.checkpoint import newest_epoch
from nas.search.records import EpochRecord
from nas.search.search import Search, run_search
from nas.supernet.steps import PathResult, SearchSteps
from tests.support.clean_processes import CLEAN_PROCESSES
from tests.support.tiny import (
    TINY,
    assert_identical,
    make_config,
    make_dense_table,
    register_tiny_spaces,
)

TABLE = make_dense_table(TINY)


@pytest.fixture(scope="module")
def image_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 2 classes of 26 images of 20 x 24 pixels."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label in range(2):
        (folder / "train" / str(label)).mkdir(parents=True)
        for index in range(26):
            pixels = rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "train" / str(label) / f"{index}.png")
    return folder


def of_files(image_dir: Path, **fields: object) -> SearchConfig:
    """A search of image files, with all that is random about them, in the skip space."""
    return make_config(
        dataset="image_folder",
        data_dir=image_dir,
        max_train_images=None,
        augmentation="paper",
        depth="skip",
        reset_optimizers_each_epoch=True,
        num_epochs=3,
        **fields,
    )


def search(config: SearchConfig, folder: Path | None = None) -> list[EpochRecord]:
    return list(run_search(config, table=TABLE, checkpoint_dir=folder))


@cache
def uninterrupted(config: SearchConfig) -> list[EpochRecord]:
    """The records of a search that nobody kills; run once for all moments at which it could be."""
    return search(config)


STEPS = "nas.supernet.steps:SearchSteps"


def _kill_in_call(place: str, name: str, number: int) -> None:
    """From now on, the call of that number kills this process before it does anything."""
    owner = pkgutil.resolve_name(place)
    call, num_calls = getattr(owner, name), 0

    def call_or_die(*args: Any, **options: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)

    setattr(owner, name, call_or_die)


def _search_and_die(config: SearchConfig, folder: Path, place: str, name: str, number: int) -> None:
    register_tiny_spaces()
    _kill_in_call(place, name, number)
    search(config, folder)


def search_until_killed(config: SearchConfig, folder: Path, place: str, name: str, number: int) -> None:
    process = CLEAN_PROCESSES.Process(target=_search_and_die, args=(config, folder, place, name, number))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("depth", ["sink", "skip"])
@pytest.mark.parametrize(
    ("step", "number", "num_done"),
    # Four weight steps an epoch, two architecture steps a joint one; the first epoch is warm-up.
    [("weight_step", 2, 0), ("weight_step", 8, 1), ("arch_step", 3, 2)],
)
def test_killed_in_an_epoch(step: str, number: int, num_done: int, depth: str, tmp_path: Path) -> None:
    config = make_config(depth=depth)
    search_until_killed(config, tmp_path, STEPS, step, number)
    assert newest_epoch(tmp_path) == num_done
    assert_identical(search(config, tmp_path), uninterrupted(config))


@pytest.mark.parametrize("method", ["random", "gp_nas"])
@pytest.mark.parametrize(
    ("place", "name", "number", "num_done"),
    # Four weight steps an epoch, three epochs; then two rounds of ten evaluations, a latency each.
    [
        (STEPS, "weight_step", 7, 1),
        ("nas.supernet.supernet:Supernet", "forward_derived", 20, 3),
        ("nas.supernet.supernet:Supernet", "forward_derived", 30, 4),
    ],
)
def test_killed_in_training_or_in_a_round_of_evaluation(
    place: str, name: str, number: int, num_done: int, method: str, tmp_path: Path
) -> None:
    config = make_config(method=method, num_epochs=3, num_evaluations=20)
    search_until_killed(config, tmp_path, place, name, number)
    assert newest_epoch(tmp_path) == num_done
    assert_identical(search(config, tmp_path), uninterrupted(config))


@pytest.mark.parametrize("reset", [False, True])
def test_killed_while_a_multiplier_is_learned(reset: bool, tmp_path: Path) -> None:
    config = make_config(
        objective="lagrangian",
        latency_multiplier_lr=1.0,
        elasticity=False,
        reset_optimizers_each_epoch=reset,
    )
    whole = uninterrupted(config)
    search_until_killed(config, tmp_path, STEPS, "arch_step", 4)
    assert newest_epoch(tmp_path) == 2
    resumed = search(config, tmp_path)
    assert_identical(resumed, whole)
    # Had it started again from 0, the next epochs would differ.
    assert [record.metrics["latency_multiplier"] != 0 for record in resumed] == [False, True, True, True]


@pytest.mark.parametrize(
    ("number", "num_done", "num_partial"),
    # Each checkpoint takes two: of the file before it gets its name, and of the folder afterwards.
    [(1, 0, 1), (5, 2, 1), (6, 3, 0)],
)
def test_killed_while_a_checkpoint_is_written(
    number: int, num_done: int, num_partial: int, tmp_path: Path
) -> None:
    config = make_config()
    search_until_killed(config, tmp_path, "os", "fsync", number)
    assert newest_epoch(tmp_path) == num_done
    assert len(list(tmp_path.glob("*.partial"))) == num_partial
    assert_identical(search(config, tmp_path), uninterrupted(config))
    assert not list(tmp_path.glob("*.partial"))


def test_killed_while_worker_processes_decode_and_augment_images(image_dir: Path, tmp_path: Path) -> None:
    config = of_files(image_dir, num_data_workers=2)
    whole = uninterrupted(config)
    search_until_killed(config, tmp_path, STEPS, "weight_step", 7)
    assert newest_epoch(tmp_path) == 1
    assert_identical(search(config, tmp_path), whole)


def test_the_number_of_worker_processes_does_not_matter(image_dir: Path) -> None:
    with_two, without = (uninterrupted(of_files(image_dir, num_data_workers=number)) for number in (2, 0))
    assert_identical(with_two, without)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_no_epoch_heeds_or_moves_the_global_generators(kind: str, image_dir: Path) -> None:
    """So no checkpoint needs to hold them. (Modules draw from torch's as they are built, to no effect.)"""
    config = of_files(image_dir) if kind == "files" else make_config()
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        run = Search(config, TABLE)
        before = _global_states()
        found.append([run.run_epoch() for _ in range(config.num_epochs)])
        assert _global_states() == before
    assert_identical(*found)


def _global_states() -> tuple[Any, ...]:
    _, keys, position, *_ = np.random.get_state()
    return random.getstate(), keys.tobytes(), position, torch.get_rng_state().numpy().tobytes()


def test_two_searches_in_turn_in_one_process_give_what_each_gives_alone() -> None:
    configs = make_config(seed=1), make_config(depth="skip", sampling="single")
    in_turn = zip(*(run_search(config, table=TABLE) for config in configs), strict=True)
    for records, config in zip(zip(*in_turn, strict=True), configs, strict=True):
        assert_identical(list(records), uninterrupted(config))


def test_every_epoch_has_the_threads_of_its_own_search(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note_threads(self: SearchSteps, *args: Any) -> list[PathResult]:
        seen.append((self._config.num_threads, torch.get_num_threads()))
        return [PathResult(torch.tensor(1.0), torch.tensor(0.5))]

    monkeypatch.setattr(SearchSteps, "weight_step", note_threads)
    runs = [
        Search(make_config(num_threads=number, num_epochs=5, num_warmup_epochs=4), TABLE) for number in (1, 2)
    ]
    for _ in range(2):
        for run in runs:
            run.run_epoch()
    torch.set_num_threads(1)
    assert {asked for asked, _ in seen} == {1, 2}
    assert all(asked == found for asked, found in seen)
