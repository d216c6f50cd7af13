"""Find the best use of two cores: two searches of one thread each, or one search of two threads.

    python -m benchmarks.threads
    python -m benchmarks.threads --space micro --repeats 1

Two searches of two epochs run side by side, then the same two run one after the other.
"""

import multiprocessing
import statistics
import tempfile
from pathlib import Path

import click

from benchmarks.bare_loop import search
from benchmarks.machine import describe_machine, print_table
from benchmarks.searches import NUM_PARALLEL, Searches, seconds_of

NUM_IMAGES = {"micro": 1500, "small32": 200}
"""Training images per space, for searches of some seconds."""


def report_threads(kinds: dict[str, Searches], num_repeats: int) -> None:
    """Prints how much faster two searches run side by side than one after the other."""
    rows = []
    for name, searches in kinds.items():
        apart_s, joined_s = time_threads(searches, num_repeats)
        ratios = [joined / apart for joined, apart in zip(joined_s, apart_s, strict=True)]
        rows.append(
            [
                f"`{name}`",
                f"{statistics.median(apart_s):.1f}",
                f"{statistics.median(joined_s):.1f}",
                f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})",
            ]
        )
    print_table(
        ["two searches", "side by side, 1 thread each, s", "in turn, 2 threads, s", "throughput"], rows
    )


def time_threads(searches: Searches, num_repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of two searches side by side with one thread each, and in turn with two threads."""
    apart, joined = ([searches.fields(seed, num_threads) for seed in range(2)] for num_threads in (1, 2))
    with multiprocessing.get_context("spawn").Pool(NUM_PARALLEL) as pool:

        def run_apart() -> None:
            pool.map(search, apart, chunksize=1)

        def run_joined() -> None:
            for fields in joined:
                pool.apply(search, [fields])

        # One unmeasured run, for everything that a process sets up once.
        run_apart()
        times_s = [(seconds_of(run_apart), seconds_of(run_joined)) for _ in range(num_repeats)]
    return [apart_s for apart_s, _ in times_s], [joined_s for _, joined_s in times_s]


@click.command(help=__doc__)
@click.option(
    "--space",
    "spaces",
    type=click.Choice(list(NUM_IMAGES)),
    multiple=True,
    default=tuple(NUM_IMAGES),
    show_default=True,
)
@click.option("--repeats", default=3, show_default=True)
def main(spaces: tuple[str, ...], repeats: int) -> None:
    """Prints a Markdown table."""
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        report_threads({space: Searches(Path(folder), space, NUM_IMAGES[space]) for space in spaces}, repeats)


if __name__ == "__main__":
    main()
