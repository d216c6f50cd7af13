import csv
import io
import itertools
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from markdown_it import MarkdownIt

from analysis.measures import MEASURES
from analysis.measures.measure import Numbers
from analysis.measures.summary import Summary
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError
from analysis.reading.run import Run
from analysis.tables.ablation_table import ablation_table
from analysis.tables.health_table import health_table
from analysis.tables.latex_table import to_latex
from analysis.tables.published_table import published_table
from analysis.tables.result_table import Column, ResultTable, best_cells
from analysis.tables.table_files import to_csv, to_markdown, write_table
from analysis.tables.targets_table import targets_table
from nas.search.health import HealthCheck
from tests.support.hand_made import experiment_of, run


@pytest.fixture
def experiment() -> Experiment:
    return experiment_of(
        [
            run(sampling=sampling, target_latency_ms=target, seed=seed, dataset="images_50%", space="micro")
            for sampling, target, seed in itertools.product(["single", "bi_random"], [1.0, 2.0], range(7))
        ]
    )


@pytest.fixture
def numbers(experiment: Experiment) -> Numbers:
    rng = np.random.default_rng(0)
    return {
        run.run_id: {name: float(rng.uniform(0, 1)) for name in MEASURES} | {"redundant_share": float("nan")}
        for run in experiment.runs
    }


def test_csv_holds_the_means_of_each_setting_with_full_precision(experiment, numbers):
    rows = list(csv.DictReader(io.StringIO(to_csv(ablation_table(experiment, numbers)))))
    assert len(rows) == 4
    for row in rows:
        runs = [
            run
            for run in experiment.runs
            if run.config["sampling"] == row["sampling"]
            and str(run.config["target_latency_ms"]) == row["target_latency_ms"]
        ]
        values = [numbers[run.run_id]["train_gini"] for run in runs]
        assert float(row["train_gini_mean"]) == np.mean(values)
        assert row["n"] == row["train_gini_n"] == "7"
        assert float(row["train_gini_low"]) <= np.mean(values) <= float(row["train_gini_high"])


def test_a_measure_that_no_run_has_gets_no_column(experiment, numbers):
    names = [column.name for column in ablation_table(experiment, numbers).columns]
    assert "redundant_share" not in names
    assert "train_gini" in names


def _plain(cell: str) -> str:
    """A cell of a LaTeX table as people read it; an interval may be below its mean."""
    cell = re.sub(r"^\\textbf\{(.*)\}$", r"\1", cell.strip())
    stacked = re.fullmatch(r"\\shortstack\[r\]\{(.*)\\\\\{\}(.*)\}", cell)
    text = " ".join(stacked.groups()) if stacked else cell
    return text.replace(r"\_", "_").replace(r"$\pm$", "±")


def test_markdown_and_latex_show_the_same_cells(experiment, numbers):
    table = ablation_table(experiment, numbers)
    markdown_rows = [
        [cell.strip() for cell in line.strip("|\n").split(" | ")]
        for line in to_markdown(table).splitlines()[2 : 2 + len(table.rows)]
    ]
    latex = to_latex(table)
    body = latex.split("\\midrule\n")[1].split("\\bottomrule")[0].strip().splitlines()
    latex_rows = [[_plain(cell) for cell in line.removesuffix(r"\\").split(" & ")] for line in body]
    assert markdown_rows == latex_rows
    for part in (r"\toprule", r"\bottomrule", r"\caption{", r"\label{tab:ablation}"):
        assert part in latex


def test_latex_escapes_what_it_would_read_as_a_command(experiment, numbers):
    table = published_table(experiment, numbers)
    latex = to_latex(replace(table, rows=(("a|b & c_λ", "x", *table.rows[0][2:]), *table.rows)))
    assert r"images\_50\%" in latex
    assert "images_50%" not in latex
    assert r"a\textbar{}b \& c\_$\lambda$ & x" in latex


def test_names_change_neither_the_rows_of_a_markdown_table_nor_become_commands_in_latex(experiment, numbers):
    table = published_table(experiment, numbers)
    names = ("[5cm] first", "*", "x |\n| y | z", "\\\\ \\input{x} \x1b[2J", "![x](http://evil.example)")
    rows = tuple((name, "x", *table.rows[0][2:]) for name in names)
    forged = replace(table, rows=rows, rule_before=None, caption=f"{names[2]} {names[4]}")
    tokens = MarkdownIt("commonmark").enable("table").parse(to_markdown(forged))
    kinds = Counter(token.type for token in tokens)
    assert kinds["tr_open"] == 1 + len(names)
    assert kinds["td_open"] == len(names) * len(table.columns)
    within = {child.type for token in tokens for child in token.children or ()}
    assert within == {"text"}
    body = to_latex(forged).split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == len(names)
    # The end of a row, and a rule, would read these as their arguments.
    assert not [line for line in body if line.startswith(("[", "*"))]
    assert not [line for line in body if "\\input" in line or not line.isprintable()]


