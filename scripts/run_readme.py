"""Run the shell commands of README.md, block by block and in order, until one fails.

Only blocks fenced as `sh` run. Blocks that start a server, or that need something this machine may
lack, are fenced as `console`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Runs all blocks; returns the exit code of the first command that fails, or 0."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    if not blocks:
        print("README.md has no `sh` block, so there is nothing to run", file=sys.stderr)
        return 1
    for block in blocks:
        print(f"--- README ---\n{block}", flush=True)
        code = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=ROOT, check=False).returncode
        if code:
            print(f"README.md: this block failed with exit code {code}:\n{block}", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
