"""The journal of a cell: one line of JSON per event, on disk before anything else happens with it.

The journal is the truth; it is delivered to MLflow as often as that takes. It holds every epoch once, with
the time of its first report: an epoch that is delivered twice stays one record.
"""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from nas.foundation.errors import UserError
from nas.foundation.uris import redact

Outcome = Literal["FINISHED", "FAILED", "KILLED", "PRUNED"]
"""How an attempt ended: KILLED is interrupted and can resume, PRUNED was ended early for good."""


@dataclass(frozen=True)
class Event:
    """One line of a journal.

    Attributes:
        kind: `start` of an attempt, `epoch`, or `end` of an attempt.
        time_ms: ms since 1970.
        launch: for `start`: the launch that attempts the cell.
        epoch: for `epoch`: its number, from 1.
        metrics: for `epoch`.
        outcome: for `end`.
        reason: for `end` with FAILED or PRUNED: why, in one line.
    """

    kind: Literal["start", "epoch", "end"]
    time_ms: int
    launch: str | None = None
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str | None = None


class Journal:
    """The events of one cell; one process writes them, any may read them.

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
        """The epochs that are done, by number."""
        return {event.epoch: event for event in self.events if event.epoch is not None}

    @property
    def end(self) -> Event | None:
        """The end of the last attempt; None before the first, while one runs, and after one was cut off."""
        last = self.events[-1] if self.events else None
        return last if last and last.kind == "end" else None

    @property
    def is_open(self) -> bool:
        """Whether an attempt began that has no end: it runs, or was cut off."""
        return bool(self.events) and self.end is None

    @property
    def is_finished(self) -> bool:
        """Whether the last attempt came to its regular end."""
        return self.end is not None and self.end.outcome == "FINISHED"

    def start(self, launch: str | None) -> None:
        """Records that an attempt starts; `launch` is None outside a launch."""
        self._append(Event("start", _now_ms(), launch=launch))

    def add_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Records an epoch, unless the journal has it already."""
        if epoch not in self.epochs:
            self._append(Event("epoch", _now_ms(), epoch=epoch, metrics=metrics))

    def finish(self, outcome: Outcome, reason: str | None = None) -> None:
        """Records the end of the attempt."""
        self._append(Event("end", _now_ms(), outcome=outcome, reason=reason))

    def _append(self, event: Event) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {name: value for name, value in asdict(event).items() if value not in (None, {})}
        with self.path.open("ab") as file:
            # Removes a line that a crash or a full disk cut off.
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
            self.events = [Event(**json.loads(line)) for line in content[: self._num_bytes].splitlines()]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{self.path}: damaged ({error}); remove its folder to run the cell again"
            ) from None


def describe_failure(error: Exception) -> str:
    """An exception in one line, without secrets of URIs, for the reason of an event."""
    text = redact(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
