"""Worker processes: when they start, whom they serve, and how they end."""

import gc
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import torch
from PIL import Image

from nas.config import SearchConfig, TrainConfig
from nas.data.search_data import load_search_data
from nas.data.training_data import load_training_data
from nas.data.worker_pool import WorkerPool, default_num_workers
from nas.foundation.errors import UserError
from nas.search.search import run_search
from nas.space.macro_space import get_space
from nas.training.training import run_training
from tests.support.limits import PATIENCE_S
from tests.support.tiny import make_dense_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, label, number in itertools.product(("train", "test"), ("a", "b"), range(12)):
        path = root / part / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(autouse=True)
def no_other_children():
    # Pools that earlier tests of this process dropped may still be ending.
    gc.collect()
    deadline = time.monotonic() + PATIENCE_S
    while worker_ids() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker_ids() == set()
    yield
    assert worker_ids() == set()


def worker_ids():
    return {process.pid for process in multiprocessing.active_children()}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def search_config(folder, **fields):
    defaults = {"target_latency_ms": 5.0, "space": "micro", "dataset": "image_folder", "batch_size": 3}
    return SearchConfig(**defaults | {"data_dir": folder, "num_data_workers": 2} | fields)


def double(number):
    return 2 * number


def process_id(number):
    return os.getpid()


def sleep_and_name(number):
    time.sleep(0.01)
    return os.getpid()


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_come_in_the_order_of_their_tasks(num_workers):
    pool = WorkerPool(num_workers)
    assert list(pool.map(double, range(20))) == [(number, 2 * number) for number in range(20)]
    pool.close()


def test_results_come_back_whatever_the_length_of_the_temporary_folder(tmp_path, monkeypatch):
    """Tensors go through sockets, whose paths must be short."""
    long = tmp_path / "a_scratch_folder_as_batch_systems_make_them" / "node_local_0123456789"
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    # Where this process has put sockets before.
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    pool = WorkerPool(1)
    assert [torch.equal(result, torch.zeros(task)) for task, result in pool.map(torch.zeros, [3, 4])] == [
        True
    ] * 2
    pool.close()
    assert tempfile.gettempdir() == str(long)


def test_no_process_starts_before_the_first_task_or_for_zero_workers():
    pool, none = WorkerPool(2), WorkerPool(0)
    stream = pool.map(double, range(3))
    assert {process for _, process in none.map(process_id, range(3))} == {os.getpid()}
    assert worker_ids() == set()
    next(stream)
    assert len(worker_ids()) == 2
    pool.close()


def test_only_a_few_tasks_are_taken_ahead():
    taken = itertools.count()
    pool = WorkerPool(2)
    stream = pool.map(double, (next(taken) for _ in itertools.count()))
    for _ in range(10):
        next(stream)
    assert next(taken) <= 10 + 2 * 2
    stream.close()
    pool.close()


def test_the_same_two_processes_serve_all_streams_of_all_epochs(folder):
    data = load_search_data(search_config(folder), 28)
    seen = []
    for seed in (1, 2):
        arch_batches = data.arch_batches(seeded(seed))
        for _ in data.weight_batches(seeded(seed)):
            next(arch_batches)
        list(data.val_batches())
        seen.append(worker_ids())
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2
    data.pool.close()


def test_the_same_two_processes_check_train_and_evaluate(folder):
    config = TrainConfig(
        architecture="tf-nas-a",
        dataset="image_folder",
        data_dir=folder,
        batch_size=3,
        num_data_workers=2,
        skip_broken_images=True,
    )
    data = load_training_data(config, 28)
    seen = [worker_ids()]
    for batches in (
        data.train_batches(seeded()),
        data.val_split.evaluation_batches(),
        data.test_split.evaluation_batches(),
    ):
        list(batches)
        seen.append(worker_ids())
    assert len(seen[0]) == 2
    assert all(ids == seen[0] for ids in seen)
    data.pool.close()


def test_batches_are_equal_for_every_number_of_workers_however_streams_interleave(folder):
    def batches(num_workers, turns):
        data = load_search_data(search_config(folder, num_data_workers=num_workers), 28)
        streams = [data.weight_batches(seeded(1)), data.arch_batches(seeded(2)), data.val_batches()]
        seen = [[], [], []]
        for turn in turns:
            seen[turn].append(next(streams[turn]))
        data.pool.close()
        return [image for stream in seen for image, _ in stream]

    expected = batches(0, [0, 0, 0, 1, 1, 1, 2, 2])
    for num_workers, turns in ((1, [2, 1, 0, 1, 0, 0, 2, 1]), (3, [0, 1, 2, 0, 1, 2, 0, 1])):
        for one, other in zip(expected, batches(num_workers, turns), strict=True):
            assert torch.equal(one, other)


