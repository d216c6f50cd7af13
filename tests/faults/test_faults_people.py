"""What people do to results: move, copy, share, delete and damage them, and pass them on."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from experiments.cli import main as cli
from tests.faults.launches import EXPERIMENT, GRID, Site, damage
from tests.faults.server import Server
from tests.support.limits import PATIENCE_S

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def interrupt(site: Site, after_epochs: int = 5) -> None:
    """A launch that is killed with all its processes."""
    with site.start() as launch:
        launch.wait_for_epochs(after_epochs)
        processes = launch.tree()
        launch.kill_tree()
        # What still runs might write on.
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert alive == []


def figures(site: Site, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `tfnas figures`."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = ["figures", EXPERIMENT, "--out", str(site.out)]
    monkeypatch.setattr(sys, "argv", ["tfnas", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_a_folder_that_is_moved_after_a_kill_goes_on_there_and_leaves_nothing_behind(site: Site) -> None:
    interrupt(site)
    before = site.out
    site.use(before.rename(site.folder / "moved 100%? #1"))
    again = site.run()
    assert again.returncode == 0, again.said
    assert again.said.count("resumes after epoch") == 2
    assert not before.exists()
    site.assert_whole()
    assert site.num_epochs_done_again() == 0
    assert sorted(run.info.status for run in site.runs("launch")) == ["FINISHED", "KILLED"]


def test_a_copy_goes_on_as_the_original_does_and_neither_touches_the_other(site: Site) -> None:
    interrupt(site)
    original, copy = site.out, site.folder / "copy"
    shutil.copytree(original, copy)
    site.use(copy)
    assert site.run().returncode == 0
    site.assert_whole()
    site.use(original)
    assert site.status().count("interrupted") == 2
    assert site.run().returncode == 0
    site.assert_whole()
    assert site.num_epochs_done_again() == 0


def test_launches_that_share_a_server_end_only_what_they_began(site: Site, tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        server.start()
        (tmp_path / "other").mkdir()
        other = Site(tmp_path / "other", grid={"sampling": ["bi_min"]})
        for each in (site, other):
            each.tracking_uri = each.environment["MLFLOW_TRACKING_URI"] = server.uri
        with site.start() as launch:
            launch.wait_for_both()
            trials = launch.trials()
            for trial in trials:
                # So that it is running for as long as the other takes.
                trial.suspend()
            beside = other.run()
            assert beside.returncode == 0, beside.said
            for trial in trials:
                trial.resume()
            assert launch.wait() == 0, launch.said
        runs = [*site.runs("search"), *site.runs("launch")]
        assert [run.info.status for run in runs] == ["FINISHED"] * 5
    finally:
        server.kill()


def test_a_run_that_is_deleted_stays_so_until_its_folder_is_removed(site: Site) -> None:
    assert site.run().returncode == 0
    (victim, _) = site.runs("search")
    site.forget([victim])
    again = site.run()
    assert again.returncode == 0, again.said
    assert f"its run {victim.info.run_id} was deleted in MLflow" in again.said
    assert len(site.runs("search")) == 1
    for journal in site.journals():
        if journal.path.parent.name.endswith(victim.data.tags["tfnas.cell"][:10]):
            shutil.rmtree(journal.path.parent)
    assert site.run().returncode == 0
    site.assert_whole()


@pytest.mark.parametrize("name", ["run.json", "delivered.json"])
def test_a_folder_that_is_half_readable_is_named_and_holds_up_no_other(site: Site, name: str) -> None:
    interrupt(site)
    (single,) = (path.parent for path in site.out.glob("cells/single*/run.json"))
    sound = (single / name).read_bytes()
    damage(single / name, cut_bytes=len(sound) // 2)
    # The grid no longer has the cell.
    site.write_spec({"sampling": ["bi"]})
    again = site.run()
    assert again.returncode == 0, again.said
    assert str(single / name) in again.said
    assert "MLflow gets nothing of it" in again.said
    (finished,) = (run for run in site.runs("search") if run.info.status == "FINISHED")
    assert finished.data.params["sampling"] == "bi_random"
    # Once it is mended, all is well.
    (single / name).write_bytes(sound)
    site.write_spec(GRID)
    assert site.run().returncode == 0
    site.assert_whole()


def test_paths_that_are_too_long_for_sockets_and_a_folder_with_a_long_name_do_no_harm(tmp_path: Path) -> None:
    temporary = tmp_path / ("a_node_local_scratch_folder_of_a_batch_system_" * 3) / ("job_" * 20)
    temporary.mkdir(parents=True)
    site = Site(tmp_path, out=tmp_path / ("results_" * 25))
    site.environment["TMPDIR"] = str(temporary)
    interrupt(site)
    again = site.run()
    assert again.returncode == 0, again.said
    site.assert_whole()


def test_results_of_somebody_else_neither_read_nor_remove_what_lies_outside(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, mine = site.folder / "id_rsa", site.folder / "thesis.pdf"
    for path in (secret, mine):
        path.write_text(f"private: {path.name}")
    interrupt(site, after_epochs=4)
    (single,) = (path.parent for path in site.out.glob("cells/single*/run.json"))
    (single / "artifacts").mkdir(exist_ok=True)
    (single / "artifacts" / "notes.txt").symlink_to(secret)
    again = site.run()
    assert again.returncode == 2, again.said
    assert "notes.txt: is a link" in again.said
    site.write_spec({"sampling": ["bi"]})
    beside = site.run()
    assert beside.returncode == 0, beside.said
    assert "notes.txt: is a link" in beside.said
    site.write_spec(GRID)
    assert not list(site.out.glob("mlartifacts/**/notes.txt"))
    (single / "artifacts" / "notes.txt").unlink()
    assert site.run().returncode == 0
    site.assert_whole()
    assert figures(site, monkeypatch) == 0
    for stamp in (site.out / "figures").glob("*.json"):
        content = json.loads(stamp.read_text())
        content["files"] |= {
            name: hashlib.sha256(mine.read_bytes()).hexdigest() for name in ("../../thesis.pdf", str(mine))
        }
        stamp.write_text(json.dumps(content))
    assert figures(site, monkeypatch) in (0, 1)
    assert mine.read_text() == "private: thesis.pdf"


def test_a_launch_leaves_nothing_in_the_temporary_folder(site: Site) -> None:
    # Short, or Ray would take another one.
    with TemporaryDirectory(dir="/tmp") as temporary:
        site.environment["TMPDIR"] = temporary
        assert site.run().returncode == 0
        assert [path.name for path in Path(temporary).iterdir()] == []
