"""`tfnas watch` in a real browser, beside a launch that this test plays."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments.cells.cell_folder import CellFolder, RunDescription
from experiments.launching.launch_lock import only_user_of
from nas import SearchConfig, run_search
from nas.search.records import EpochRecord, Trajectory
from nas.space.macro_space import get_space
from tests.support.limits import PATIENCE_S
from tests.support.tiny import make_dense_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CONFIG = SearchConfig(
    space="micro",
    target_latency_ms=8.0,
    num_epochs=3,
    num_warmup_epochs=1,
    max_train_images=80,
    batch_size=8,
    augmentation="none",
)


@pytest.fixture(scope="module")
def records() -> list[EpochRecord]:
    return list(run_search(CONFIG, table=make_dense_table(get_space("micro"))))


def make_cell(out: Path, name: str) -> CellFolder:
    folder = CellFolder(out / "cells" / name)
    params = {field: str(value) for field, value in CONFIG.model_dump(mode="json").items()}
    tags = {"tfnas.cell": name, "tfnas.kind": "search", "tfnas.data_fingerprint": "d" * 64}
    folder.describe(RunDescription(name, name, params, tags))
    folder.artifacts.mkdir()
    return folder


def add_epoch(folder: CellFolder, records: list[EpochRecord], epoch: int) -> None:
    folder.journal.add_epoch(epoch, dict(records[epoch - 1].metrics))
    Trajectory.of("micro", "sink", records[:epoch]).save(folder.artifacts / "trajectory.npz")


@pytest.fixture
def page() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        yield page
        browser.close()


def test_the_page_follows_a_launch_by_itself_to_its_end(
    tmp_path: Path, records: list[EpochRecord], page: Any
) -> None:
    out = tmp_path / "out"
    first, waiting = make_cell(out, "first"), make_cell(out, "second")
    first.journal.start("launch")
    add_epoch(first, records, 1)
    arguments = ["watch", "played", "--out", str(out), "--every", "2"]
    command = [sys.executable, "-c", "from experiments.cli.main import main; main()", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ended(process):
        with only_user_of(out):
            assert process.stdout is not None
            assert process.stdout.readline() == f"open {(out / 'watch.html').as_uri()}\n"
            while not (out / "watch.html").exists():
                assert process.poll() is None
            page.goto((out / "watch.html").as_uri())
            page.get_by_role("row", name="first running 1/3").wait_for()
            page.get_by_role("row", name="second waiting -/3").wait_for()
            add_epoch(first, records, 2)
            add_epoch(first, records, 3)
            page.get_by_role("row", name="first running 3/3").wait_for()
            first.journal.finish("FINISHED")
            waiting.journal.finish("FAILED", "out of memory")
            page.get_by_role("row", name="first finished 3/3").wait_for()
            page.get_by_role("row", name="second failed").wait_for()
        # The lock is free: the launch has ended.
        assert process.wait(PATIENCE_S) == 0
    page.get_by_text("the launch has ended").wait_for()
    assert 'http-equiv="refresh"' not in (out / "watch.html").read_text()
    assert page.get_by_role("img").count() == 2, "depth and collapse"
    for image in page.get_by_role("img").all():
        assert image.evaluate("one => one.complete && one.naturalWidth > 100")


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()


def test_a_folder_without_a_launch_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from experiments.cli.main import main; main()", "watch", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("tfnas: --out: ")
    assert list(tmp_path.iterdir()) == []
