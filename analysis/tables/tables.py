"""Tables as numbers: ablations, latency targets, and the paper's comparison of networks."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from analysis.figures.ink.drawing import NothingToDrawError, count, name_runs
from analysis.measures.latency_error import TARGET, TOLERANCE_PERCENT
from analysis.measures.measure import (
    ABS_LATENCY_ERROR,
    DEPTH_FLIPS,
    DERIVED_DEPTH,
    ENTROPY,
    FLUCTUATION,
    LATENCY,
    LATENCY_ERROR,
    LOCKED_EARLY,
    REDUNDANT,
    SUPERNET_ACCURACY,
    TEST_ACCURACY,
    TRAIN_GINI,
    Measure,
    Numbers,
)
from analysis.measures.trained_groups import (
    LATENCY_RATIO,
    MEASURED_LATENCY,
    TrainedGroup,
    describe_measurement,
    trained_groups,
)
from analysis.reading.experiment import Experiment, Run
from analysis.reading.values import Value
from analysis.tables.published_networks import PUBLISHED_NETWORKS
from analysis.verdicts.statistics import Summary, summarize

Cell = Value | Summary

_ABLATION = (
    LOCKED_EARLY,
    ENTROPY,
    TRAIN_GINI,
    FLUCTUATION,
    DEPTH_FLIPS,
    REDUNDANT,
    ABS_LATENCY_ERROR,
    SUPERNET_ACCURACY,
    TEST_ACCURACY,
)
_TARGETS = (LATENCY, LATENCY_ERROR, DERIVED_DEPTH, SUPERNET_ACCURACY, TEST_ACCURACY)
_METHOD = ("sampling", "depth", "elasticity")
_INTERVALS = "Mean over seeds with the 95 % bootstrap interval (none with fewer than 5 seeds)."


@dataclass(frozen=True)
class Column:
    """A column: its key in CSV, its heading for people, the decimals of its numbers.

    Decimals are None for settings, which are shown as they are.
    """

    name: str
    heading: str
    digits: int | None = None


@dataclass(frozen=True)
class Table:
    """A table of numbers; how they are written comes later.

    Attributes:
        name: the stem of its files.
        rows: one cell a column; a `Summary` is shown as mean and interval.
        rule_before: the row above which a rule is drawn, to set published rows apart; or None.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    runs: tuple[Run, ...]
    rule_before: int | None = None

    @property
    def full_caption(self) -> str:
        """The caption with the runs' ids."""
        return f"{self.caption} {name_runs(self.runs)}"


def make_tables(experiment: Experiment, numbers: Numbers) -> tuple[list[Table], list[str]]:
    """All tables that an experiment supports; and for each other one what is missing for it.

    Of a study none that has a row for each setting: there a setting is a point, of few seeds.
    """
    tables: list[Table] = []
    missing: list[str] = []
    for title, make in _table_makers(experiment).items():
        try:
            tables.append(make(experiment, numbers))
        except NothingToDrawError as reason:
            missing.append(f"{title}: not made: {reason}")
    return tables, missing


def _table_makers(experiment: Experiment) -> dict[str, Callable[[Experiment, Numbers], Table]]:
    makers: dict[str, Callable[[Experiment, Numbers], Table]] = {}
    if not experiment.is_study:
        makers |= {"ablation table": ablation_table, "latency targets table": targets_table}
    if not experiment.is_study or experiment.training:
        makers["table of trained networks"] = lambda experiment, _: trained_table(experiment)
    if not experiment.is_study:
        makers["comparison with published networks"] = published_table
    if experiment.study is not None:
        makers["best points of the study"] = best_points_table
    return makers


def ablation_table(experiment: Experiment, numbers: Numbers) -> Table:
    """A row for each setting, means over seeds."""
    measures = _known(_ABLATION, experiment.runs, numbers)
    rows = [
        (*setting, len(runs), *_summaries(runs, measures, numbers))
        for setting, runs in _by_setting(experiment, experiment.factors)
    ]
    return Table(
        "ablation",
        "Ablation",
        f"{_INTERVALS} {_explain(measures)} {count(len(experiment.runs), 'trial')}.",
        (*_factor_columns(experiment.factors), Column("n", "n"), *_measure_columns(measures)),
        tuple(rows),
        experiment.runs,
    )


