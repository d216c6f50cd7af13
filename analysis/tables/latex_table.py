"""Tables as LaTeX (booktabs) that fit a page of two columns: narrow ones a column, others both."""

import re
import textwrap

import pandas as pd

from analysis.reading.captions import name_runs
from analysis.tables.result_table import ResultTable, best_cells, cell_texts
from analysis.writing.latex import LATEX_SYMBOLS, escape_latex

_COLUMN_CHARS, _PAGE_CHARS, _SMALL_CHARS = 46, 100, 120
"""Letters that fit a column and both in the size of footnotes, and both in the size of indices.

What has more is scaled down to the width of the page.
"""
_INTERVAL = re.compile(r"(\S+) (\[.*\])")
_MAX_TEXT_CHARS = 26
"""Longer texts are broken into lines."""
_BOLD = "Bold: the best of a column at one target, and what cannot be distinguished from it."
_GAP_CHARS = 1.6
"""What the space between two columns takes."""


def to_latex(table: ResultTable) -> str:
    """Returns a LaTeX table for the package booktabs, with its caption; a comment names its runs."""
    texts = cell_texts(table)
    if sum(_GAP_CHARS + max(map(len, column)) for column in zip(*texts, strict=True)) > _SMALL_CHARS:
        # Intervals go below their means.
        texts = [[_INTERVAL.sub(r"\1\n\2", cell) for cell in row] for row in texts]
    widths = [
        max((len(line) for row in texts for line in row[index].split("\n")), default=1)
        for index in range(len(table.columns))
    ]
    headings = [
        _break(column.heading, min(width, _MAX_TEXT_CHARS))
        for column, width in zip(table.columns, widths, strict=True)
    ]
    num_chars = sum(
        _GAP_CHARS + max(min(width, _MAX_TEXT_CHARS), *map(len, lines))
        for width, lines in zip(widths, headings, strict=True)
    )
    sides = ["l" if _is_text(table, index) else "r" for index in range(len(widths))]
    # In the last column, `\raggedright` would change what ends a row.
    ragged = {index for index, width in enumerate(widths[:-1]) if width > _MAX_TEXT_CHARS}
    frame = pd.DataFrame(texts)
    best = best_cells(table)
    styles = pd.DataFrame("", frame.index, frame.columns)
    for row, index in best:
        styles.iloc[row, index] = "textbf:--rwrap;"
    # pandas reads labels as format strings.
    stacks = (_stack(lines, side) for lines, side in zip(headings, sides, strict=True))
    labels = [stack.replace("{", "{{").replace("}", "}}") for stack in stacks]
    text = (
        frame.style.hide(axis="index")
        .apply(lambda _: styles, axis=None)
        .format(
            {index: _break_cell if index in ragged else _keep_off_command for index in range(len(widths))},
            escape="latex",
        )
        .relabel_index(labels, axis=1)
        .to_latex(
            hrules=True,
            environment="table" if num_chars <= _COLUMN_CHARS else "table*",
            position_float="centering",
            caption=escape_latex(f"{table.caption} {_BOLD}" if best else table.caption),
            label=f"tab:{table.name}",
            column_format="".join(map(_column, sides, widths)),
        )
    )
    size = r"\footnotesize" if num_chars <= _PAGE_CHARS else r"\scriptsize"
    text = text.replace("\\centering\n", f"\\centering{size}\\setlength{{\\tabcolsep}}{{3pt}}\n", 1)
    # Most classes leave no space between a caption and what is below it.
    text = text.replace("\\begin{tabular}", "\\smallskip\n\\begin{tabular}", 1)
    if num_chars > _SMALL_CHARS:
        text = text.replace("\\begin{tabular}", "\\resizebox{\\textwidth}{!}{%\n\\begin{tabular}", 1)
        text = text.replace("\\end{tabular}\n", "\\end{tabular}}\n", 1)
    lines = text.translate(LATEX_SYMBOLS).splitlines(keepends=True)
    if table.rule_before:
        # pandas has no rule between two rows.
        lines.insert(lines.index("\\midrule\n") + 1 + table.rule_before, "\\midrule\n")
    return f"% In the preamble: \\usepackage{{booktabs,graphicx}}. {name_runs(table.runs)}\n" + "".join(lines)


def _break(heading: str, num_chars: int) -> list[str]:
    """The lines of a heading above cells of so many letters."""
    longest_word = max(map(len, heading.split()), default=1)
    return textwrap.wrap(heading, max(num_chars, longest_word), break_on_hyphens=False) or [""]


def _stack(lines: list[str], side: str) -> str:
    stacked = r"\\".join(escape_latex(line) for line in lines)
    return stacked if len(lines) == 1 else f"\\shortstack[{side}]{{{stacked}}}"


def _column(side: str, num_chars: int) -> str:
    return f"p{{{0.48 * _MAX_TEXT_CHARS:.1f}em}}" if num_chars > _MAX_TEXT_CHARS else side


def _keep_off_command(cell: object) -> str:
    """A cell that the command before it, the end of a row or a rule, does not read as its argument."""
    text = str(cell)
    if "\n" in text:
        stacked = text.replace("\n", r"\\{}")
        return f"\\shortstack[r]{{{stacked}}}"
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _break_cell(cell: object) -> str:
    """A cell of a column that is broken into lines: long ones get no gaps between words."""
    text = _keep_off_command(cell)
    return f"\\raggedright {text}" if len(text) > _MAX_TEXT_CHARS else text


def _is_text(table: ResultTable, index: int) -> bool:
    return all(isinstance(row[index], str) for row in table.rows)
