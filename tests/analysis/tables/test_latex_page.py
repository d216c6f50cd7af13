"""Figures, captions and tables in a page of two columns, as pdflatex sets it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from analysis.measures import MEASURES
from analysis.tables.ablation_table import ablation_table
from analysis.tables.latex_table import to_latex
from analysis.tables.published_table import published_table
from tests.support.hand_made import experiment_of, run
from tests.support.limits import PATIENCE_S
from tests.support.synthetic import Store

PDFLATEX = shutil.which("pdflatex")
HEAD = r"""
\documentclass[twocolumn]{article}
\usepackage{graphicx}
\usepackage{booktabs}
\graphicspath{{figures/}}
\makeatletter\def\input@path{{figures/}{tables/}}\makeatother
\begin{document}
"""


@pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex here: apt-get install texlive-latex-base")
def test_all_figures_and_tables_compile_and_fit_a_page_of_two_columns(
    store: Store, reported: Result, tmp_path: Path
) -> None:
    for folder in ("figures", "tables"):
        shutil.copytree(store.out_dir / folder, tmp_path / folder)
    seeds = range(7)
    runs = [
        run(sampling=name, seed=seed, space="micro") for name in ("single", "bi_random") for seed in seeds
    ]
    rng = np.random.default_rng(0)
    numbers = {one.run_id: {name: rng.exponential() for name in MEASURES} for one in runs}
    # All measures, with intervals: wider than any grid has it.
    widest = to_latex(ablation_table(experiment_of(runs), numbers))
    (tmp_path / "tables" / "with_intervals.tex").write_text(widest)
    # Of trained networks, which the store lacks.
    published = to_latex(published_table(experiment_of(runs), numbers))
    (tmp_path / "tables" / "published.tex").write_text(published)
    figures = sorted(path.name for path in (tmp_path / "figures").glob("*.tex"))
    tables = sorted(path.name for path in (tmp_path / "tables").glob("*.tex"))
    assert {"collapse.tex", "networks.tex"} <= set(figures)
    assert {"ablation.tex", "published.tex"} <= set(tables)
    # The first comment of a caption is the environment around it.
    around = [
        (tmp_path / "figures" / name).read_text().splitlines()[0].removeprefix("% ") for name in figures
    ]
    inputs = [rf"\input{{{name}}}\clearpage" for name in tables]
    (tmp_path / "page.tex").write_text("\n".join((HEAD, *around, *inputs, r"\end{document}")))
    assert PDFLATEX is not None
    done = subprocess.run(
        [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    log = (tmp_path / "page.log").read_text(errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert not re.findall(r"Overfull \\hbox.*", log)
