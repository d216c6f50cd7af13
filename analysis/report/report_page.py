"""The report of an experiment: one HTML page that needs no other file."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.figures.ink.drawing import Drawing
from analysis.measures.accuracy import selection_note
from analysis.measures.latency_error import TARGET
from analysis.measures.measure import Numbers
from analysis.measures.run_measures import (
    DERIVED_DEPTH,
    LATENCY,
    LATENCY_ERROR,
    SUPERNET_ACCURACY,
    TEST_ACCURACY,
)
from analysis.measures.search_health import FailedCheck, failed_checks
from analysis.reading.experiment import Experiment
from analysis.reading.mlflow_pages import experiment_page, how_to_serve, run_page
from analysis.reading.run import SEED, Run, describe_makers
from analysis.reading.values import show_value
from analysis.tables.result_table import NOTHING, ResultTable, cell_texts
from analysis.verdicts import NONE_OF_A_STUDY
from analysis.verdicts.redundant_encodings import describe_redundancy
from analysis.verdicts.verdict import Verdict

_PX_PER_PT = 1.9


@dataclass(frozen=True)
class FigureView:
    """A figure on the page: its SVG as a data URI, and its width on the screen."""

    name: str
    title: str
    caption: str
    source: str
    width_px: int


@dataclass(frozen=True)
class TrialView:
    """A trial on the page; `short_id` is empty if it has not started, `url` also if MLflow was not read."""

    name: str
    url: str
    short_id: str
    outcome: str
    is_finished: bool
    setting: str
    seed: str
    accuracy: str
    latency: str
    error: str
    depth: str
    health: str
    stages: Sequence[Sequence[str]]


@dataclass(frozen=True)
class HealthView:
    """The health of the searches on the page.

    Attributes:
        num_checked: searches with a health record.
        num_without: finished searches without.
    """

    num_healthy: int
    num_checked: int
    num_without: int
    failed: Sequence[FailedCheck]


def write_report(
    experiment: Experiment,
    numbers: Numbers,
    verdicts: Sequence[Verdict],
    drawings: Sequence[Drawing],
    tables: Sequence[ResultTable],
    undrawn: Sequence[str],
    figures_dir: Path,
    path: Path,
) -> Path:
    """Writes the page.

    Args:
        drawings: figures whose SVG files are in `figures_dir`.
        undrawn: what the other figures and tables lack, one line each.
        path: the HTML file.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    trials = [_trial_view(experiment, numbers, run) for run in experiment.cells]
    figures = [_figure_view(drawing, figures_dir) for drawing in drawings]
    newest_ms = max(run.start_time_ms for run in experiment.runs)
    text = environment.get_template("report.html.j2").render(
        experiment=experiment,
        version=version("tfnas"),
        newest=datetime.fromtimestamp(newest_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        num_trials=len(experiment.cells),
        factors=_levels(experiment),
        constants=_constants(experiment),
        makers=describe_makers([*experiment.runs, *experiment.training]),
        table_about=_describe_table(experiment),
        verdicts=[one for one in verdicts if one.status != "not asked"],
        not_asked=[one for one in verdicts if one.status == "not asked"],
        health=_health_view(experiment),
        redundancy=describe_redundancy(experiment, numbers),
        none_of_a_study=NONE_OF_A_STUDY,
        study=_study_view(experiment),
        study_figures=[view for view in figures if view.name.startswith("study")],
        figures=[view for view in figures if not view.name.startswith("study")],
        tables=[(table, cell_texts(table)) for table in tables],
        trials=trials,
        is_trained=any(math.isfinite(run[TEST_ACCURACY.name]) for run in numbers.values()),
        selection_note=selection_note(experiment.training),
        num_stages=max((len(trial.stages) for trial in trials), default=0),
        messages=[*experiment.notices, *undrawn],
        mlflow_command=how_to_serve(experiment.tracking_uri, in_its_folder=True),
        mlflow_url=_page(experiment),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _page(experiment: Experiment) -> str:
    """The experiment's page in MLflow; empty if it was read from a bundle."""
    if not experiment.tracking_uri:
        return ""
    return experiment_page(experiment.tracking_uri, experiment.experiment_id, _view(experiment))


def _view(experiment: Experiment) -> str | None:
    """The saved view that shows its searches; older launches saved none."""
    return "search" if "search" in experiment.views else None


def _levels(experiment: Experiment) -> dict[str, list[str]]:
    """The values of each factor."""
    return {
        factor: list(dict.fromkeys(show_value(factor, run.config.get(factor)) for run in experiment.cells))
        for factor in (*experiment.factors, SEED)
    }


def _health_view(experiment: Experiment) -> HealthView | None:
    """None if no search has a health record."""
    outcomes = [run.is_healthy for run in experiment.runs]
    num_checked = len(outcomes) - outcomes.count(None)
    if not num_checked:
        return None
    return HealthView(outcomes.count(True), num_checked, outcomes.count(None), failed_checks(experiment.runs))


def _study_view(experiment: Experiment) -> dict[str, str] | None:
    """The settings of a study and its outcome, a few words each."""
    study = experiment.study
    if study is None:
        return None
    about = study.about
    limits = [f"{value} {name.removeprefix('num_')}" for name, value in about["budget"].items() if value]
    return {
        "objectives": "; ".join(
            f"{one.metric}, {'higher' if one.is_maximized else 'lower'} is better" for one in study.objectives
        ),
        "sampler": f"{about['sampler']}; pruning: {about['pruning']}; budget: {', '.join(limits)}",
        "points": f"{study.count('COMPLETE')} complete, {study.count('PRUNED')} pruned, "
        f"{study.count('FAIL')} failed; values are {study.seeds_text}",
        **{f"space: {one.name}": one.text for one in study.fields},
    }


def _constants(experiment: Experiment) -> dict[str, str]:
    """The config fields that all trials share."""
    first = experiment.runs[0].config
    return {
        name: str(value)
        for name, value in first.items()
        if all(run.config.get(name) == value for run in experiment.cells)
    }


def _describe_table(experiment: Experiment) -> Mapping[str, str]:
    table = experiment.table
    if table is None:
        return {}
    about = {
        name: f"{value:.3g}" if isinstance(value, float) else str(value)
        for name, value in table.provenance
        if value is not None
    }
    return about | {"base latency (ms)": f"{table.base_latency_ms:.4g}", "entries": str(len(table.entries))}


def _figure_view(drawing: Drawing, folder: Path) -> FigureView:
    svg = (folder / f"{drawing.name}.svg").read_text(encoding="utf-8")
    width = re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)
    assert width is not None
    return FigureView(
        name=drawing.name,
        title=drawing.title,
        caption=drawing.full_caption,
        source=f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}",
        width_px=round(_PX_PER_PT * float(width[1])),
    )