def targets_table(experiment: Experiment, numbers: Numbers) -> Table:
    """A row for each latency target and method."""
    if TARGET not in experiment.factors:
        raise NothingToDrawError("the grid has one latency target only")
    method = [factor for factor in _METHOD if factor in experiment.factors]
    factors = [TARGET, *method, *experiment.other_factors(TARGET, *method)]
    measures = _known(_TARGETS, experiment.runs, numbers)
    rows = []
    for setting, runs in _by_setting(experiment, factors):
        num_met = sum(numbers[run.run_id][ABS_LATENCY_ERROR.name] <= TOLERANCE_PERCENT for run in runs)
        rows.append((*setting, len(runs), *_summaries(runs, measures, numbers), num_met))
    return Table(
        "targets",
        "Latency targets",
        f"Derived networks against their latency targets. {_INTERVALS} {_explain(measures)} Met: trials at "
        "most "
        f"{TOLERANCE_PERCENT:g} % from the target.",
        (
            *_factor_columns(factors),
            Column("n", "n"),
            *_measure_columns(measures),
            Column("num_targets_met", "met"),
        ),
        tuple(rows),
        experiment.runs,
    )


def trained_table(experiment: Experiment) -> Table:
    """Every network that was trained from scratch, found by a search or not, under equal terms."""
    groups = trained_groups(experiment)
    if not groups:
        raise NothingToDrawError("no network was trained")
    runs = tuple(run for group in groups for run in group.runs)
    config = runs[0].config
    return Table(
        "trained",
        "Networks trained from scratch",
        f"On {config.get('dataset')}, all under the same terms but for what a row names. On images: "
        "with the interval that the number of test images leaves (95 %, Wilson). Other columns: "
        f"{_INTERVALS[0].lower()}{_INTERVALS[1:]} Table latency: of the search's lookup table. "
        f"{describe_measurement(groups)} Size: of the file best.pt.",
        (
            Column("network", "network"),
            Column("n", "n"),
            Column("test_accuracy_on_images", "test acc., on images", 4),
            Column("test_accuracy", "test acc., over seeds", 4),
            Column("parameters_millions", "parameters (M)", 3),
            Column("macs_millions", "MACs (M)", 2),
            Column("table_latency_ms", "table latency (ms)", 3),
            Column(MEASURED_LATENCY, "measured latency (ms)", 3),
            Column(LATENCY_RATIO, "to EfficientNet-B0", 3),
            Column("size_mb", "size (MB)", 2),
        ),
        tuple(
            (
                group.name,
                group.num_seeds,
                group.accuracy_over_images(),
                group.over_seeds(TEST_ACCURACY.name),
                *_sizes(group),
                group.over_searches(LATENCY.name),
                group.over_seeds(MEASURED_LATENCY),
                group.over_seeds(LATENCY_RATIO),
                group.over_seeds("size_bytes").times(1e-6),
            )
            for group in groups
        ),
        (*experiment.runs, *runs),
    )


