"""The files of figures, stamped with the runs behind them; and whether they still match the runs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from analysis.figures.ink.drawing import Drawing
from analysis.figures.ink.page import page
from analysis.figures.ink.style import (
    STYLE_VERSION,
    keep_names_plain,
    our_style,
)
from analysis.reading.captions import count, name_runs
from analysis.reading.experiment import Experiment
from analysis.reading.run import Run, describe_makers
from analysis.writing.latex import escape_latex
from analysis.writing.stamp import run_stamp, sha256, write_stamp
from nas.foundation.errors import UserError

FORMATS = ("png", "pdf", "svg")
CAPTION_FORMATS = ("txt", "tex")
NUMBERS_FORMAT = "csv"
PNG_DPI = 300


def write_drawing(drawing: Drawing, experiment: Experiment, folder: Path) -> list[Path]:
    """Draws a figure and writes it as PNG, PDF and SVG, and files of the same stem beside it.

    These are its caption as text and LaTeX, its numbers as CSV, and a JSON file that lists its runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with our_style():
        figure = drawing.draw()
        keep_names_plain(figure)
        # Laid out once, then printed by each canvas: `savefig` would draw each format twice.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        paths = [folder / f"{drawing.name}.{suffix}" for suffix in FORMATS]
        for path in paths:
            _print_figure(figure, path, _metadata(drawing, experiment, path.suffix))
        width_in = float(figure.get_size_inches()[0])
    paths += _write_beside(drawing, folder, width_in)
    caption = drawing.full_caption
    stamp = write_stamp(
        drawing.name, drawing.title, caption, drawing.runs, experiment, paths, style=STYLE_VERSION
    )
    return [*paths, stamp]


def _write_beside(drawing: Drawing, folder: Path, width_in: float) -> list[Path]:
    """Writes the caption and the numbers, if there are any."""
    texts = {"txt": f"{drawing.full_caption}\n", "tex": _latex_caption(drawing, width_in)}
    if not drawing.numbers.empty:
        texts[NUMBERS_FORMAT] = drawing.numbers.to_csv(index=False, lineterminator="\n")
    paths = []
    for suffix, text in texts.items():
        paths.append(folder / f"{drawing.name}.{suffix}")
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def _latex_caption(drawing: Drawing, width_in: float) -> str:
    """Caption and label; comments say where to put them, and name the runs."""
    on = page()
    environment = "figure*" if on.has_columns and width_in > on.narrow_in else "figure"
    # What is as wide as neither the text nor a column is shown as it is.
    widths = {on.wide_in: r"[width=\textwidth]"}
    if on.has_columns:
        widths[on.narrow_in] = r"[width=\columnwidth]"
    option = widths.get(width_in, "")
    return (
        f"% \\begin{{{environment}}} \\centering \\includegraphics{option}{{{drawing.name}.pdf}} "
        f"\\input{{{drawing.name}.tex}} \\end{{{environment}}}\n"
        f"% {name_runs(drawing.runs)}\n"
        f"\\caption{{{escape_latex(drawing.caption)}}}\n\\label{{fig:{drawing.name}}}\n"
    )