def _trial_view(experiment: Experiment, numbers: Numbers, run: Run) -> TrialView:
    known = numbers.get(run.run_id, {})

    def show(name: str, digits: int) -> str:
        value = known.get(name, float("nan"))
        return f"{value:.{digits}f}" if math.isfinite(value) else NOTHING

    tested = show(TEST_ACCURACY.name, 4)
    target_ms = run.number(TARGET)
    return TrialView(
        name=run.name,
        url=_page_of(run, experiment),
        short_id=run.short_id,
        outcome=run.outcome,
        is_finished=run.is_finished,
        setting=experiment.label(run),
        seed=str(run.seed),
        accuracy=tested if tested != NOTHING else show(SUPERNET_ACCURACY.name, 4),
        latency=f"{show(LATENCY.name, 3)} / {target_ms:.4g}",
        error=show(LATENCY_ERROR.name, 2),
        depth=show(DERIVED_DEPTH.name, 0),
        health=_health_text(run),
        stages=_stage_texts(run),
    )


def _page_of(run: Run, experiment: Experiment) -> str:
    """Its page in MLflow; empty if it has not started, or was read from a bundle."""
    if not (run.run_id and experiment.tracking_uri):
        return ""
    return run_page(experiment.tracking_uri, experiment.experiment_id, run.run_id)


def _health_text(run: Run) -> str:
    """`ok`, or the checks that the run fails."""
    if run.health is None:
        return NOTHING
    failed = [check.name for check in run.health if not check.is_healthy]
    return f"✗ {', '.join(failed)}" if failed else "ok"


def _stage_texts(run: Run) -> list[list[str]]:
    """Operators and mid channels of each stage of the derived network, in order."""
    if run.architecture is None:
        return []
    return [[f"{choice.op} {choice.mid_channels}" for choice in stage] for stage in run.architecture.stages]