def test_targets_that_were_met_are_counted(experiment, numbers):
    table = targets_table(experiment, numbers)
    assert table.columns[0].name == "target_latency_ms"
    for row in table.rows:
        runs = [r for r in experiment.runs if r.setting(["target_latency_ms", "sampling"]) == row[:2]]
        assert row[-1] == sum(numbers[r.run_id]["abs_latency_error_percent"] <= 1 for r in runs)


def test_one_target_makes_no_table_of_targets(numbers):
    with pytest.raises(NothingToDrawError, match="only one latency target"):
        targets_table(experiment_of([run(seed=0, target_latency_ms=1.0)]), numbers)


def checked(seed: int, depth: str, **outcomes: bool) -> Run:
    checks = [HealthCheck(name, passes, "seen", "" if passes else "do") for name, passes in outcomes.items()]
    return replace(run(seed=seed, depth=depth), health=tuple(checks))


def test_searches_that_pass_each_check_are_counted_by_setting():
    runs = [
        checked(0, "sink", latency=True, alphas=True),
        checked(1, "sink", latency=False, alphas=True),
        checked(2, "sink", latency=False, alphas=False),
        checked(0, "skip", latency=True, own_check=True),
        run(seed=1, depth="skip"),
    ]
    table = health_table(experiment_of(runs), {})
    names = [column.name for column in table.columns]
    assert names == ["depth", "n", "num_healthy", "alphas", "latency", "own_check"]
    assert table.rows == (("sink", 3, 1, "2/3", "1/3", None), ("skip", 1, 1, None, "1/1", "1/1"))
    assert table.runs == tuple(runs[:4])
    assert "Left out: 1 trial " in table.caption
    assert "latency: " in table.caption
    assert "temperature: " not in table.caption, "no run has that check"


def test_searches_without_a_health_record_make_no_table_of_it(experiment, numbers):
    with pytest.raises(NothingToDrawError, match="no run with a health record"):
        health_table(experiment, numbers)


def test_published_rows_stand_below_the_rule_and_are_marked(experiment, numbers):
    table = published_table(experiment, numbers)
    assert table.rule_before == 4
    body = to_latex(table).split("\\midrule\n")
    assert len(body) == 3
    assert len(body[1].splitlines()) == 4
    assert body[2].startswith("TF-NAS-A & ")
    for row in table.rows[4:]:
        assert str(row[1]).startswith("published")
    by_name = {row[0]: row for row in table.rows}
    assert by_name["TF-NAS-A"][2:] == (0.7687, 8.757527, 457, None, 18.03, 80.14)
    assert by_name["EfficientNet-B0"][3:5] == (5.29, 385.8)


def test_a_table_names_its_runs_beside_its_files(experiment, numbers, tmp_path):
    paths = write_table(ablation_table(experiment, numbers), experiment, tmp_path)
    assert sorted(path.name for path in paths) == [
        "ablation.csv",
        "ablation.json",
        "ablation.md",
        "ablation.tex",
    ]
    assert all(run.run_id in (tmp_path / "ablation.json").read_text() for run in experiment.runs)


def summary(mean: float, half: float | None) -> Summary:
    return Summary(12, mean, None if half is None else (mean - half, mean + half))


@pytest.mark.parametrize(
    ("better", "cells", "best"),
    [
        ("greater", [summary(0.80, 0.01), summary(0.85, 0.01), summary(0.70, 0.2)], {1, 2}),
        ("less", [summary(0.80, 0.01), summary(0.85, 0.01), summary(0.70, 0.08)], {2}),
        ("less", [summary(0.801, None), summary(0.799, None), summary(0.9, None)], {0, 1}),
        ("greater", [summary(0.8, 0.01), Summary(0, math.nan, None)], set()),
        ("greater", [summary(0.8, 0.01), Summary(6, 0.7, None)], set()),
        (None, [summary(0.80, 0.01), summary(0.85, 0.01)], set()),
    ],
)
def test_the_best_and_what_cannot_be_distinguished_from_it_is_bold(better, cells, best):
    columns = (Column("depth", "depth"), Column("x", "x", 2, better))
    rows = tuple(("sink", cell) for cell in cells)
    table = ResultTable("t", "T", "A caption.", columns, rows, ())
    assert {row for row, _ in best_cells(table)} == best
    lines = [line for line in to_latex(table).splitlines() if line.startswith("sink")]
    assert {row for row, line in enumerate(lines) if r"\textbf{" in line} == best
    assert ("Bold: the best" in to_latex(table)) == bool(best)


def test_bold_compares_settings_of_one_target_only():
    columns = (Column("target_latency_ms", "T"), Column("test_accuracy", "test acc.", 2, "greater"))
    rows = tuple((target, summary(mean, 0.01)) for target, mean in ((3.0, 0.7), (3.0, 0.8), (4.0, 0.9)))
    assert best_cells(ResultTable("t", "T", "", columns, rows, ())) == {(1, 1)}
