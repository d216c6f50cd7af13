"""Tables as LaTeX (booktabs), Markdown and CSV, all three from the same numbers."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.measures.summary import Summary
from analysis.reading.experiment import Experiment
from analysis.reading.latex import LATEX_SYMBOLS, escape_latex
from analysis.reading.stamp import write_stamp
from analysis.tables.result_table import Column, ResultTable, TableCell
from nas.foundation.escaping import escape_markdown, escape_unprintable

NOTHING = "–"


def write_table(table: ResultTable, experiment: Experiment, folder: Path) -> list[Path]:
    """Writes all three forms, and a JSON file that lists the runs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, write in (("tex", to_latex), ("md", to_markdown), ("csv", to_csv)):
        path = folder / f"{table.name}.{suffix}"
        path.write_text(write(table), encoding="utf-8")
        paths.append(path)
    stamp = write_stamp(table.name, table.title, table.full_caption, table.runs, experiment, paths)
    return [*paths, stamp]


def to_markdown(table: ResultTable) -> str:
    """Returns a Markdown table with its caption below it."""
    header = [column.heading for column in table.columns]
    lines = [header, ["---"] * len(header), *cell_texts(table)]
    rows = ["| " + " | ".join(map(escape_markdown, line)) + " |" for line in lines]
    return "\n".join([*rows, "", escape_markdown(table.full_caption)]) + "\n"


def to_latex(table: ResultTable) -> str:
    """Returns a LaTeX table for the package booktabs, with its caption."""
    frame = pd.DataFrame(cell_texts(table))
    frame.columns = pd.Index([column.heading for column in table.columns])
    text = (
        frame.style.hide(axis="index")
        .format(_keep_off_command, escape="latex")
        .format_index(escape="latex", axis="columns")
        .to_latex(
            hrules=True,
            position_float="centering",
            caption=escape_latex(table.full_caption),
            label=f"tab:{table.name}",
            column_format="".join("l" if _is_text(table, index) else "r" for index in range(frame.shape[1])),
        )
    )
    lines = text.translate(LATEX_SYMBOLS).splitlines(keepends=True)
    if table.rule_before:
        # pandas has no rule between two rows.
        lines.insert(lines.index("\\midrule\n") + 1 + table.rule_before, "\\midrule\n")
    return "".join(lines)


def _keep_off_command(cell: object) -> str:
    """A cell that the command before it, the end of a row or a rule, does not read as its argument."""
    text = str(cell)
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def to_csv(table: ResultTable) -> str:
    """Returns CSV with full precision; a mean takes the columns `_mean`, `_low`, `_high` and `_n`."""
    columns = range(len(table.columns))
    is_summary = [any(isinstance(row[index], Summary) for row in table.rows) for index in columns]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_csv_header(table.columns, is_summary))
    for row in table.rows:
        cells: list[TableCell] = []
        for cell, spread in zip(row, is_summary, strict=True):
            if isinstance(cell, Summary):
                cells += [cell.mean if cell.n else None, *(cell.interval or (None, None)), cell.n]
            else:
                cells += [cell, None, None, None] if spread else [cell]
        writer.writerow(cells)
    return file.getvalue()


def cell_texts(table: ResultTable) -> list[list[str]]:
    """Returns the rows as people read them."""
    return [
        [_show(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]


def _show(cell: TableCell, digits: int | None) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, Summary):
        return _show_summary(cell, digits or 0)
    if isinstance(cell, float):
        return f"{cell:.4g}" if digits is None else f"{cell:.{digits}f}"
    return escape_unprintable(str(cell))


def _show_summary(summary: Summary, digits: int) -> str:
    if not summary.n:
        return NOTHING
    mean = f"{summary.mean:.{digits}f}"
    if summary.interval is None:
        return mean
    return f"{mean} [{summary.interval[0]:.{digits}f}, {summary.interval[1]:.{digits}f}]"


def _csv_header(columns: Sequence[Column], is_summary: Sequence[bool]) -> list[str]:
    header: list[str] = []
    for column, spread in zip(columns, is_summary, strict=True):
        header += [column.name + part for part in (("_mean", "_low", "_high", "_n") if spread else ("",))]
    return header


def _is_text(table: ResultTable, index: int) -> bool:
    return all(isinstance(row[index], str) for row in table.rows)
