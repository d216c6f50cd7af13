"""Compare the steps of a search with the plain reference: time and memory.

    python -m benchmarks.steps
    python -m benchmarks.steps --resolution 32 --repeats 7

The sides are the compiled kernels, torch's kernels, and the reference. Each runs in its own process,
because a search also sets how its process allocates memory. Each repeat times the weight step (two paths)
and the architecture step of all sides back to back, on the same batch, paths and Gumbel noise. A joint
epoch combines two weight steps and one architecture step; ratios are medians over the repeats. Peak memory
is that of a fresh process, beyond what it held before the step.
"""

import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import click
import torch

from benchmarks.machine import describe_machine, print_table
from nas.config import SearchConfig
from nas.foundation.device import keep_freed_memory
from nas.latency.table import LatencyTable
from nas.space.macro_space import Space, get_space
from nas.supernet.kernels import block_of
from nas.supernet.sampling import SAMPLINGS, sample_first_path, sample_gumbel
from nas.supernet.steps import SearchSteps
from nas.supernet.supernet import Supernet
from tests.support.reference_supernet import ReferenceStep, reference_of
from tests.support.tiny import make_dense_table

Side = Literal["reference", "torch", "compiled"]
SIDES: tuple[Side, ...] = get_args(Side)
STEP_NAMES = ("weight step", "architecture step")
JOINT_EPOCH = "joint epoch (2:1)"
NUM_CLASSES = 100
TEMPERATURE = 5.0


class Setting:
    """One batch, and the steps of each side on that batch."""

    def __init__(self, space: Space, batch_size: int, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self.generator = torch.Generator().manual_seed(0)
        shape = (batch_size, 3, space.resolution, space.resolution)
        self.images_BCHW = torch.randn(shape, generator=self.generator)
        self.labels_B = torch.randint(NUM_CLASSES, (batch_size,), generator=self.generator)
        self.config = SearchConfig(space="paper", target_latency_ms=10.0)
        self.table: LatencyTable = make_dense_table(space)
        self.supernet = Supernet(space, NUM_CLASSES)

    def steps(self, side: Side) -> dict[str, Callable[[], Any]]:
        """The weight step and the architecture step of one side."""
        log_alpha_LO = self.supernet.log_alpha().detach()
        noise = torch.Generator().manual_seed(1)

        def draw_paths() -> list[list[int]]:
            first_L = sample_first_path(log_alpha_LO, self.generator)
            second_L = SAMPLINGS["bi_random"](log_alpha_LO, first_L, self.generator)
            assert second_L is not None
            return [first_L.tolist(), second_L.tolist()]

        if side != "reference":
            keep_freed_memory()
            self.supernet.set_blocks(lambda: block_of(side, torch.device("cpu")))
            ours = SearchSteps(self.supernet, self.config, self.table)
            images_BCHW = self.images_BCHW.contiguous(memory_format=torch.channels_last)
            return {
                "weight step": lambda: ours.weight_step(images_BCHW, self.labels_B, draw_paths()),
                "architecture step": lambda: ours.arch_step(images_BCHW, self.labels_B, TEMPERATURE, noise),
            }
        reference = ReferenceStep(reference_of(self.supernet, NUM_CLASSES), self.config, self.table)
        return {
            "weight step": lambda: reference.weight_step(self.images_BCHW, self.labels_B, draw_paths()),
            "architecture step": lambda: reference.arch_step(
                self.images_BCHW, self.labels_B, sample_gumbel(log_alpha_LO.shape, noise), TEMPERATURE
            ),
        }


def time_steps(space: Space, batch_size: int, num_repeats: int) -> dict[str, dict[Side, list[float]]]:
    """Seconds of each step, and of a joint epoch's three, by side; in turn after one round of warm-up."""
    seconds: dict[str, dict[Side, list[float]]] = {name: {side: [] for side in SIDES} for name in STEP_NAMES}
    with ExitStack() as stack:
        pipes = {side: stack.enter_context(_stepping_process(space, batch_size, side)) for side in SIDES}
        for repeat in range(num_repeats + 1):
            for name, by_side in seconds.items():
                for side in SIDES:
                    pipes[side].send((name, repeat))
                    step_s = pipes[side].recv()
                    if repeat > 0:
                        by_side[side].append(step_s)
    seconds[JOINT_EPOCH] = {
        side: [2 * weight_s + arch_s for weight_s, arch_s in zip(*each, strict=True)]
        for side, *each in zip(SIDES, *(seconds[name].values() for name in STEP_NAMES), strict=True)
    }
    return seconds


@contextmanager
def _stepping_process(space: Space, batch_size: int, side: Side) -> Iterator[Any]:
    """A process that receives the name and repeat of a step, runs it, and sends back its seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_step_when_told, args=(there, space, batch_size, side))
    process.start()
    try:
        yield here
    finally:
        here.send(None)
        process.join()


def _step_when_told(pipe: Any, space: Space, batch_size: int, side: Side) -> None:
    setting = Setting(space, batch_size, 1)
    steps = setting.steps(side)
    while (told := pipe.recv()) is not None:
        name, repeat = told
        # The same paths on all sides, different ones in each repeat.
        setting.generator.manual_seed(repeat)
        start_s = time.perf_counter()
        steps[name]()
        pipe.send(time.perf_counter() - start_s)


def measure_peak_mib(space: Space, batch_size: int, side: Side, step: str) -> float:
    """Peak memory of one step in a fresh process, beyond what the process held before, in MiB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(sender, space, batch_size, side, step))
    process.start()
    peak_mib: float = receiver.recv()
    process.join()
    return peak_mib