def _print_figure(figure: Figure, path: Path, metadata: dict[str, Any]) -> None:
    canvas: Any  # `Any`, since matplotlib's stubs leave these methods untyped.
    if path.suffix == ".png":
        figure.set_dpi(PNG_DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(path, metadata=metadata)
    elif path.suffix == ".pdf":
        canvas = FigureCanvasPdf(figure)
        canvas.print_pdf(path, metadata=metadata)
    else:
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(path, metadata=metadata)


def _metadata(drawing: Drawing, experiment: Experiment, suffix: str) -> dict[str, Any]:
    makers = describe_makers(drawing.runs)
    about = "; ".join(
        (
            f"experiment {experiment.name}",
            str(experiment.basis),
            *(f"{noun} {', '.join(found)}" for noun, found in makers.items()),
            "runs " + " ".join(run.run_id for run in drawing.runs),
        )
    )
    if suffix == ".png":
        return {"Title": drawing.title, "Description": drawing.full_caption, "Source": about}
    if suffix == ".pdf":
        return {
            "Title": drawing.title,
            "Subject": drawing.full_caption,
            "Keywords": about,
            "CreationDate": None,
        }
    return {"Title": drawing.title, "Description": drawing.full_caption, "Source": about, "Date": None}


def choose_drawings(drawings: Sequence[Drawing], names: Sequence[str]) -> list[Drawing]:
    """Returns the figures of these names.

    Raises:
        UserError: there is no such figure.
    """
    known = {drawing.name: drawing for drawing in drawings}
    if unknown := [name for name in names if name not in known]:
        listed = ", ".join(known) or "none"
        raise UserError(f"--only: {unknown[0]}: no such figure of this experiment, which has {listed}")
    return [known[name] for name in names]


def write_drawings(drawings: Sequence[Drawing], experiment: Experiment, folder: Path) -> list[Path]:
    """Writes all figures, and removes older ones that the runs no longer support.

    Files that somebody has edited are not removed; nor is anything while a run cannot be read, which may be
    what a figure lacks.
    """
    names = {drawing.name for drawing in drawings}
    for path in folder.glob("*.json") if experiment.is_read else ():
        stamp = _read_stamp(path)
        if stamp is not None and path.stem not in names and not _check_files(stamp, folder):
            for name in (*stamp["files"], path.name):
                (folder / name).unlink()
    return [path for drawing in drawings for path in write_drawing(drawing, experiment, folder)]


def check_drawings(drawings: Sequence[Drawing], folder: Path) -> list[str]:
    """Returns how the figures in a folder differ from what would be drawn now, one line per difference.

    A figure is up to date if it was made from the runs that it would be made from now, if their content
    is the same, if figures still look like that, and if nobody has edited its files.
    """
    current = {drawing.name: drawing for drawing in drawings}
    stamps = {path.stem: _read_stamp(path) for path in sorted(folder.glob("*.json"))}
    problems = [f"{name}: not drawn yet" for name in current if name not in stamps]
    for name, stamp in stamps.items():
        if stamp is None:
            problems.append(f"{name}: {name}.json cannot be read; draw the figure again")
        elif name not in current:
            problems.append(f"{name}: the runs no longer support it")
        else:
            if stamp.get("style") != STYLE_VERSION:
                problems.append(f"{name}: drawn in an older style; draw the figure again")
            problems += [f"{name}: {problem}" for problem in _check_runs(stamp, current[name].runs)]
            problems += [f"{name}: {problem}" for problem in _check_files(stamp, folder)]
    return problems


def _read_stamp(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
        return None
    # Other files are nobody's but their owner's, and `write_drawings` removes files.
    images, beside = (
        {f"{path.stem}.{suffix}" for suffix in suffixes}
        for suffixes in (FORMATS, (*CAPTION_FORMATS, NUMBERS_FORMAT))
    )
    files = content.get("files")
    # Figures of before wrote their caption into the image, and nothing beside it but the stamp.
    is_own = isinstance(files, dict) and images <= files.keys() <= images | beside
    return content if is_own else None


def _check_runs(stamp: dict[str, Any], runs: Iterable[Run]) -> list[str]:
    then = {run["run_id"]: run for run in stamp["runs"]}
    now = {run.run_id: run_stamp(run) for run in runs}
    problems = []
    if added := now.keys() - then.keys():
        problems.append(f"{count(len(added), 'run')} not in it: {_name_ids(added)}")
    if removed := then.keys() - now.keys():
        problems.append(f"{count(len(removed), 'run')} no longer part of it: {_name_ids(removed)}")
    if changed := {run_id for run_id in then.keys() & now.keys() if then[run_id] != now[run_id]}:
        problems.append(f"{count(len(changed), 'run')} changed since: {_name_ids(changed)}")
    return problems


def _check_files(stamp: dict[str, Any], folder: Path) -> list[str]:
    problems = []
    for name, digest in stamp["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256(path.read_bytes()) != digest:
            problems.append(f"{name} was changed after it was written")
    return problems


def _name_ids(run_ids: Iterable[str]) -> str:
    ids = sorted(run_id[:8] for run_id in run_ids)
    return ", ".join(ids[:4]) + (", ..." if len(ids) > 4 else "")
