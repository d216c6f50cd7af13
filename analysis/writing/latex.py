"""Text for LaTeX, as pdflatex reads it in its default fonts."""

import pandas as pd

from nas.foundation.escaping import escape_unprintable

_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹"
SUPERSCRIPTS = str.maketrans("0123456789", _RAISED)
"""Digits as exponents."""

LATEX_SYMBOLS = str.maketrans(
    {
        "|": r"\textbar{}",
        "–": "--",
        "−": "$-$",
        "±": r"$\pm$",
        "·": r"$\cdot$",
        "×": r"$\times$",
        "λ": r"$\lambda$",
        "ρ": r"$\rho$",
    }
    | {raised: rf"\textsuperscript{{{digit}}}" for digit, raised in enumerate(_RAISED)}
)
"""Characters that pdflatex lacks in its default fonts and pandas leaves as they are."""


def escape_latex(text: str) -> str:
    """Returns a text in one line that LaTeX sets as it is.

    It is escaped as pandas escapes a cell, which has no public function for it.
    """
    cell = (
        pd.DataFrame([escape_unprintable(text)])
        .style.hide(axis="index")
        .hide(axis="columns")
        .format(escape="latex")
    )
    return cell.to_latex().splitlines()[1].removesuffix(r" \\").translate(LATEX_SYMBOLS)