def _send_peak(sender: Any, space: Space, batch_size: int, side: Side, step: str) -> None:
    # A step at a low resolution compiles the loops and loads the kernels.
    for run in Setting(space.at_resolution(32), 2, 1).steps(side).values():
        run()
    run = Setting(space, batch_size, 1).steps(side)[step]
    # Return freed memory to the system, or the step would reuse it unseen.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # Writing 5 resets the high-water mark of resident memory to the current value.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before_kib = _status_kib("VmRSS")
    run()
    sender.send((_status_kib("VmHWM") - before_kib) / 1024)


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


@click.command(help=__doc__)
@click.option("--space", "space_name", default="paper", show_default=True)
@click.option(
    "--resolution", "resolutions", type=int, multiple=True, default=(32, 64, 224), show_default=True
)
@click.option("--batch-size", default=32, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--memory/--no-memory", default=True, show_default=True)
def main(space_name: str, resolutions: tuple[int, ...], batch_size: int, repeats: int, memory: bool) -> None:
    """Prints two Markdown tables."""
    print(describe_machine())
    time_rows, memory_rows = [], []
    for resolution in resolutions:
        space = get_space(space_name).at_resolution(resolution)
        for name, by_side in time_steps(space, batch_size, repeats).items():
            medians = [f"{statistics.median(values):.3f}" for values in by_side.values()]
            ratios = [_describe_ratio(by_side["reference"], by_side[side]) for side in SIDES[1:]]
            time_rows.append([resolution, name, *medians, *ratios])
        for step in STEP_NAMES if memory else ():
            peaks = [measure_peak_mib(space, batch_size, side, step) for side in SIDES]
            memory_rows.append([resolution, step, *(f"{peak:.0f}" for peak in peaks)])
    ratio_names = [f"reference / {side}" for side in SIDES[1:]]
    print_table(["input", "step", *(f"{side}, s" for side in SIDES), *ratio_names], time_rows)
    if memory:
        print_table(["input", "step", *(f"{side}, MiB" for side in SIDES)], memory_rows)


def _describe_ratio(base: list[float], values: list[float]) -> str:
    ratios = [one / other for one, other in zip(base, values, strict=True)]
    return f"{statistics.median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f})"


if __name__ == "__main__":
    main()
