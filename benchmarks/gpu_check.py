"""Check on a GPU that searches compute what they compute on the CPU, resume, wait for nothing, and how fast.

    make gpu-check
    python -m benchmarks.gpu_check --out results

It takes up to 8 minutes and needs torch, torchvision, numpy, scipy and pydantic, beside this folder. It
writes `gpu-check.json` and `gpu-check.md`, and ends with 1 if a check failed, and with 2 if there is no GPU.
"""

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

# Before what imports psutil.
import benchmarks.unknown_load  # noqa: F401
from nas.config import SearchConfig
from nas.foundation.device import determinism, gpu_settings, resolve_device, upload
from nas.foundation.errors import UserError
from nas.latency.calibration import Agreement, predict_ms, time_architectures
from nas.latency.measurement import measure_table
from nas.latency.table import reachable_interval_ms
from nas.latency.timing import device_name
from nas.search.search import run_search
from nas.space.architecture import draw_architecture
from nas.space.macro_space import Space, get_space
from nas.supernet.kernels import Kernels, block_of, choose_kernels
from nas.supernet.sampling import sample_gumbel
from nas.supernet.steps import SearchSteps
from nas.supernet.supernet import Supernet
from tests.support.reference_supernet import ReferenceStep, reference_of
from tests.support.tiny import TINY, assert_identical, make_dense_table, register_tiny_spaces

LIMIT_S = 480.0
NUM_CLASSES = 100
TEMPERATURE = 5.0
CPU = torch.device("cpu")

Numbers = dict[str, float | str | bool]


