"""Runs the real command in this process, within bounds, and looks at all that it leaves behind."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# The second only so that its libraries are loaded before memory is bounded.
from experiments.cli import main as cli
from experiments.launching import dry_run as dry_run

MAX_MEMORY_BYTES = 1_500_000_000
"""What a refusal may take beyond what the process has."""


class Command:
    """`tfnas` in a folder of its own."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def refuses(self, *arguments: str) -> str:
        """Runs the command, which must refuse: one line, exit code 2, nothing done; returns the line."""
        before = self._files()
        self._capture.readouterr()
        with pytest.MonkeyPatch.context() as patch, _bounded_memory():
            patch.setattr(sys, "argv", ["tfnas", *arguments])
            with pytest.raises(SystemExit) as caught:
                cli.main()
        shown = self._capture.readouterr()
        assert caught.value.code == 2, shown
        assert shown.out == ""
        line = shown.err.removesuffix("\n")
        assert line.isprintable(), shown.err
        assert line.startswith("tfnas: ")
        assert len(line) < 1100
        assert self._files() == before
        return line

    def _files(self) -> set[Path]:
        return set(self.folder.rglob("*"))


@contextmanager
def _bounded_memory() -> Iterator[None]:
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = num_pages * resource.getpagesize() + MAX_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
