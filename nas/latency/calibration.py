"""Calibration: how well a table's sums agree with whole networks, and the correction that follows.

Shapes: N networks, R rounds, K runs of a network in a round.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.foundation.device import resolve_device
from nas.latency.compatibility import Hardware, check_table
from nas.latency.drift import Timing, summarize_timings
from nas.latency.quiet import quiet_machine
from nas.latency.table import Calibration, LatencyTable, Provenance
from nas.latency.timing import (
    default_batch_size,
    make_images,
    make_network,
    time_network_ms,
    timing_conditions,
)
from nas.space.architecture import Architecture, draw_architecture
from nas.space.macro_space import get_space

Floats = NDArray[np.float64]

NUM_ROUNDS = 16
_NUM_COMPARISON_ROUNDS = 30
_RUNS_PER_ROUND = 5
_NUM_WARMUP_RUNS = 2
_COVERAGE = 0.95


@dataclass(frozen=True)
class Agreement:
    """How well predicted latencies agree with measured ones.

    Attributes:
        mape_percent: mean absolute error, relative to the measured latency.
        bias_percent: mean error; positive where predictions are too high.
        spearman: rank correlation.
        kendall_tau: rank correlation: the share of pairs in the right order minus those in the wrong order.
    """

    num_networks: int
    mape_percent: float
    bias_percent: float
    spearman: float
    kendall_tau: float

    @classmethod
    def of(cls, predicted_ms_N: Floats, measured_ms_N: Floats) -> "Agreement":
        """Compares predictions with measurements of the same networks, at least three."""
        # Imported here, and below: scipy is slow to import, and launches check no predictions.
        from scipy import stats

        errors_N = predicted_ms_N / measured_ms_N - 1
        return cls(
            num_networks=len(errors_N),
            mape_percent=float(100 * np.abs(errors_N).mean()),
            bias_percent=float(100 * errors_N.mean()),
            spearman=float(stats.spearmanr(predicted_ms_N, measured_ms_N).statistic),
            kendall_tau=float(stats.kendalltau(predicted_ms_N, measured_ms_N).statistic),
        )


@dataclass(frozen=True)
class TableCheck:
    """Random networks of a table's space, as predicted and as measured.

    Attributes:
        predicted_ms_N: with the table's calibration, if it has one.
        timings: measured timings.
        agreement: agreement of the predictions with the measured medians.
        calibration: the correction fitted to these networks, from uncorrected predictions.
    """

    architectures: tuple[Architecture, ...]
    predicted_ms_N: Floats
    timings: tuple[Timing, ...]
    agreement: Agreement
    calibration: Calibration

    @property
    def measured_ms_N(self) -> Floats:
        """Median of each network's timings, in ms."""
        return np.array([timing.median_ms for timing in self.timings])


@dataclass(frozen=True)
class NetworkTiming:
    """The time of a network, measured in turn with others.

    Attributes:
        ratio: median over the rounds of the ratio to the first network of the comparison.
        ratio_iqr: interquartile range of that ratio.
    """

    median_ms: float
    iqr_ms: float
    num_repeats: int
    ratio: float
    ratio_iqr: float


def check_predictions(
    table: LatencyTable,
    *,
    num_networks: int = 30,
    device: str | torch.device = "cpu",
    seed: int = 0,
    even_if_busy: bool = False,
    report: Callable[[str], None] = lambda message: None,
) -> TableCheck:
    """Measures random networks under the conditions of a table, and compares them with its predictions.

    Args:
        even_if_busy: whether to measure though other processes use the machine.

    Raises:
        UserError: the table was measured on another device; or the machine is busy and stays so, or was busy
            meanwhile.
    """
    space, device = get_space(table.space), resolve_device(device)
    check_table(table, space, Hardware.of(device))
    rng = np.random.default_rng(seed)
    architectures = tuple(draw_architecture(space, rng) for _ in range(num_networks))
    with quiet_machine(device, even_if_busy=even_if_busy, report=report):
        timings = tuple(time_architectures(architectures, table.provenance, device, rng, report=report))
    measured_ms_N = np.array([timing.median_ms for timing in timings])
    predicted_ms_N = predict_ms(table, architectures)
    return TableCheck(
        architectures,
        predicted_ms_N,
        timings,
        Agreement.of(predicted_ms_N, measured_ms_N),
        fit_calibration(predict_ms(table.with_calibration(None), architectures), measured_ms_N),
    )


def time_architectures(
    architectures: Sequence[Architecture],
    conditions: Provenance,
    device: torch.device,
    rng: np.random.Generator,
    *,
    num_rounds: int = NUM_ROUNDS,
    report: Callable[[str], None] = lambda message: None,
) -> list[Timing]:
    """Times networks of a space, whole and in turn, under the conditions of a table."""
    batch_size = conditions.batch_size or default_batch_size(device.type)
    images_BCHW = make_images(get_space(architectures[0].space).resolution, batch_size, device)
    networks = [make_network(each, conditions.num_classes or 1000, device) for each in architectures]
    times_RNK = time_networks_in_turn(
        [(network, images_BCHW) for network in networks],
        num_threads=conditions.num_threads or 1,
        rng=rng,
        num_rounds=num_rounds,
        report=report,
    )
    return summarize_networks(times_RNK)


