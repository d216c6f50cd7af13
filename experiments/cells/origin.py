"""Where a run comes from: the tags that MLflow shows as its source, user and version."""

import getpass
import subprocess
from functools import cache
from pathlib import Path

_PATIENCE_S = 5.0


def origin_tags(source: str) -> dict[str, str]:
    """Tags of a run that starts now.

    Args:
        source: the command, without folders.
    """
    found = {"mlflow.user": _user(), "mlflow.source.git.commit": _commit()}
    return {
        "mlflow.source.name": source,
        "mlflow.source.type": "LOCAL",
        **{name: value for name, value in found.items() if value},
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # A container may run as a user without a name.
        return ""


@cache
def _commit() -> str:
    """The commit of this source; empty if it is not in a repository, or was edited since."""
    here = Path(__file__)
    if not _git("ls-files", "--error-unmatch", here.name):
        # An installed package may lie in somebody else's repository.
        return ""
    return "" if _git("status", "--porcelain", "--untracked-files=no") else _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