def test_workers_end_when_their_pool_is_dropped(folder):
    data = load_search_data(search_config(folder), 28)
    next(data.weight_batches(seeded()))
    assert len(worker_ids()) == 2
    del data
    gc.collect()
    deadline = time.monotonic() + PATIENCE_S
    while worker_ids() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker_ids() == set()


@pytest.mark.parametrize("ending", ["done", "left", "failed"])
def test_no_worker_outlives_a_search_that_is_done_left_or_failed(folder, ending, tmp_path):
    """Ray's processes run one trial after another, so nothing ends with the process."""
    table = make_dense_table(get_space("micro"))
    config = search_config(folder, num_epochs=3, num_warmup_epochs=1)
    if ending == "failed":
        shutil.copytree(folder, tmp_path / "images")
        (tmp_path / "images" / "train" / "a" / "0.png").write_text("broken")
        config = config.model_copy(update={"data_dir": tmp_path / "images"})
        with pytest.raises(UserError, match=r"0\.png"):
            list(run_search(config, table=table))
    else:
        records = run_search(config, table=table)
        next(records)
        assert len(worker_ids()) == 2
        if ending == "done":
            list(records)
        else:
            records.close()
    assert worker_ids() == set()


def test_no_worker_outlives_a_training(folder):
    config = TrainConfig(
        architecture="mobilenet_v2",
        dataset="image_folder",
        data_dir=folder,
        resolution=32,
        batch_size=6,
        num_epochs=2,
        num_warmup_epochs=0,
        num_data_workers=2,
        device="cpu",
    )
    records = run_training(config)
    next(records)
    assert len(worker_ids()) == 2
    list(records)
    assert worker_ids() == set()


def test_no_worker_outlives_images_that_are_refused_after_a_look_at_each(folder):
    """Though the error is kept, as a notebook does, and with it all that was loaded."""
    fields = {"skip_broken_images": True, "batch_size": 600, "num_data_workers": 2}
    with pytest.raises(UserError, match="batch_size: 600") as of_search:
        load_search_data(search_config(folder, **fields), 28)
    assert worker_ids() == set()
    training = TrainConfig(dataset="image_folder", data_dir=folder, architecture="mobilenet_v2", **fields)
    with pytest.raises(UserError, match="batch_size: 600") as of_training:
        load_training_data(training, 28)
    assert worker_ids() == set()
    del of_search, of_training


def test_a_killed_worker_is_one_line_about_memory_and_the_next_batches_are_served(folder):
    data = load_search_data(search_config(folder), 28)
    batches = data.arch_batches(seeded())
    next(batches)
    for worker in worker_ids():
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(UserError) as caught:
        list(itertools.islice(batches, 10))
    assert str(caught.value).startswith("num_data_workers: 2; ")
    assert "memory" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert worker_ids() == set()
    next(data.weight_batches(seeded()))
    data.pool.close()


def test_workers_ignore_ctrl_c_which_is_for_their_parent(folder):
    pool = WorkerPool(2)
    stream = pool.map(sleep_and_name, range(50))
    next(stream)
    for worker in worker_ids():
        os.kill(worker, signal.SIGINT)
    assert len(list(stream)) == 49
    pool.close()


def test_workers_end_with_a_parent_that_is_killed():
    script = (
        "import multiprocessing, os, signal\n"
        "from nas.data.worker_pool import WorkerPool\n"
        "stream = WorkerPool(2).map(abs, range(9))\n"
        "next(stream)\n"
        "print(*[process.pid for process in multiprocessing.active_children()], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    ids = [int(number) for number in done.stdout.readline().split()]
    done.wait()
    assert len(ids) == 2
    deadline = time.monotonic() + PATIENCE_S
    while any(map(is_running, ids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, ids))
    done.stdout.close()


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("num_cores", "num_processes", "num_threads", "num_workers"),
    [(1, "1", 1, 0), (4, "1", 1, 3), (4, "1", 4, 0), (4, "1", 8, 0), (128, "1", 1, 8), (16, "4", 1, 3)],
)
def test_workers_by_default_take_the_cores_that_threads_and_processes_leave(
    num_cores, num_processes, num_threads, num_workers, monkeypatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(num_cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", num_processes)
    assert default_num_workers(num_threads) == num_workers