def predict_ms(table: LatencyTable, architectures: Sequence[Architecture]) -> Floats:
    """Latency_N of each architecture by the table, in ms."""
    return np.array([table.latency_ms(architecture) for architecture in architectures])


def time_networks_in_turn(
    networks: Sequence[tuple[nn.Module, Tensor]],
    *,
    num_threads: int,
    rng: np.random.Generator,
    num_rounds: int = NUM_ROUNDS,
    report: Callable[[str], None] = lambda message: None,
) -> Floats:
    """Times whole networks, each on its images, in rounds of random order.

    Returns:
        Times_RNK, in ms.
    """
    times_RNK = np.empty((num_rounds, len(networks), _RUNS_PER_ROUND))
    last_report_s = time.monotonic()
    with timing_conditions(num_threads):
        for round_index in range(num_rounds):
            for index in rng.permutation(len(networks)):
                network, images_BCHW = networks[index]
                times_ms = [
                    time_network_ms(network, images_BCHW) for _ in range(_NUM_WARMUP_RUNS + _RUNS_PER_ROUND)
                ]
                times_RNK[round_index, index] = times_ms[_NUM_WARMUP_RUNS:]
            if time.monotonic() - last_report_s > 10:
                report(f"measured {round_index + 1} of {num_rounds} rounds of {len(networks)} networks")
                last_report_s = time.monotonic()
    return times_RNK


def summarize_networks(times_RNK: Floats) -> list[Timing]:
    """The timing of each network, without the drift between rounds."""
    round_RNK, network_RNK, _ = np.indices(times_RNK.shape)
    return summarize_timings(times_RNK.ravel(), network_RNK.ravel(), round_RNK.ravel())


def compare_networks(
    networks: Sequence[tuple[nn.Module, Tensor]],
    *,
    num_threads: int,
    report: Callable[[str], None] = lambda message: None,
) -> list[NetworkTiming]:
    """Times whole networks in turn, each on its images, and compares them with the first."""
    times_RNK = time_networks_in_turn(
        networks,
        num_threads=num_threads,
        rng=np.random.default_rng(0),
        num_rounds=_NUM_COMPARISON_ROUNDS,
        report=report,
    )
    return compare_times(times_RNK)


def compare_times(times_RNK: Floats) -> list[NetworkTiming]:
    """Summarizes the times of networks timed in turn, and compares them with those of the first."""
    # Neighbors in time share the machine's drift, so the ratio is taken round by round.
    medians_RN = np.median(times_RNK, axis=2)
    ratios_3N = np.percentile(medians_RN / medians_RN[:, :1], [25, 50, 75], axis=0)
    return [
        NetworkTiming(timing.median_ms, timing.iqr_ms, timing.num_repeats, float(middle), float(high - low))
        for timing, (low, middle, high) in zip(summarize_networks(times_RNK), ratios_3N.T, strict=True)
    ]


def fit_calibration(predicted_ms_N: Floats, measured_ms_N: Floats) -> Calibration:
    """Fits the affine correction of a table, and estimates its error on left-out networks.

    The fit minimizes relative errors. If it predicts left-out networks no better than the uncorrected
    table, nothing is systematic: slope 1, intercept 0.

    Args:
        predicted_ms_N: predictions of the uncorrected table, for at least three networks.
    """
    from scipy import stats

    num_networks = len(predicted_ms_N)
    slope, intercept_ms = _fit(predicted_ms_N, measured_ms_N)
    left_out_N = np.empty(num_networks)
    for index in range(num_networks):
        others = np.arange(num_networks) != index
        fold_slope, fold_intercept_ms = _fit(predicted_ms_N[others], measured_ms_N[others])
        left_out_N[index] = fold_slope * predicted_ms_N[index] + fold_intercept_ms
    errors_N, plain_errors_N = left_out_N / measured_ms_N - 1, predicted_ms_N / measured_ms_N - 1
    if slope <= 0 or np.abs(errors_N).mean() >= np.abs(plain_errors_N).mean():
        slope, intercept_ms, errors_N = 1.0, 0.0, plain_errors_N
    quantile = stats.t.ppf((1 + _COVERAGE) / 2, num_networks - 2)
    return Calibration(
        slope=slope,
        intercept_ms=intercept_ms,
        num_networks=num_networks,
        mape_percent=float(100 * np.abs(errors_N).mean()),
        half_width_percent=float(100 * quantile * np.sqrt((errors_N**2).mean())),
        measured_on=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _fit(predicted_ms_N: Floats, measured_ms_N: Floats) -> tuple[float, float]:
    """Slope and intercept that minimize the squares of the relative errors."""
    terms_N2 = np.stack([predicted_ms_N, np.ones_like(predicted_ms_N)], axis=1) / measured_ms_N[:, None]
    slope, intercept_ms = np.linalg.lstsq(terms_N2, np.ones_like(measured_ms_N), rcond=None)[0]
    return float(slope), float(intercept_ms)
