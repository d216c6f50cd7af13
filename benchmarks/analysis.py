"""Read and draw 1,000 runs of 50 epochs from one MLflow SQLite store, and print time and memory.

    python -m benchmarks.analysis [--runs 1000] [--out FOLDER]

The store is built first, which takes some minutes, unless FOLDER already has it. Its searches are
synthetic, as in the tests. The exit code is 1 if all figures take a minute or more, or 2 GB or more.
"""

import argparse
import itertools
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import describe_machine, print_table
from tests.support.synthetic import Store

EXPERIMENT = "scale"
MAX_SECONDS = 60.0
MAX_GIGABYTES = 2.0
_MEASURED = """
import resource, sys
from experiments.cli.main import tfnas
tfnas(sys.argv[1:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
EPOCHS = {"num_epochs": 50, "num_warmup_epochs": 10}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="runs in the store")
    parser.add_argument("--out", type=Path, default=Path("results/bench-analysis"), metavar="FOLDER")
    arguments = parser.parse_args()
    folder = arguments.out / f"{arguments.runs}-runs"
    print(describe_machine())
    made = make_store(folder, arguments.runs)
    making = f", built in {made:.0f} s" if made else ""
    print(f"{arguments.runs} runs of {EPOCHS['num_epochs']} epochs in {folder}{making}")
    rows = []
    is_met = True
    for command in ("figures", "report"):
        seconds, gigabytes = run_command(command, folder)
        if command == "figures":
            is_met = seconds < MAX_SECONDS and gigabytes < MAX_GIGABYTES
        rows.append((f"tfnas {command}", f"{seconds:.1f}", f"{gigabytes:.2f}"))
    rows.append(("goal (figures)", f"< {MAX_SECONDS:.0f}", f"< {MAX_GIGABYTES:.0f}"))
    print_table(("command", "time (s)", "peak memory (GB)"), rows)
    sys.exit(0 if is_met else 1)


def make_store(folder: Path, num_runs: int) -> float | None:
    """Writes the store; returns the seconds it took, or None if it existed already."""
    complete = folder / "complete"
    if complete.exists():
        return None
    start_s = time.perf_counter()
    store = Store(folder.absolute(), EXPERIMENT)
    cells = itertools.product(
        range(num_runs), (0.7, 0.9, 1.1, 1.3, 1.5), ("single", "bi_random"), ("skip", "sink"), (False, True)
    )
    for seed, target, sampling, depth, elasticity in itertools.islice(cells, num_runs):
        cell = {
            "target_latency_ms": target,
            "sampling": sampling,
            "depth": depth,
            "elasticity": elasticity,
            "seed": seed,
        }
        store.add(EPOCHS | cell, list(cell))
    complete.touch()
    return time.perf_counter() - start_s


def run_command(command: str, folder: Path) -> tuple[float, float]:
    """Wall-clock seconds and peak memory in GB of `tfnas COMMAND`, including the start of Python."""
    start_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, command, EXPERIMENT, "--out", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - start_s
    return seconds, int(done.stdout.split()[-1]) / 1e6


if __name__ == "__main__":
    main()
