"""Measure how the steps of a search grow with batch size, resolution and depth of the space.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --batch-size 8 --resolution 32 --repeats 3

One of the three varies at a time, starting from batch size 32, 32x32 pixels and all layers. The table
shows medians of our steps, without the reference.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import click

from benchmarks.machine import describe_machine, print_table
from benchmarks.steps import Setting
from nas.space.macro_space import Space, get_space

BASE_BATCH_SIZE = 32
BASE_RESOLUTION = 32


def settings(
    space: Space, batch_sizes: tuple[int, ...], resolutions: tuple[int, ...]
) -> Iterator[tuple[str, Space, int]]:
    """For each row: what varies, the space, and the batch size."""
    base = space.at_resolution(BASE_RESOLUTION)
    for batch_size in batch_sizes:
        yield "batch size", base, batch_size
    for resolution in resolutions:
        yield "resolution", space.at_resolution(resolution), BASE_BATCH_SIZE
    for max_layers in range(1, max(stage.num_layers for stage in space.stages) + 1):
        yield "layers", limit_layers(base, max_layers), BASE_BATCH_SIZE


def limit_layers(space: Space, max_layers: int) -> Space:
    """The space with at most `max_layers` layers per stage."""
    stages = tuple(replace(spec, num_layers=min(spec.num_layers, max_layers)) for spec in space.stages)
    return replace(space, stages=stages)


def time_ours(space: Space, batch_size: int, num_repeats: int) -> dict[str, float]:
    """Median seconds of each step, by name, after one round of warm-up."""
    steps = Setting(space, batch_size, 1).steps("compiled")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_repeats + 1):
        for name, run in steps.items():
            start_s = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start_s)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


@click.command(help=__doc__)
@click.option("--space", "space_name", default="paper", show_default=True)
@click.option(
    "--batch-size", "batch_sizes", type=int, multiple=True, default=(8, 16, 32, 64), show_default=True
)
@click.option(
    "--resolution", "resolutions", type=int, multiple=True, default=(32, 64, 112), show_default=True
)
@click.option("--repeats", default=3, show_default=True)
def main(space_name: str, batch_sizes: tuple[int, ...], resolutions: tuple[int, ...], repeats: int) -> None:
    """Prints a Markdown table."""
    print(describe_machine())
    rows = []
    for varied, space, batch_size in settings(get_space(space_name), batch_sizes, resolutions):
        seconds = time_ours(space, batch_size, repeats)
        measured = [f"{seconds[name]:.3f}" for name in ("weight step", "architecture step")]
        rows.append([varied, batch_size, space.resolution, len(space.layers), *measured])
    print_table(["varied", "batch size", "input", "layers", "weight step, s", "architecture step, s"], rows)


if __name__ == "__main__":
    main()
