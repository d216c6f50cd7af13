"""`tfnas` in the process of the tests: one of its own takes five seconds to import what this one has.

That the command works as a process of its own is what tests of `faults`, of plugins and of imports say.
"""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

import pytest

from experiments.cli import main as cli


def tfnas(*arguments: str) -> CompletedProcess[str]:
    """Runs the command without a tracking server; returns its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sys, "argv", ["tfnas", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    code = int(caught.value.code or 0)
    return CompletedProcess(["tfnas", *arguments], code, out.getvalue(), err.getvalue())