class Setting:
    """What is checked, on which device, and how long.

    Args:
        is_tiny: seconds on a CPU, to see that the check itself works.
    """

    def __init__(self, device: torch.device, *, is_tiny: bool) -> None:
        self.device, self.is_tiny = device, is_tiny
        self.equal_space = TINY if is_tiny else get_space("paper").at_resolution(64)
        self.table_space = TINY if is_tiny else get_space("paper")
        self.fast_space = TINY if is_tiny else get_space("paper")
        self.search_space = TINY if is_tiny else get_space("micro")
        self.batch_size = 8 if is_tiny else 32
        self.num_images = 50 if is_tiny else 1000
        self.num_repeats = 1 if is_tiny else 5
        self.num_networks = 3 if is_tiny else 10
        self.table_s = 1.0 if is_tiny else 90.0
        self.shared_s = 0.5 if is_tiny else 10.0

    def wait(self) -> None:
        """Until the GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def default_kernels(device: torch.device) -> Kernels:
    """What a search uses there; on a CPU, where this only tests itself, plain torch."""
    return choose_kernels("auto", device, mixed_precision=False) if device.type == "cuda" else "torch"


class Bench:
    """Both steps of a search on one batch.

    Args:
        kernels: what computes the mixed blocks, the device's default where not given; `reference` for the
            plain reference.
    """

    def __init__(
        self,
        space: Space,
        device: torch.device,
        batch_size: int,
        kernels: Kernels | Literal["reference"] | None = None,
        *,
        mixed_precision: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (batch_size, 3, space.resolution, space.resolution)
        images_BCHW = torch.randn(shape, generator=generator).to(device)
        self.labels_B = torch.randint(NUM_CLASSES, (batch_size,), generator=generator).to(device)
        config = SearchConfig(space="paper", target_latency_ms=10.0, mixed_precision=mixed_precision)
        table = make_dense_table(space)
        supernet = Supernet(space, NUM_CLASSES)
        self.paths = [
            [(layer + shift) % len(space.ops) for layer in range(len(space.layers))] for shift in (0, 5)
        ]
        self.noise = torch.Generator().manual_seed(1)
        self.parameters: dict[str, torch.nn.Parameter] = {}
        if kernels == "reference":
            reference = ReferenceStep(reference_of(supernet, NUM_CLASSES).to(device), config, table)
            cast = torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision)
            shape_LO = supernet.alpha.shape

            def weigh() -> Any:
                with cast:
                    return reference.weight_step(images_BCHW, self.labels_B, self.paths)

            def choose() -> Any:
                noise_LO = upload(sample_gumbel(shape_LO, self.noise), device)
                with cast:
                    return reference.arch_step(images_BCHW, self.labels_B, noise_LO, TEMPERATURE)

            self.weight_step, self.arch_step = weigh, choose
            return
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        supernet.to(device)
        if device.type == "cuda":
            supernet.to(memory_format=torch.channels_last)
        kernels = kernels or default_kernels(device)
        self.forget = partial(supernet.set_blocks, partial(block_of, kernels, device))
        """Drops all CUDA graphs."""
        self.forget()
        steps = SearchSteps(supernet, config, table)
        self.parameters = dict(supernet.named_parameters())
        self.weight_step = lambda: steps.weight_step(images_BCHW, self.labels_B, self.paths)[0].loss
        self.arch_step = lambda: steps.arch_step(images_BCHW, self.labels_B, TEMPERATURE, self.noise)

    def joint_epoch(self) -> None:
        """Two weight steps and an architecture step."""
        self.weight_step()
        self.weight_step()
        self.arch_step()


@contextmanager
def _exact() -> Iterator[None]:
    """Full float32, and deterministic algorithms."""
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        with determinism(True):
            yield
    finally:
        convolutions.fp32_precision = before


class Stepped(NamedTuple):
    """What three weight and three architecture steps gave: losses, and all parameters by name."""

    losses: list[float]
    parameters: dict[str, torch.Tensor]

    def equals(self, other: "Stepped") -> bool:
        """Whether all bits do."""
        return all(torch.equal(each, other.parameters[name]) for name, each in self.parameters.items())


def _take_steps(
    setting: Setting, device: torch.device, *, is_recorded: bool = True, mixed_precision: bool = False
) -> Stepped:
    """Three steps of each kind: CUDA graphs run a layer, record it and replay it, unless they are dropped."""
    bench = Bench(setting.equal_space, device, 8, mixed_precision=mixed_precision)
    losses = []
    for _ in range(3):
        for step in (bench.weight_step, bench.arch_step):
            if not is_recorded:
                bench.forget()
            with _exact(), gpu_settings(device):
                losses.append(float(step()))
    return Stepped(losses, {name: each.detach().cpu() for name, each in bench.parameters.items()})


def check_equality(setting: Setting) -> Numbers:
    """Steps give the losses and parameters of the CPU's plain block, and CUDA graphs what they recorded."""
    plain = _take_steps(setting, CPU)
    ours, again = (_take_steps(setting, setting.device) for _ in range(2))
    loss_error = max(abs(a / b - 1) for a, b in zip(ours.losses, plain.losses, strict=True))
    start = dict(Supernet(setting.equal_space, NUM_CLASSES).named_parameters())
    moved, expected = (
        torch.cat([(end.parameters[name] - start[name].detach()).flatten() for name in start])
        for end in (ours, plain)
    )
    step_error = float((moved - expected).norm() / expected.norm())
    _demand(loss_error < 1e-4, f"losses differ by {loss_error:.1e}")
    _demand(step_error < 1e-2, f"steps differ by {step_error:.1e}")
    _demand(ours.equals(again), "the same steps gave other bits")
    for mixed_precision in (False, True):
        recorded, run = (
            _take_steps(setting, setting.device, is_recorded=each, mixed_precision=mixed_precision)
            for each in (True, False)
        )
        kind = "bfloat16" if mixed_precision else "float32"
        _demand(recorded.equals(run), f"CUDA graphs gave other bits than what they recorded, in {kind}")
    return {
        "loss_error": loss_error,
        "step_error": step_error,
        "repeats_to_the_bit": True,
        "graphs_equal_to_the_bit": True,
    }


def check_waits(setting: Setting) -> Numbers:
    """No step waits for the GPU: torch raises at each operation that would."""
    if setting.device.type != "cuda":
        return {"checked": False}
    for mixed_precision in (False, True):
        bench = Bench(
            setting.search_space, setting.device, setting.batch_size, mixed_precision=mixed_precision
        )
        torch.cuda.synchronize()
        bench.joint_epoch()
        torch.cuda.set_sync_debug_mode("error")
        try:
            # Recorded, and replayed.
            for _ in range(2):
                bench.joint_epoch()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"checked": True}


