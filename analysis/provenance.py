"""From which runs a file was made: in its metadata, and in a JSON beside it; and whether that still holds."""

import hashlib
import json
import textwrap
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.drawing import Drawing
from analysis.runs import Experiment, Run
from analysis.style import STYLE

FORMATS = ("png", "pdf", "svg")
_CAPTION_PT = 6.2
_CHAR_IN = 0.0458
_LINE_IN = 0.115


def write_drawing(drawing: Drawing, experiment: Experiment, folder: Path) -> list[Path]:
    """Draws and writes PNG, PDF, SVG and the JSON that says from which runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure = drawing.draw()
        _write_caption(figure, drawing.full_caption)
        paths = []
        for suffix in FORMATS:
            path = folder / f"{drawing.name}.{suffix}"
            figure.savefig(path, metadata=_metadata(drawing, experiment, suffix))
            paths.append(path)
    return [
        *paths,
        write_stamp(drawing.name, drawing.title, drawing.full_caption, drawing.runs, experiment, paths),
    ]


def write_stamp(
    name: str, title: str, caption: str, runs: Iterable[Run], experiment: Experiment, paths: list[Path]
) -> Path:
    """Writes `NAME.json` beside the files that were made from these runs."""
    stamp = {
        "name": name,
        "title": title,
        "caption": caption,
        "experiment": experiment.name,
        "table_fingerprint": experiment.provenance.table_fingerprint,
        "code_version": experiment.provenance.code_version,
        "analysis_version": version("tfnas"),
        "runs": [run_stamp(run) for run in runs],
        "files": {path.name: _sha256(path.read_bytes()) for path in paths},
    }
    path = paths[0].parent / f"{name}.json"
    path.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    return path


def run_stamp(run: Run) -> dict[str, str]:
    """What identifies a run and all that was read of it."""
    content = hashlib.sha256(json.dumps(dict(run.metrics), sort_keys=True).encode())
    if run.trajectory is not None:
        for array in vars(run.trajectory).values():
            content.update(str(array).encode() if isinstance(array, str) else array.tobytes())
    if run.epochs is not None:
        content.update(run.epochs.to_numpy().tobytes())
    return {
        "run_id": run.run_id,
        "name": run.name,
        "cell": run.tags.get("tfnas.cell", "unknown"),
        "config_sha256": _sha256(json.dumps(dict(run.config), sort_keys=True).encode()),
        "content_sha256": content.hexdigest(),
    }


def _metadata(drawing: Drawing, experiment: Experiment, suffix: str) -> dict[str, Any]:
    about = f"experiment {experiment.name}; {experiment.provenance}; runs " + " ".join(
        run.run_id for run in drawing.runs
    )
    if suffix == "png":
        return {"Title": drawing.title, "Description": drawing.full_caption, "Source": about}
    if suffix == "pdf":
        return {
            "Title": drawing.title,
            "Subject": drawing.full_caption,
            "Keywords": about,
            "CreationDate": None,
        }
    return {"Title": drawing.title, "Description": drawing.full_caption, "Source": about, "Date": None}


def _write_caption(figure: Figure, caption: str) -> None:
    """Adds the caption below the panels; the figure grows by its height."""
    width_in, height_in = figure.get_size_inches()
    lines = textwrap.wrap(caption, int((width_in - 0.1) / _CHAR_IN))
    caption_in = _LINE_IN * len(lines) + 0.08
    figure.set_size_inches(width_in, height_in + caption_in)
    share = caption_in / (height_in + caption_in)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, share, 1, 1 - share))
    text = figure.text(
        0.05 / width_in,
        share - 0.03 / (height_in + caption_in),
        "\n".join(lines),
        va="top",
        ha="left",
        fontsize=_CAPTION_PT,
        linespacing=1.25,
        color="#222222",
    )
    text.set_in_layout(False)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
