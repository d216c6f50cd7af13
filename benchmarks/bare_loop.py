"""Run searches in plain processes, without Ray and MLflow; `benchmarks.overhead` compares a grid with this.

    python -m benchmarks.bare_loop SEARCHES.json NUM_PROCESSES

The file is a list of pairs: the fields of a search and the folder of its checkpoints.
"""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any


def search(fields: dict[str, Any], checkpoint_dir: str | None = None) -> None:
    """Runs one search."""
    # Imported here, so that only the processes that search import torch.
    from nas.config import SearchConfig
    from nas.search.search import run_search

    for _ in run_search(
        SearchConfig(**fields), checkpoint_dir=Path(checkpoint_dir) if checkpoint_dir else None
    ):
        pass


def main() -> None:
    searches_file, num_processes = sys.argv[1:]
    searches = json.loads(Path(searches_file).read_text(encoding="utf-8"))
    with multiprocessing.get_context("spawn").Pool(int(num_processes)) as pool:
        pool.starmap(search, searches, chunksize=1)


if __name__ == "__main__":
    main()