def published_table(experiment: Experiment, numbers: Numbers) -> Table:
    """The paper's comparison: our networks, then the published ones, marked as such."""
    groups = trained_groups(experiment)
    sizes = {group.name: _sizes(group) for group in groups}
    ours: list[tuple[Cell, ...]] = []
    for runs in experiment.by_setting():
        latency, accuracy = _summaries(runs, (LATENCY, TEST_ACCURACY), numbers)
        name = experiment.label(runs[0]) or experiment.name
        ours.append((name, "searched here", accuracy, *sizes.get(name, (None, None)), latency, None, None))
    for group in groups:
        if not group.searches:
            accuracy = group.over_seeds(TEST_ACCURACY.name)
            ours.append((group.name, "trained here", accuracy, *sizes[group.name], None, None, None))
    published: list[tuple[Cell, ...]] = [
        (
            network.name,
            f"published: {network.source}",
            network.top1_percent / 100,
            network.parameters_millions,
            network.macs_millions,
            None,
            network.gpu_ms,
            network.cpu_ms,
        )
        for network in PUBLISHED_NETWORKS
    ]
    config = experiment.runs[0].config
    return Table(
        "published",
        "Comparison with published networks",
        f"Above the rule: networks of this experiment ({config.get('dataset')}, space "
        f"'{config.get('space')}'), top-1 on the test images after training from scratch, latency in the "
        "lookup table. Below: published results on ImageNet-1K (GPU: Titan RTX, batch 32; CPU: Xeon 6130, "
        "batch 1), not measured here; unless the images are "
        "the same, the two parts do not compare.",
        (
            Column("name", "network"),
            Column("origin", "origin"),
            Column("top1", "top-1", 4),
            Column("parameters_millions", "parameters (M)", 2),
            Column("macs_millions", "MACs (M)", 0),
            Column("table_latency_ms", "table latency (ms)", 3),
            Column("gpu_ms", "GPU (ms)", 2),
            Column("cpu_ms", "CPU (ms)", 2),
        ),
        (*ours, *published),
        (*experiment.runs, *experiment.training),
        rule_before=len(ours),
    )


def best_points_table(experiment: Experiment, numbers: Numbers) -> Table:
    """The Pareto front of a study with several objectives, or the best points of one."""
    study = experiment.study
    if study is None or study.complete.empty:
        raise NothingToDrawError("no point of a study has values")
    best = study.best()
    metrics = [one.metric for one in study.objectives]
    fields = [one.name for one in study.fields]
    rows = tuple(
        (
            int(row["number"]),
            *(float(row[name]) for name in metrics),
            *(_setting(row[name]) for name in fields),
        )
        for row in best.to_dict("records")
    )
    which = (
        "Points that no other betters in one objective without being worse in another"
        if len(metrics) > 1
        else "The best points"
    )
    return Table(
        "study-best",
        "Best points of the study",
        f"{which}, among {count(len(study.complete), 'point')}; values are {study.seeds_text}, and "
        "flattered by the choice.",
        (
            Column("number", "trial"),
            *(Column(name, name.replace("_", " "), 4) for name in metrics),
            *_factor_columns(fields),
        ),
        rows,
        tuple(
            run
            for run in experiment.runs
            if any(run.name.startswith(f"trial-{number}-") for number in best["number"])
        ),
    )


def _setting(value: Value) -> Value:
    """A field's value; None where it was not varied."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _by_setting(
    experiment: Experiment, factors: Sequence[str]
) -> Iterator[tuple[tuple[Value, ...], list[Run]]]:
    for runs in experiment.by_setting(factors):
        yield runs[0].setting(factors), runs


def _sizes(group: TrainedGroup) -> tuple[Summary, Summary]:
    """Millions of parameters and of multiply-accumulates."""
    return (group.over_seeds("num_parameters").times(1e-6), group.over_seeds("num_macs").times(1e-6))


def _known(measures: Sequence[Measure], runs: Sequence[Run], numbers: Numbers) -> tuple[Measure, ...]:
    """The measures that at least one run has."""
    return tuple(
        measure
        for measure in measures
        if not all(math.isnan(numbers[run.run_id][measure.name]) for run in runs)
    )


def _summaries(runs: Sequence[Run], measures: Sequence[Measure], numbers: Numbers) -> list[Summary]:
    return [summarize([numbers[run.run_id][measure.name] for run in runs]) for measure in measures]


def _factor_columns(factors: Iterable[str]) -> list[Column]:
    return [Column(factor, factor.replace("_", " ")) for factor in factors]


def _measure_columns(measures: Iterable[Measure]) -> list[Column]:
    return [Column(measure.name, measure.heading, measure.digits) for measure in measures]


def _explain(measures: Iterable[Measure]) -> str:
    return "; ".join(f"{measure.heading}: {measure.title}" for measure in measures) + "."
