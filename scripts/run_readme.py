"""Run the commands of README.md, block by block and in order, until one fails.

Blocks fenced as `sh` and `python` run. Blocks that start a server, or that need something this machine
may lack, are fenced as `console`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
INTERPRETERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


def main() -> int:
    """Runs all blocks; returns the exit code of the first command that fails, or 0."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if {language for language, _ in blocks} != INTERPRETERS.keys():
        print(f"README.md lacks a block of {' or '.join(INTERPRETERS)}", file=sys.stderr)
        return 1
    # Whether the commands work does not depend on how good the lookup tables are.
    env = os.environ | {"TFNAS_EVEN_IF_BUSY": "1"}
    for language, block in blocks:
        print(f"--- README ---\n{block}", flush=True)
        code = subprocess.run([*INTERPRETERS[language], block], cwd=ROOT, env=env, check=False).returncode
        if code:
            print(f"README.md: this block failed with exit code {code}:\n{block}", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
