import json
from pathlib import Path

import pytest

from experiments.cells.journal import Journal
from nas.foundation.errors import UserError


def make_journal(path: Path) -> Journal:
    journal = Journal(path)
    journal.start("launch")
    journal.add_epoch(1, {"train_loss": 2.0, "val_accuracy": float("nan")})
    journal.add_epoch(2, {"train_loss": 0.1 + 0.2})
    return journal


def test_another_process_reads_exactly_what_was_written(tmp_path: Path) -> None:
    make_journal(tmp_path / "journal.jsonl").finish("FAILED", "loss is nan")
    journal = Journal(tmp_path / "journal.jsonl")
    assert [event.kind for event in journal.events] == ["start", "epoch", "epoch", "end"]
    assert journal.epochs[2].metrics == {"train_loss": 0.1 + 0.2}
    assert journal.epochs[1].metrics["val_accuracy"] != journal.epochs[1].metrics["val_accuracy"]
    assert journal.end is not None
    assert (journal.end.outcome, journal.end.reason) == ("FAILED", "loss is nan")


def test_an_epoch_reported_again_stays_as_it_was_first(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "journal.jsonl")
    first = journal.epochs[2]
    journal.add_epoch(2, {"train_loss": 9.0})
    assert Journal(tmp_path / "journal.jsonl").epochs[2] == first


def test_a_line_cut_off_by_a_crash_never_happened(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    make_journal(path)
    complete = path.read_bytes()
    last_line = len(complete.splitlines(keepends=True)[-1])
    for cut in range(1, last_line):
        path.write_bytes(complete[:-cut])
        journal = Journal(path)
        assert sorted(journal.epochs) == [1]
        journal.add_epoch(2, {"train_loss": 0.5})
        assert sorted(Journal(path).epochs) == [1, 2]
        assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_reader_never_changes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    make_journal(path)
    cut_off = path.read_bytes()[:-5]
    path.write_bytes(cut_off)
    Journal(path)
    assert path.read_bytes() == cut_off


def test_an_attempt_is_open_until_it_ends(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.end is None
    journal.start("launch 1")
    journal.finish("KILLED")
    assert journal.end is not None
    journal.start("launch 2")
    assert journal.end is None


@pytest.mark.parametrize(
    "content",
    ["nonsense\n", "[]\n", '{"kind": "start"}\n', '{"kind": "start", "time_ms": 1, "x": 2}\n', "1\n"],
)
def test_a_damaged_journal_is_refused_with_the_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="damaged") as caught:
        Journal(path)
    assert "\n" not in str(caught.value)
