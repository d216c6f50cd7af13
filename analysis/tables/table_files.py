"""Tables as Markdown and CSV; and all files of a table, from the same numbers."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from analysis.measures.summary import Summary
from analysis.reading.experiment import Experiment
from analysis.tables.latex_table import to_latex
from analysis.tables.result_table import Column, ResultTable, TableCell, cell_texts
from analysis.writing.stamp import write_stamp
from nas.foundation.escaping import escape_markdown


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


def _csv_header(columns: Sequence[Column], is_summary: Sequence[bool]) -> list[str]:
    header: list[str] = []
    for column, spread in zip(columns, is_summary, strict=True):
        header += [column.name + part for part in (("_mean", "_low", "_high", "_n") if spread else ("",))]
    return header