def check_search(setting: Setting) -> Numbers:
    """A search that is interrupted and resumed ends as one that is not, to the bit."""
    space = setting.search_space
    table = make_dense_table(space)
    config = SearchConfig(
        space=space.name,
        target_latency_ms=float(np.mean(reachable_interval_ms(table))),
        device=str(setting.device),
        deterministic=setting.device.type == "cuda",
        max_train_images=setting.num_images,
        batch_size=10 if setting.is_tiny else 32,
        num_epochs=4,
        num_warmup_epochs=1,
    )
    whole = list(run_search(config, table=table))
    with tempfile.TemporaryDirectory() as folder:
        first = run_search(config, table=table, checkpoint_dir=Path(folder))
        for _ in range(2):
            next(first)
        first.close()  # type: ignore[attr-defined]
        resumed = list(run_search(config, table=table, checkpoint_dir=Path(folder)))
    for record in (*whole, *resumed):
        record.metrics.pop("peak_gpu_memory_bytes", None)
    assert_identical(whole, resumed)
    last = whole[-1].metrics
    return {
        "train_loss_first": whole[0].metrics["train_loss"],
        "train_loss_last": last["train_loss"],
        "epoch_seconds": last["epoch_seconds"],
    }


def check_table(setting: Setting) -> Numbers:
    """A table is measured, and its sums are close to whole networks."""
    space, rng = setting.table_space, np.random.default_rng(0)
    start_s = time.monotonic()
    table = measure_table(
        space, device=setting.device, max_duration_s=setting.table_s, even_if_busy=True, report=_say
    )
    measured_s = time.monotonic() - start_s
    architectures = [draw_architecture(space, rng) for _ in range(setting.num_networks)]
    timings = time_architectures(architectures, table.provenance, setting.device, rng, num_rounds=3)
    medians_ms = np.array([timing.median_ms for timing in timings])
    agreement = Agreement.of(predict_ms(table, architectures), medians_ms)
    return {
        "measured_in_s": measured_s,
        "error_percent": agreement.mape_percent,
        "bias_percent": agreement.bias_percent,
        "kendall_tau": agreement.kendall_tau,
        "median_network_ms": float(np.median(medians_ms)),
        "conditions": str(table.provenance.conditions),
    }


def check_speed(setting: Setting) -> Numbers:
    """Seconds and memory of a joint epoch's three steps, against the plain reference in the same run."""
    numbers: Numbers = {}
    for precision, mixed_precision in (("float32", False), ("bfloat16", True)):
        seconds = {}
        all_kernels: tuple[Kernels | Literal["reference"], ...] = ("reference", "torch", "recompute")
        if setting.device.type == "cuda":
            all_kernels = ("reference", "cuda_graphs", "torch", "recompute")
        for kernels in all_kernels:
            name = f"{kernels}_{precision}"
            bench = Bench(
                setting.fast_space,
                setting.device,
                setting.batch_size,
                kernels,
                mixed_precision=mixed_precision,
            )
            try:
                with gpu_settings(setting.device):
                    seconds[kernels], peak_gib = _time(setting, bench.joint_epoch)
            except torch.OutOfMemoryError:
                numbers[name] = "out of memory"
                continue
            finally:
                del bench
                # It refers to itself.
                gc.collect()
                torch.cuda.empty_cache()
            numbers[f"{name}_s"] = seconds[kernels]
            numbers[f"{name}_images_per_s"] = 3 * setting.batch_size / seconds[kernels]
            numbers[f"{name}_peak_gib"] = peak_gib
        ours = default_kernels(setting.device)
        if {"reference", ours} <= seconds.keys():
            numbers[f"speedup_{precision}"] = seconds["reference"] / seconds[ours]
    return numbers


