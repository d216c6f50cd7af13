"""Time elasticity-scaling of one network, as it follows every joint epoch.

    python -m benchmarks.elasticity

The networks are random. Each is scaled to a target up to 30 % below or above its latency.
"""

import statistics
import time

import click
import numpy as np

from benchmarks.machine import describe_machine, print_table
from nas.latency.elasticity import elasticity_scaling
from nas.space.architecture import draw_architecture
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

GOAL_MS = 50


@click.command(help=__doc__)
@click.option("--space", "space_name", default="paper", show_default=True)
@click.option("--networks", "num_networks", default=100, show_default=True)
def main(space_name: str, num_networks: int) -> None:
    """Prints a Markdown table."""
    print(describe_machine())
    space = get_space(space_name)
    table = make_dense_table(space)
    rng = np.random.default_rng(0)
    networks = [draw_architecture(space, rng) for _ in range(num_networks)]
    targets_ms = [table.latency_ms(network) * rng.uniform(0.7, 1.3) for network in networks]
    rows = []
    for refine in (False, True):
        times_ms = []
        for network, target_ms in zip(networks, targets_ms, strict=True):
            start_s = time.perf_counter()
            elasticity_scaling(network, table, target_ms, refine=refine)
            times_ms.append((time.perf_counter() - start_s) * 1000)
        rows.append(
            (
                "with refinement" if refine else "as published",
                f"{statistics.median(times_ms):.1f}",
                f"{max(times_ms):.1f}",
            )
        )
    rows.append(("goal in `paper`", f"<= {GOAL_MS}", ""))
    print_table((f"`{space_name}`, {num_networks} networks", "median, ms", "slowest, ms"), rows)


if __name__ == "__main__":
    main()
