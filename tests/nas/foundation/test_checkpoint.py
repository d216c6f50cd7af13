import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.foundation.checkpoint import find_checkpoints, load_newest_checkpoint, save_checkpoint
from nas.foundation.errors import UserError
from nas.search.record_states import records_from_state, records_to_state
from nas.search.records import EpochRecord
from nas.space.macro_space import get_space
from tests.support.tiny import full_depth_architecture


def state_of(epoch: int) -> dict[str, object]:
    return {"weights": torch.full((3, 4), epoch / 3), "lr": 0.1 * epoch, "names": ["a", None]}


def test_the_newest_state_comes_back_exactly(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path / "new", epoch, state_of(epoch), "search")
    state = load_newest_checkpoint(tmp_path / "new", "search")
    assert state is not None
    assert torch.equal(state["weights"], torch.full((3, 4), 1.0))
    assert state["lr"] == 0.1 * 3
    assert state["names"] == ["a", None]


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert load_newest_checkpoint(tmp_path, "search") is None
    assert load_newest_checkpoint(tmp_path / "missing", "search") is None


def test_the_last_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-00001-0.pt.partial").write_bytes(b"from a killed process")
    for epoch in (1, 2, 3, 4):
        save_checkpoint(tmp_path, epoch, state_of(epoch), "search")
    assert [path.name[:16] for path in sorted(tmp_path.iterdir())] == ["checkpoint-00003", "checkpoint-00004"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_newest_falls_back_to_the_one_before_with_a_warning(tmp_path: Path, damage: str) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, epoch, state_of(epoch), "search")
    newest = find_checkpoints(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    newest.write_bytes({"truncate": content[:-9], "flip": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match="damaged"):
        state = load_newest_checkpoint(tmp_path, "search")
    assert state is not None
    assert state["lr"] == 0.1


def test_an_epoch_written_again_replaces_its_damaged_file(tmp_path: Path) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, epoch, state_of(epoch), "search")
    find_checkpoints(tmp_path)[-1].write_bytes(b"damaged")
    path = save_checkpoint(tmp_path, 2, state_of(20), "search")
    assert len(find_checkpoints(tmp_path)) == 2
    assert find_checkpoints(tmp_path)[-1] == path


def test_a_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state_of(1), "search")
    with pytest.raises(UserError, match="checkpoint of another"):
        load_newest_checkpoint(tmp_path, "other search")


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "attacked"),)

    save_checkpoint(tmp_path, 1, state_of(1), "search")
    save_checkpoint(tmp_path, 2, {"attack": Attack()}, "search")
    with pytest.warns(UserWarning, match="damaged"):
        assert load_newest_checkpoint(tmp_path, "search") is not None
    assert not (tmp_path / "attacked").exists()


def test_a_write_that_fails_leaves_the_former_checkpoints_and_no_litter(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, state_of(1), "search")
    before = list(tmp_path.iterdir())
    num_bytes = find_checkpoints(tmp_path)[0].stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_checkpoint(tmp_path, 2, state_of(2), "search")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == before
    assert load_newest_checkpoint(tmp_path, "search") is not None


def test_records_survive_the_file_exactly(tmp_path: Path) -> None:
    record = EpochRecord(
        epoch=3,
        phase="joint",
        metrics={"train_loss": 0.1 + 0.2, "arch_loss": float("nan")},
        architecture=full_depth_architecture(get_space("micro")),
        arrays={"alpha_ELO": np.random.rand(2, 3).astype(np.float32), "redundant_E": np.array(True)},
    )
    save_checkpoint(tmp_path, 3, {"records": records_to_state([record])}, "s")
    state = load_newest_checkpoint(tmp_path, "s")
    assert state is not None
    (loaded,) = records_from_state(state["records"])
    assert loaded.architecture == record.architecture
    assert loaded.metrics["train_loss"] == 0.1 + 0.2
    assert np.array_equal(loaded.arrays["alpha_ELO"], record.arrays["alpha_ELO"])
    assert loaded.arrays["alpha_ELO"].dtype == np.float32
    assert loaded.arrays["redundant_E"].dtype == np.bool_
    assert loaded.arrays["redundant_E"].shape == ()