def _time(setting: Setting, run: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of a run, and the most memory that torch has taken for it, in GiB."""
    is_gpu = setting.device.type == "cuda"
    # CUDA graphs are recorded when a layer runs for the second time.
    for _ in range(0 if setting.is_tiny else 3):
        run()
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(setting.device)
    seconds = []
    for _ in range(setting.num_repeats):
        setting.wait()
        start_s = time.perf_counter()
        run()
        setting.wait()
        seconds.append(time.perf_counter() - start_s)
    # CUDA graphs own memory that no tensor has.
    peak_bytes = torch.cuda.max_memory_reserved(setting.device) if is_gpu else 0
    return statistics.median(seconds), peak_bytes / 2**30


def check_sharing(setting: Setting) -> Numbers:
    """How many steps two searches make that share the device, against one alone."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    barrier = context.Barrier(2)
    processes = [
        context.Process(
            target=_step_for_a_while,
            args=(str(setting.device), setting.is_tiny, index == 0, barrier, results),
        )
        for index in range(2)
    ]
    for process in processes:
        process.start()
    try:
        counts = [results.get(timeout=LIMIT_S / 4) for _ in processes]
    finally:
        for process in processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
    alone = sum(count for count, _ in counts)
    together = sum(count for _, count in counts)
    return {"joint_epochs_alone": alone, "joint_epochs_of_two": together, "gain": together / alone}


def _step_for_a_while(device: str, is_tiny: bool, is_first: bool, barrier: Any, results: Any) -> None:
    """Puts how many joint epochs it made while the other waited, and how many beside it."""
    setting = Setting(torch.device(device), is_tiny=is_tiny)
    bench = Bench(setting.search_space, setting.device, setting.batch_size)

    def count_steps() -> int:
        end_s, num_done = time.monotonic() + setting.shared_s, 0
        while time.monotonic() < end_s or not num_done:
            bench.joint_epoch()
            setting.wait()
            num_done += 1
        return num_done

    for _ in range(3):
        bench.joint_epoch()
    setting.wait()
    barrier.wait()
    num_alone = count_steps() if is_first else 0
    barrier.wait()
    results.put((num_alone, count_steps()))


CHECKS: dict[str, Callable[[Setting], Numbers]] = {
    "steps equal those of the CPU": check_equality,
    "no step waits": check_waits,
    "a search resumes to the bit": check_search,
    "speed and memory of a joint epoch": check_speed,
    "two searches share the device": check_sharing,
    "a measured table agrees with networks": check_table,
}
"""In order of worth, since time may run out."""


def run_checks(setting: Setting) -> Iterator[dict[str, Any]]:
    """The report after each check: of those that ran, status, numbers and seconds."""
    start_s = time.monotonic()
    checks: list[dict[str, Any]] = []
    for name, check in CHECKS.items():
        begun_s = time.monotonic()
        result: dict[str, Any] = {"check": name, "status": "skipped", "numbers": {}}
        if begun_s - start_s < LIMIT_S * 0.75:
            _say(f"{name} ...")
            try:
                result |= {"status": "passed", "numbers": check(setting)}
            # Whatever breaks on a first card, the other checks still tell something.
            except Exception as error:
                result |= {
                    "status": "failed",
                    "error": f"{type(error).__name__}: {' '.join(str(error).split())[:600]}",
                }
        result["seconds"] = round(time.monotonic() - begun_s, 1)
        _say(f"  {result['status']} in {result['seconds']} s {result.get('error', '')}")
        checks.append(result)
        yield {
            "card": device_name(setting.device),
            "device": str(setting.device),
            "is_tiny": setting.is_tiny,
            "measured_on": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if setting.device.type == "cuda" else None,
            "checks": checks,
        }


def describe(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    lines = [
        f"{report['card']}, torch {report['torch']}, CUDA {report['cuda']}, {report['measured_on']}",
        "",
        "| check | status | s | numbers |",
        "| --- | --- | --- | --- |",
    ]
    for check in report["checks"]:
        numbers = ", ".join(f"{name} {_short(value)}" for name, value in check["numbers"].items())
        lines.append(
            f"| {check['check']} | {check['status']} | {check['seconds']} | {check.get('error', numbers)} |"
        )
    return "\n".join(lines) + "\n"


def _short(value: float | str | bool) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _demand(is_met: bool, problem: str) -> None:
    if not is_met:
        raise AssertionError(problem)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs the checks, writes both files, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the two files (default: here)")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        device = resolve_device(options.device)
    except UserError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    if options.tiny:
        register_tiny_spaces()
    options.out.mkdir(parents=True, exist_ok=True)
    # Written after each check, since a first card may well stop the process.
    for report in run_checks(Setting(device, is_tiny=options.tiny)):
        (options.out / "gpu-check.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (options.out / "gpu-check.md").write_text(describe(report), encoding="utf-8")
    print(describe(report))
    return int(any(check["status"] == "failed" for check in report["checks"]))


if __name__ == "__main__":
    sys.exit(main())
