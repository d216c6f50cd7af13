"""Tables as LaTeX (booktabs), Markdown and CSV, all three from the same numbers."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from analysis.reading.experiment import Experiment
from analysis.reading.stamp import write_stamp
from analysis.tables.tables import Cell, Column, Table
from analysis.verdicts.statistics import Summary


def write_table(table: Table, experiment: Experiment, folder: Path) -> list[Path]:
    """Writes all three forms, and the JSON that says from which runs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, write in (("tex", to_latex), ("md", to_markdown), ("csv", to_csv)):
        path = folder / f"{table.name}.{suffix}"
        path.write_text(write(table), encoding="utf-8")
        paths.append(path)
    stamp = write_stamp(table.name, table.title, table.full_caption, table.runs, experiment, paths)
    return [*paths, stamp]


def to_markdown(table: Table) -> str:
    """A Markdown table, its caption below it."""
    header = [column.heading for column in table.columns]
    lines = [header, ["---"] * len(header), *cell_texts(table)]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([*rows, "", table.full_caption]) + "\n"


def to_latex(table: Table) -> str:
    """A LaTeX table for the package booktabs, its caption included."""
    body = [" & ".join(map(_escape_latex, line)) + r" \\" for line in cell_texts(table)]
    if table.rule_before is not None:
        body.insert(table.rule_before, r"\midrule")
    alignment = "".join("l" if _is_text(table, index) else "r" for index in range(len(table.columns)))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape_latex(table.full_caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        " & ".join(_escape_latex(column.heading) for column in table.columns) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """CSV with full precision; a mean with its interval takes the columns `_mean _low _high _n`."""
    columns = range(len(table.columns))
    is_summary = [any(isinstance(row[index], Summary) for row in table.rows) for index in columns]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_csv_header(table.columns, is_summary))
    for row in table.rows:
        cells: list[Cell] = []
        for cell, spread in zip(row, is_summary, strict=True):
            if isinstance(cell, Summary):
                cells += [cell.mean if cell.n else None, *(cell.interval or (None, None)), cell.n]
            else:
                cells += [cell, None, None, None] if spread else [cell]
        writer.writerow(cells)
    return file.getvalue()


def cell_texts(table: Table) -> list[list[str]]:
    """The rows as people read them."""
    return [
        [_show(cell, column.digits) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]


def _show(cell: Cell, digits: int | None) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, Summary):
        return _show_summary(cell, digits or 0)
    if isinstance(cell, float):
        return f"{cell:.4g}" if digits is None else f"{cell:.{digits}f}"
    return str(cell)


def _show_summary(summary: Summary, digits: int) -> str:
    if not summary.n:
        return "–"
    mean = f"{summary.mean:.{digits}f}"
    if summary.interval is None:
        return mean
    return f"{mean} [{summary.interval[0]:.{digits}f}, {summary.interval[1]:.{digits}f}]"


def _csv_header(columns: Sequence[Column], is_summary: Sequence[bool]) -> list[str]:
    header: list[str] = []
    for column, spread in zip(columns, is_summary, strict=True):
        header += [column.name + part for part in (("_mean", "_low", "_high", "_n") if spread else ("",))]
    return header


def _is_text(table: Table, index: int) -> bool:
    return all(isinstance(row[index], str) for row in table.rows)


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "–": "--",
    "λ": r"$\lambda$",
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
