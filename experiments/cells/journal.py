"""What happened to a cell, on disk, before anybody else is told: one line of JSON an event.

The journal is the truth from which tracking is delivered, as often as it takes. Every epoch is in
it once, with the time at which it was first reported: delivered twice it stays one record.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nas.foundation.errors import UserError

Outcome = Literal["FINISHED", "FAILED", "KILLED", "PRUNED"]
"""How an attempt ended; KILLED is interrupted, to be continued, and PRUNED is ended early for good."""


@dataclass(frozen=True)
class Event:
    """One line of a journal.

    Attributes:
        kind: `start` of an attempt, `epoch`, or `end` of an attempt.
        time_ms: when, in ms since 1970.
        launch: for `start`, the launch that attempts the cell.
        epoch: for `epoch`, which one, from 1.
        metrics: for `epoch`.
        outcome: for `end`.
        reason: for `end` with FAILED or PRUNED, one line.
    """

    kind: Literal["start", "epoch", "end"]
    time_ms: int
    launch: str | None = None
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str | None = None


class Journal:
    """The events of one cell; one process writes, any may read.

    Raises:
        UserError: the file cannot be read or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self._num_bytes = 0
        if path.is_file():
            self._read()

    @property
    def epochs(self) -> dict[int, Event]:
        """The epochs that are done."""
        return {event.epoch: event for event in self.events if event.epoch is not None}

    @property
    def end(self) -> Event | None:
        """How the last attempt ended; None while one is running (or was cut off), or before any."""
        last = self.events[-1] if self.events else None
        return last if last and last.kind == "end" else None

    def start(self, launch: str | None) -> None:
        """A launch begins, or continues, the cell; None without a launch."""
        self._append(Event("start", _now_ms(), launch=launch))

    def add_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """An epoch is done; one that is there already stays as it is."""
        if epoch not in self.epochs:
            self._append(Event("epoch", _now_ms(), epoch=epoch, metrics=metrics))

    def finish(self, outcome: Outcome, reason: str | None = None) -> None:
        """The attempt ended."""
        self._append(Event("end", _now_ms(), outcome=outcome, reason=reason))

    def _append(self, event: Event) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {name: value for name, value in asdict(event).items() if value not in (None, {})}
        with self.path.open("ab") as file:
            # A line that a crash or a full disk cut off never happened.
            file.truncate(self._num_bytes)
            file.write(json.dumps(content).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._num_bytes = file.tell()
        self.events.append(event)

    def _read(self) -> None:
        content = self.path.read_bytes()
        self._num_bytes = content.rfind(b"\n") + 1
        try:
            self.events = [Event(**_as_dict(line)) for line in content[: self._num_bytes].splitlines()]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.path}: damaged ({error}); remove its folder to run the cell again"
            ) from None


def _as_dict(line: bytes) -> dict[str, Any]:
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("a line is no record")
    return content


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
