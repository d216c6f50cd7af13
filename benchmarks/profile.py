"""Show where the time of a step goes, by kind of work.

    python -m benchmarks.profile
    python -m benchmarks.profile --resolution 32 --repeats 1

Torch's profiler measures the shares, with one thread. The functions and compiled loops of
`nas/supernet/compiled` appear in it by name. Profiling itself takes time, so read the shares and not the
seconds. A second table times the matrix products of an architecture step alone, without the profiler: a
step cannot take less.
"""

import functools
import importlib
import os
import pkgutil
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import click
import numpy as np
import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

import nas.supernet.compiled
from benchmarks.machine import describe_machine, print_table
from benchmarks.steps import Setting
from nas.space.macro_space import LayerSpec, Space, get_space
from nas.space.operators import CANDIDATE_OPS, CandidateOp
from nas.supernet.compiled.matrix_product import multiply

KINDS = {
    "depthwise, forward": r"kernel: depthwise_conv$",
    "depthwise, input gradient": r"kernel: depthwise_input_gradient$",
    "depthwise, weight gradient": r"kernel: depthwise_weight_gradient$",
    "before it: product, batch norm, activation": r"kernel: (fold|expand\w*|\w*activate)$",
    "before it, backward": r"kernel: (folded|finish_folded|whole)_backward$",
    "after it: batch norm, activation, SE, products, sum": r"kernel: project$",
    "after it, backward": r"kernel: project_backward$",
    "optimizer and clipping": r"Optimizer\.|aten::_foreach|aten::_fused_sgd|linalg_vector_norm",
    "stem and head": r"aten::(\w*convolution\w*|native_batch_norm\w*|relu_?|silu\w*)$",
    "copies and fills": r"aten::(copy_|fill_|zero_|empty_strided)$",
}
"""Patterns of names by kind of work. Work that matches two kinds counts for the first."""

REST = "rest: autograd, views, Python"


def kind_of(event: FunctionEvent) -> str:
    """The kind of a piece of work, by its name and the names of the work around it."""
    names = [event.name]
    while event.cpu_parent is not None:
        event = event.cpu_parent
        names.append(event.name)
    matching = (kind for kind, pattern in KINDS.items() if any(re.search(pattern, name) for name in names))
    return next(matching, REST)


@contextmanager
def visible_kernels() -> Iterator[None]:
    """Makes the functions and loops of `nas/supernet/compiled` that Python calls visible to the profiler.

    Everything that a step uses must be compiled before, because a loop cannot call the stand-in of
    another loop.
    """
    with ExitStack() as patches:
        for each in pkgutil.iter_modules(nas.supernet.compiled.__path__, "nas.supernet.compiled."):
            module = importlib.import_module(each.name)
            for name, value in list(vars(module).items()):
                if callable(value) and not isinstance(value, type) and _is_kernel(value):
                    patches.enter_context(patch.object(module, name, _visible(value)))
        yield


def _is_kernel(function: Callable[..., Any]) -> bool:
    return getattr(function, "__module__", "").startswith("nas.supernet.compiled.")


def _visible(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        with record_function(f"kernel: {function.__name__}"):
            return function(*arguments, **options)

    return run


def profile_step(run: Callable[[], Any], num_repeats: int) -> Counter[str]:
    """Milliseconds of one step by kind of work, as means over the repeats."""
    # These runs compile the loops and take memory from the system.
    for _ in range(2):
        run()
    with visible_kernels(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(num_repeats):
            with record_function("step"):
                run()
    ms_of: Counter[str] = Counter()
    for event in profiler.events():
        ms_of[kind_of(event)] += event.self_cpu_time_total / 1000 / num_repeats
    return ms_of


class Product(NamedTuple):
    """One matrix product, (rows, inner) by (inner, columns)."""

    rows: int
    inner: int
    columns: int


def products_of(layer: LayerSpec, op: CandidateOp, batch_size: int) -> list[Product]:
    """The products that a candidate cannot avoid: forward, and backward to its input."""
    width, reduced = op.initial_width(layer.in_channels), op.se_channels(layer.in_channels)
    pixels = batch_size * layer.resolution**2
    out_pixels = batch_size * (-(-layer.resolution // layer.stride)) ** 2
    forward = [
        Product(pixels, layer.in_channels, width),
        *([Product(batch_size, width, reduced), Product(batch_size, reduced, width)] if reduced else []),
        Product(out_pixels, width, layer.out_channels),
    ]
    return forward + [Product(rows, columns, inner) for rows, inner, columns in reversed(forward)]


def products_floor(space: Space, batch_size: int, num_repeats: int = 5) -> tuple[float, float]:
    """GFLOP of the products of an architecture step, and the seconds that they take alone.

    Each product has its own operands, as in a step, so weights come from main memory.
    """
    runs = [
        (
            *(torch.randn(shape).numpy() for shape in ((rows, inner), (inner, columns))),
            torch.empty(rows, columns).numpy(),
        )
        for layer in space.layers
        for op in CANDIDATE_OPS
        for rows, inner, columns in products_of(layer, op, batch_size)
    ]
    gflop = sum(2 * a.size * b.shape[1] for a, b, _ in runs) / 1e9
    all_s = []
    for _ in range(num_repeats):
        start_s = time.perf_counter()
        for a, b, out in runs:
            multiply(a, False, b, False, np.float32(1), np.float32(0), out)
        all_s.append(time.perf_counter() - start_s)
    return gflop, statistics.median(all_s)


@click.command(help=__doc__)
@click.option("--space", "space_name", default="paper", show_default=True)
@click.option("--resolution", "resolutions", type=int, multiple=True, default=(32, 64), show_default=True)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(space_name: str, resolutions: tuple[int, ...], batch_size: int, repeats: int) -> None:
    """Prints two Markdown tables."""
    # The profiler reports its own starts and stops as errors.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    print(describe_machine())
    columns: dict[str, Counter[str]] = {}
    for resolution in resolutions:
        steps = Setting(get_space(space_name).at_resolution(resolution), batch_size, 1).steps("compiled")
        for name, run in steps.items():
            columns[f"{name} at {resolution}"] = profile_step(run, repeats)
    rows = [
        [kind, *(f"{100 * ms_of[kind] / ms_of.total():.0f} %" for ms_of in columns.values())]
        for kind in (*KINDS, REST)
    ]
    rows.append(["all, ms", *(f"{ms_of.total():.0f}" for ms_of in columns.values())])
    print_table(["work", *columns], rows)
    floors = [
        products_floor(get_space(space_name).at_resolution(resolution), batch_size)
        for resolution in resolutions
    ]
    print_table(
        ["matrix products of an architecture step alone", *map(str, resolutions)],
        [
            ["GFLOP", *(f"{gflop:.1f}" for gflop, _ in floors)],
            ["seconds", *(f"{seconds:.3f}" for _, seconds in floors)],
            ["GFLOP/s", *(f"{gflop / seconds:.0f}" for gflop, seconds in floors)],
        ],
    )


if __name__ == "__main__":
    main()
