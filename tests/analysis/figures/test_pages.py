"""Figures for publishers' pages: their widths and fonts, and what of an experiment they show."""

import json
import re
import shutil
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tueplots import bundles

from analysis.figures.ink.page import PAGES
from experiments.cli.results.figures_command import figures
from nas.foundation.errors import UserError
from tests.support.synthetic import Store

PANELS = ("collapse", "depth", "learning")
"""Figures whose height depends on how many settings there are."""

WIDTH_BUNDLE = Path(__file__).parents[3] / "docs" / "replication" / "replication_width.bundle"
"""An experiment of ten settings."""


@pytest.fixture(scope="module")
def out(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since other tests look at the figures beside the store."""
    return Path(shutil.copytree(store.out_dir, tmp_path_factory.mktemp("pages") / "demo"))


def run_figures(out: Path, *options: str) -> Result:
    return CliRunner().invoke(
        figures,
        ["demo", "--out", str(out), "--json", *options],
        standalone_mode=False,
        env={"MLFLOW_TRACKING_URI": None},
    )


def draw(out: Path, *options: str) -> list[Path]:
    result = run_figures(out, *options)
    assert result.exception is None, result.output
    return [Path(path) for path in json.loads(result.stdout)["written"]]


def size_in(pdf: Path) -> tuple[float, float]:
    box = re.search(rb"/MediaBox \[ ?0 0 ([0-9.]+) ([0-9.]+)", pdf.read_bytes())
    assert box is not None
    return float(box[1]) / 72, float(box[2]) / 72


def only(paths: list[Path], suffix: str) -> Path:
    [path] = [path for path in paths if path.suffix == suffix]
    return path


@pytest.mark.parametrize(
    ("style", "options", "text_in"),
    [
        ("neurips", (), bundles.neurips2024()["figure.figsize"][0]),
        ("springer", (), bundles.eccv2024()["figure.figsize"][0]),
        ("cvpr", (), bundles.cvpr2024(column="full")["figure.figsize"][0]),
        ("cvpr", ("--columns", "1"), bundles.cvpr2024(column="half")["figure.figsize"][0]),
        # The columns of IEEEtran are 252 pt wide.
        ("ieee", ("--columns", "1"), 252 / 72.27),
    ],
)
def test_the_map_of_collapse_is_as_wide_as_the_publishers_text(
    out: Path, style: str, options: tuple[str, ...], text_in: float
):
    paths = draw(out, "--style", style, "--only", "collapse", *options)
    assert {path.parent for path in paths} == {out / "figures" / style}
    assert size_in(only(paths, ".pdf"))[0] == pytest.approx(text_in, abs=0.005)


@pytest.mark.parametrize("style", PAGES)
def test_fonts_are_embedded_as_outlines(out: Path, style: str):
    content = only(draw(out, "--style", style, "--only", "depth"), ".pdf").read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    unpacked = content + b"".join(zlib.decompress(one) for one in streams if one[:1] == b"x")
    assert b"STIXGeneral" in unpacked
    assert (
        unpacked.count(b"/FontFile2") == unpacked.count(b"/FontDescriptor /FontName")
        or b"/FontFile2" in unpacked
    )
    assert b"/Subtype /Type3" not in unpacked


def test_only_draws_what_is_named_and_leaves_the_rest(out: Path):
    draw(out)
    before = {path: path.read_bytes() for path in (out / "figures").glob("*.*")}
    paths = draw(out, "--only", "depth,tradeoff")
    assert {path.stem for path in paths} == {"depth", "tradeoff"}
    assert {path: path.read_bytes() for path in before} == before


def test_a_figure_of_one_seed_shows_its_runs_only(out: Path):
    stamp = json.loads(only(draw(out, "--only", "depth", "--seeds", "1"), ".json").read_text())
    assert {re.search(r"s(\d)", run["name"])[1] for run in stamp["runs"]} == {"1"}


def test_settings_stand_in_the_order_asked_for_and_under_other_names(out: Path):
    paths = draw(
        out,
        *("--only", "collapse", "--order", "sink,bi_random", "--label", "bi_random=Bi-sampling"),
    )
    texts = re.findall(r">([^<]*(?:sink|skip)), seed 0<", only(paths, ".svg").read_text(encoding="utf-8"))
    assert texts == ["Bi-sampling, sink", "single, sink", "Bi-sampling, skip", "single, skip"]


def test_a_caption_says_which_seeds_and_layers_are_shown(out: Path):
    paths = draw(out, "--only", "collapse", "--seeds", "1", "--layers", "1.1,2.2")
    caption = only(paths, ".txt").read_text(encoding="utf-8")
    assert "over seed 1 (" in caption
    assert "all seeds" not in caption + only(paths, ".svg").read_text(encoding="utf-8")
    assert re.search(r"Above are 2 of \d+ layers", caption)


@pytest.mark.filterwarnings("error::UserWarning")
def test_figures_of_many_settings_with_long_names_are_laid_out_and_no_higher_than_a_page(tmp_path: Path):
    result = CliRunner().invoke(
        figures,
        [
            *("--from", str(WIDTH_BUNDLE), "--out", str(tmp_path), "--style", "cvpr", "--columns", "1"),
            *("--only", ",".join(PANELS), "--label", "elastic=elastic widths, and many words that say how"),
        ],
        standalone_mode=False,
    )
    assert result.exception is None, result.output
    for name in PANELS:
        pdf = tmp_path / "figures" / "cvpr" / f"{name}.pdf"
        assert size_in(pdf)[1] <= PAGES["cvpr"].max_height_in + 0.01, name


def test_a_map_of_some_layers_has_their_rows_and_the_same_summary(out: Path):
    def labels(*options: str) -> tuple[set[str], set[str]]:
        svg = only(draw(out, "--only", "collapse", *options), ".svg").read_text(encoding="utf-8")
        return set(re.findall(r">(\d\.\d)<", svg)), set(re.findall(r">([^<]* early, [^<]*)<", svg))

    all_layers, summary = labels()
    assert len(all_layers) > 2
    assert labels("--layers", "1.1,2.2") == ({"1.1", "2.2"}, summary)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seeds", "7"), "--seeds: 7: not in demo, which has 0, 1"),
        (("--seeds", "one"), "--seeds: one: must be numbers with commas between them"),
        (("--layers", "9.9"), "--layers: 9.9: not in demo, which has 1.1, "),
        (("--order", "sinks"), "--order: sinks: not in demo, which has "),
        (("--label", "sink"), "--label: sink: must be VALUE=TEXT, for instance bi_random=bi-sampling"),
        (("--label", "sinks=Sink"), "--label: sinks: not in demo, which has "),
        (("--only", "collaps"), "--only: collaps: no such figure of this experiment, which has collapse, "),
        (("--only", "depth", "--check"), "--only: does not go with --check"),
        (("--label", "sink=skip"), "--label: sink=skip: skip is written so, too; choose another text"),
        (("--label", "sink=A", "--label", "skip=A"), "--label: sink=A: skip is written so, too"),
    ],
)
def test_what_the_experiment_lacks_is_named_with_what_it_has(out: Path, options, message):
    result = run_figures(out, *options)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(message)


def test_two_values_can_swap_their_texts(out: Path):
    draw(out, "--only", "collapse", "--label", "sink=skip", "--label", "skip=sink")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", ""), "--only: empty: must be NAME,..."),
        (("--seeds", ""), "--seeds: empty: must be SEED,..."),
        (("--order", " "), "--order:  : must be VALUE,..."),
        (("--table", ""), "--table: is empty; give its first characters, or remove the option"),
        (("--code-version", " "), "--code-version: is empty"),
        (("--only", "collapse,,depth"), "--only: collapse,,depth: must be NAME,..., with something between"),
        (("--order", "sink,sink"), "--order: sink,sink: has sink twice; name it once"),
        (("--seeds", "0,00"), "--seeds: 0,00: has 0 twice; name it once"),
        (("--label", "sink="), "--label: sink=: has no text; add it, or remove the option"),
        (("--label", "=A"), "--label: =A: must be VALUE=TEXT"),
        (("--label", "sink=A", "--label", "sink=B"), "--label: sink: has two texts; give it one"),
        (("--layers", "1.1", "--only", "depth"), "--layers: 1.1: only the figure 'collapse' shows layers"),
        (("--style", "springer", "--columns", "1"), "--columns: 1: the pages of springer have no columns"),
    ],
)
def test_what_has_no_meaning_or_no_effect_is_refused_before_runs_are_read(
    tmp_path: Path, options: tuple[str, ...], message: str
):
    # No store is there, which would be the next error.
    result = run_figures(tmp_path, *options)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(message)
