"""Bundles that are wrong, or that attack."""

import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.bundles import archive
from analysis.bundles.archive import CRATE, pack, to_json
from analysis.bundles.bundle_store import BundleStore

# Also so that its libraries are loaded before memory is bounded.
from analysis.bundles.verification import verify
from analysis.reading.experiment_reader import read_experiment
from tests.hostile.command import Command
from tests.hostile.test_hostile_binary import CANARY, Attack
from tests.support.bundles import RUN, made_up_files, seal

FILES = made_up_files()
ARRAYS = f"{RUN}/trajectory.npz"


def with_member(name: str, content: bytes = b"1", mode: int = stat.S_IFREG | 0o644) -> bytes:
    """The sound bundle with one more member."""
    bundle = io.BytesIO(seal(FILES))
    with zipfile.ZipFile(bundle, "a") as target:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        target.writestr(member, content)
    return bundle.getvalue()


def with_crate(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The sound bundle with other metadata."""
    with zipfile.ZipFile(io.BytesIO(seal(FILES))) as bundle:
        crate = json.loads(bundle.read(CRATE))
    change(crate)
    return pack(FILES | {CRATE: to_json(crate)})


def with_record(**changes: Any) -> bytes:
    return seal(FILES | {"runs.json": to_json(json.loads(FILES["runs.json"]) | changes)})


def with_run(**changes: Any) -> bytes:
    (run,) = json.loads(FILES["runs.json"])["runs"]
    return with_record(runs=[run | changes])


def with_arrays(**changes: Any) -> bytes:
    """The sound bundle with other arrays in its trajectory."""
    with np.load(io.BytesIO(FILES[ARRAYS])) as file:
        arrays = dict(file)
    content = io.BytesIO()
    np.savez_compressed(content, **(arrays | changes))
    return seal(FILES | {ARRAYS: content.getvalue()})


def files_of(crate: dict[str, Any]) -> list[dict[str, Any]]:
    return [entity for entity in crate["@graph"] if entity["@type"] == "File"]


def declare_twice(crate: dict[str, Any]) -> None:
    crate["@graph"].append(files_of(crate)[0])


# Why it is wrong, its content, and what must be said about it.
BUNDLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a bundle"),
    "text": (lambda: b"runs: 1\n", "not a bundle"),
    "cut off": (lambda: seal(FILES)[:-500], "not a bundle"),
    "a bit is flipped": (lambda: seal(FILES).replace(b"PK\x03\x04", b"PK\x03\x05", 1), "not a bundle"),
    "a path that climbs out": (lambda: with_member("runs/../../evil.json"), "leads elsewhere"),
    "a path that climbs out on Windows": (lambda: with_member("..\\evil.json"), "leads elsewhere"),
    "an absolute path": (lambda: with_member("/evil.json"), "leads elsewhere"),
    "a path with a NUL": (lambda: with_member("a_b.json").replace(b"a_b", b"a\0b"), "leads elsewhere"),
    "a hidden file": (lambda: with_member("runs/.ssh"), "leads elsewhere"),
    "a link": (lambda: with_member("link.json", b"/etc/passwd", stat.S_IFLNK | 0o777), "is a link"),
    "a folder": (lambda: with_member("runs/"), "leads elsewhere"),
    "a file twice": (lambda: with_member("runs.json", FILES["runs.json"]), "is there 2 times"),
    "a file that is not declared": (lambda: with_member("more.json"), "more.json is not declared"),
    "a file that is missing": (
        lambda: with_crate(lambda crate: files_of(crate)[0].update({"@id": "no.csv"})),
        "no.csv is declared and missing",
    ),
    "a file that is declared twice": (lambda: with_crate(declare_twice), "declares a file twice"),
    "no metadata": (lambda: pack(FILES), f"{CRATE} is missing"),
    "metadata of something else": (lambda: with_crate(lambda crate: crate.pop("@graph")), "no RO-Crate"),
    "metadata that are a list": (lambda: pack(FILES | {CRATE: b"[]"}), "no RO-Crate metadata"),
    "metadata nested without end": (lambda: pack(FILES | {CRATE: b"[" * 100_000}), "is not JSON"),
    "a wrong checksum": (
        lambda: with_crate(lambda crate: files_of(crate)[0].update(sha256="0" * 64)),
        "the checksum of",
    ),
    "a newer format": (lambda: with_record(format=2), "format 2 is newer than 1"),
    "a format that is text": (lambda: with_record(format="1"), "has format '1'"),
    "records that are not JSON": (lambda: seal(FILES | {"runs.json": b"{"}), "runs.json is not JSON"),
    "a key twice": (lambda: seal(FILES | {"runs.json": b'{"format": 1, "format": 1}'}), "there twice"),
    "no records": (lambda: seal({ARRAYS: FILES[ARRAYS]}), "runs.json is missing"),
    "a field too many": (lambda: with_record(more=1), "more: unknown field"),
    "a run of the far future": (lambda: with_run(start_time_ms=10**18), "start_time_ms"),
    "a metric that is text": (lambda: with_run(metrics={"val_accuracy": "1"}), "metrics"),
    "an integer of a config that takes all memory": (
        lambda: with_run(config={"space": "micro", "num_epochs": 10**4000}),
        "too large",
    ),
    "a file of a run that climbs out": (
        lambda: with_run(files={"../evil.npz": ARRAYS}),
        "is not the name of a file",
    ),
    "a file of a run elsewhere": (lambda: with_run(files={"trajectory.npz": "/etc/passwd"}), "is not there"),
    "a run twice": (
        lambda: with_record(runs=json.loads(FILES["runs.json"])["runs"] * 2),
        "two runs have the same id",
    ),
    "arrays that are no archive": (lambda: seal(FILES | {ARRAYS: b"\x93NUMPY"}), "not a zip file"),
    "arrays that unpack to a thousand times their size": (
        lambda: with_arrays(scaling_ms_EP=np.zeros((16, 8_000_000))),
        "unpack to",
    ),
    "an array that calls a function": (
        lambda: with_arrays(epoch_E=np.array([Attack()] * 16)),
        "allow_pickle",
    ),
    "an array of another shape": (lambda: with_arrays(epoch_E=np.arange(3)), "trajectory.npz: "),
    "an operator that the space lacks": (
        lambda: with_arrays(derived_op_EL=np.full((16, 10), 99)),
        "derived_op_EL has 99",
    ),
    "a derived network of nothing": (
        lambda: seal(FILES | {f"{RUN}/architecture.json": b"{}"}),
        "architecture.json: ",
    ),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reason", BUNDLES)
def test_a_bundle_that_is_wrong_is_refused_and_runs_nothing(reason: str, command: Command) -> None:
    make, expected = BUNDLES[reason]
    Path("some.bundle").write_bytes(make())
    for arguments in (("verify", "some.bundle"), ("figures", "--from", "some.bundle", "--out", "out")):
        line = command.refuses(*arguments)
        assert line.startswith("tfnas: some.bundle: ")
        assert expected in line
    assert not Path(CANARY).exists()


def test_a_search_without_a_space_is_named(command: Command) -> None:
    (run,) = json.loads(FILES["runs.json"])["runs"]
    config = {name: value for name, value in run["config"].items() if name != "space"}
    Path("some.bundle").write_bytes(with_run(config=config))
    line = command.refuses("figures", "--from", "some.bundle", "--out", "out")
    assert "its config has no space" in line


def test_a_bundle_that_unpacks_to_much_more_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1_000_000)
    Path("some.bundle").write_bytes(with_member("zeros.csv", bytes(10**6)))
    assert "it unpacks to" in command.refuses("verify", "some.bundle")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("results/verdicts.json", b'{"a": 1}'),
        ("results/verdicts.json", b"[1]"),
        ("results/measures.json", b"[[]]"),
        ("results/measures.json", b"{"),
    ],
)
def test_results_that_are_something_else_are_refused(path: str, content: bytes, command: Command) -> None:
    Path("some.bundle").write_bytes(seal(FILES | {path: content}))
    assert path in command.refuses("verify", "some.bundle")


def test_records_that_cannot_belong_together_are_named() -> None:
    """They are no reason to stop: everything else is still compared."""
    files = FILES | {f"{RUN}/metrics.csv": b"epoch,val_accuracy\n1,0.5\n", "results/tables/a.csv": b'"\0'}
    (run,) = json.loads(files["runs.json"])["runs"]
    run["config"] |= {"num_epochs": 10**9, "num_warmup_epochs": 1}
    files |= {"runs.json": to_json(json.loads(files["runs.json"]) | {"runs": [run]})}
    checks = verify(BundleStore.of("some.bundle", files))
    found = [str(one) for check in checks for one in check.disagreements]
    assert any("a.csv" in one for one in found)
    assert any("cell" in one for one in found)


def test_a_bundle_that_is_a_pipe_is_not_waited_for(command: Command) -> None:
    import os

    os.mkfifo("some.bundle")
    assert "pipe" in command.refuses("verify", "some.bundle")
    assert "check the path" in command.refuses("verify", "none.bundle")


def test_the_bundle_that_the_others_are_made_of_is_read(tmp_path: Path) -> None:
    (tmp_path / "some.bundle").write_bytes(seal(FILES))
    (run,) = read_experiment("made_up", BundleStore.open(tmp_path / "some.bundle")).runs
    assert run.trajectory is not None
    assert run.trajectory.alpha_ELO is not None
