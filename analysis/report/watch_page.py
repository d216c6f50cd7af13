"""A page that follows a running launch: states of all searches, depth and collapse as they grow."""

import base64
import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.figures import FIGURES
from analysis.figures.ink.drawing import Drawing
from analysis.figures.ink.style import our_style
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError
from analysis.reading.run import Run, sort_runs, varying_fields
from nas.foundation.files import write_atomically

_PX_PER_IN = 135
_FIGURES = ("depth fluctuation", "operator collapse")
_STATES = {"RUNNING": "running", "WAITING": "waiting", "KILLED": "interrupted"}


def write_watch_page(name: str, runs: Sequence[Run], path: Path, interval_s: float | None) -> None:
    """Writes the page at once, so that a browser never sees half of it.

    Args:
        name: of the experiment.
        runs: with the trajectories of the epochs that are done.
        path: the HTML file.
        interval_s: after how many seconds the page reloads itself; None if it is the last one.
    """
    runs = sort_runs(runs, varying_fields(runs))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("watch.html.j2").render(
        name=name,
        interval_s=interval_s,
        now=datetime.now(UTC).strftime("%H:%M:%S UTC"),
        rows=[_row(run) for run in runs],
        figures=_draw(name, [run for run in runs if run.kind == "search"]),
    )
    write_atomically(path, text.encode())


def _row(run: Run) -> dict[str, str]:
    target_ms = run.number("target_latency_ms")
    latency = f"{_show(run.metric('derived_latency_ms'), '.3g')} of {target_ms:.3g} ms"
    return {
        "name": run.name,
        "state": _STATES.get(run.status, run.status.lower()),
        "epoch": _epoch(run),
        "accuracy": _show(run.metric("val_accuracy"), ".3f"),
        "latency": "" if math.isnan(target_ms) else latency,
    }


def _epoch(run: Run) -> str:
    epoch, num_epochs = run.metric("epoch"), run.number("num_epochs")
    # A search by evaluation goes on with rounds of it.
    return "evaluates" if epoch > num_epochs else f"{_show(epoch, '.0f')}/{num_epochs:.0f}"


def _show(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _draw(name: str, runs: Sequence[Run]) -> list[dict[str, str]]:
    """The figures, as far as there is something to draw yet."""
    searched = [run for run in runs if run.trajectory is not None]
    if not searched:
        return []
    experiment = Experiment(name, "", "", searched[0].basis, tuple(searched), (), (), ())
    figures: list[dict[str, str]] = []
    for title in _FIGURES:
        try:
            drawings = FIGURES[title](experiment)
        except NothingToDrawError:
            continue
        figures += map(_figure, drawings)
    return figures


def _figure(drawing: Drawing) -> dict[str, str]:
    content = io.BytesIO()
    with our_style():
        figure = drawing.draw()
        figure.savefig(content, format="svg")
    return {
        "title": drawing.title,
        "caption": drawing.caption,
        "source": f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}",
        "width_px": f"{figure.get_figwidth() * _PX_PER_IN:.0f}",
    }
