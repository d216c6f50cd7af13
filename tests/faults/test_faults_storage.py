"""Disks that are full, folders that are read-only, checkpoints that are damaged."""

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.faults.launches import Site, damage, free_bytes
from tests.support.limits import PATIENCE_S

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

DISK_BYTES = 100_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    mounted = subprocess.run(options, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _fill(file: BinaryIO, num_bytes: int) -> None:
    # The searches write meanwhile: there may be less left than there was.
    with suppress(OSError):
        if num_bytes > 0:
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), num_bytes)


@pytest.mark.parametrize("left_bytes", [200_000, 0], ids=["for_small_files_only", "at_all"])
def test_a_disk_without_room(disk: Path, tmp_path: Path, left_bytes: int) -> None:
    site = Site(tmp_path, out=disk / "out")
    ballast = disk / "ballast"
    with site.start() as launch:
        launch.wait_for_epochs(4)
        with ballast.open("wb") as file:
            # What searches give up is filled, too.
            while launch.process.poll() is None:
                _fill(file, free_bytes(disk) - left_bytes)
                time.sleep(0.02)
        launch.wait()
    assert launch.returncode in (1, 2), launch.said
    assert "No space left on device" in launch.said
    # The last word is ours, whatever Ray says before.
    last = launch.said.splitlines()[-1]
    assert "rerun the command" in last or "--retry-failed" in last, launch.said
    ballast.unlink()
    assert site.status().count("finished") < 2
    again = site.run("--retry-failed")
    assert again.returncode == 0, again.said
    site.assert_whole()


def test_a_checkpoint_that_cannot_be_written_fails_its_search_alone(site: Site) -> None:
    with site.start() as launch:
        launch.wait_for_both()
        trial = launch.trials()[0]
        # No file of this process may grow beyond 1 MB: a quota, in effect.
        resource.prlimit(trial.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        assert launch.wait() == 1, launch.said
    assert "1 of 2 searches are finished" in launch.said
    assert launch.said.count("OSError: [Errno 27] File too large") == 2, launch.said
    assert "failed" in site.status()
    for folder in site.out.glob("cells/*/checkpoints"):
        assert list(folder.glob("*.partial")) == []
    again = site.run("--retry-failed")
    assert again.returncode == 0, again.said
    site.assert_whole()


def test_damaged_checkpoints_cost_epochs_and_nothing_else(site: Site) -> None:
    with site.start() as launch:
        launch.wait_until(lambda: [len(found) for found in site.checkpoints()] == [2, 2])
        launch.kill_tree()
    first, second = site.checkpoints()
    damage(first[-1], cut_bytes=1000)
    for path in second:
        # Of this one no checkpoint of its own is left.
        damage(path, flip_at=1_000_000)
    num_reported = len(site.journals()[1].epochs)
    again = site.run()
    assert again.returncode == 0, again.said
    site.assert_whole()
    # Warm-up epochs come back from what the two searches share.
    assert site.num_epochs_done_again() <= num_reported + 1
    assert again.said.count("damaged; falling back to the checkpoint before") == 3, again.said


def test_a_read_only_results_folder_is_refused_and_can_be_read(disk: Path, tmp_path: Path) -> None:
    site = Site(tmp_path, out=disk / "out")
    with site.start() as launch:
        launch.wait_for_epochs(3)
        launch.kill_tree()
    site.recover_store()
    # Root may write whatever the modes say; not so where the file system is read-only.
    _remount(disk, "ro")
    refused = site.run()
    assert refused.returncode == 2
    assert refused.said.splitlines() == [
        f"tfnas: --out: {site.out}: cannot write there (Read-only file system); choose another folder"
    ]
    assert site.status().count("interrupted") == 2
    _remount(disk, "rw")
    assert site.run().returncode == 0
    site.assert_whole()


def _remount(disk: Path, mode: str) -> None:
    end = time.monotonic() + PATIENCE_S
    # It is busy until the processes that were killed are gone.
    while subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)]).returncode != 0:
        assert time.monotonic() < end
        time.sleep(0.5)
