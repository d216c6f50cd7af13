"""The figures' files, and the check that they still correspond to their runs."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text
from PIL import Image

from analysis.figures import make_drawings
from analysis.figures.ink.drawing import Drawing
from analysis.figures.ink.figure_files import FORMATS, check_drawings, write_drawing, write_drawings
from analysis.figures.ink.page import ANY_PAGE
from analysis.figures.ink.style import keep_names_plain, new_figure
from analysis.figures.networks_figure import network_drawings
from analysis.measures import measure_runs
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.reading.run import Run
from experiments.cli.results.figures_command import figures
from nas.space.architecture import Architecture, LayerChoice
from nas.space.macro_space import SPACES, Space, get_space
from tests.support.hand_made import experiment_of, run
from tests.support.synthetic import LIBRARIES, SOURCE, Store

SHORT = {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1}
SUFFIXES = (".png", ".pdf", ".svg", ".txt", ".tex", ".csv", ".json")
NAMES = (
    "collapse",
    "depth",
    "redundancy",
    "elasticity",
    "tradeoff",
    "space",
    "networks",
    "learning",
)


@pytest.fixture
def folder(store: Store, reported: Result) -> Path:
    return store.out_dir / "figures"


def run_figures(out: Path, *options: str) -> tuple[int, dict[str, list[str]]]:
    """`tfnas figures demo`: its exit code and its JSON."""
    result = CliRunner().invoke(
        figures,
        ["demo", "--out", str(out), "--json", *options],
        standalone_mode=False,
        env={"MLFLOW_TRACKING_URI": None},
    )
    assert result.exception is None, result.output
    return result.return_value, json.loads(result.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_is_written_for_screen_print_and_web(name: str, folder: Path):
    for suffix, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        assert (folder / f"{name}.{suffix}").read_bytes().startswith(magic)


def _widest(space: Space) -> Architecture:
    """The deepest network, with the most letters."""
    op = space.ops[-1]
    stages = tuple(
        tuple(
            LayerChoice(op=op.name, mid_channels=op.width_interval(layer.in_channels)[1])
            for layer in space.stage_layers(stage)
        )
        for stage in range(len(space.stages))
    )
    return Architecture(space=space.name, stages=stages)


@pytest.mark.parametrize("name", NAMES)
def test_the_caption_is_beside_the_image_and_not_within_it(name: str, folder: Path, experiment: Experiment):
    (drawing,) = [one for one in make_drawings(experiment)[0] if one.name == name]
    assert (folder / f"{name}.txt").read_text() == drawing.full_caption + "\n"
    latex = (folder / f"{name}.tex").read_text()
    assert latex.splitlines()[2].startswith("\\caption{")
    assert f"\\label{{fig:{name}}}" in latex
    shown = re.sub(r"<metadata>.*</metadata>", "", (folder / f"{name}.svg").read_text(), flags=re.DOTALL)
    assert "n = 8 trials" not in shown
    assert experiment.runs[0].short_id not in shown


def test_captions_for_latex_are_escaped(experiment: Experiment, tmp_path: Path):
    (drawing,) = [one for one in some_drawings(experiment) if one.name == "depth"]
    own = replace(drawing, caption="100 % of bi_random & $λ$ ± 1 \\input{x}", runs=())
    write_drawing(own, experiment, tmp_path)
    caption = (tmp_path / "depth.tex").read_text().split("% Runs: .\n")[1]
    assert caption == (
        "\\caption{100 \\% of bi\\_random \\& \\$$\\lambda$\\$ $\\pm$ 1 "
        "\\textbackslash input\\{x\\}}\n\\label{fig:depth}\n"
    )


def test_text_stays_text_in_svg_files(folder: Path):
    assert "depth (layers)</text>" in (folder / "depth.svg").read_text()


def test_the_numbers_of_each_figure_are_beside_it_with_setting_and_seed(folder: Path, experiment: Experiment):
    run_ids = {run.run_id for run in experiment.runs}
    for name in NAMES:
        table = pd.read_csv(folder / f"{name}.csv")
        assert set(table["run_id"]) == (run_ids if name != "space" else {experiment.runs[0].run_id})
        for _, row in table.drop_duplicates("run_id").iterrows():
            (run,) = [run for run in experiment.runs if run.run_id == row["run_id"]]
            assert (row["sampling"], row["depth"], row["seed"]) == run.setting(("sampling", "depth", "seed"))


def test_the_numbers_of_figures_are_those_of_the_measures(folder: Path, experiment: Experiment):
    measures = measure_runs(experiment)
    for figure, column, measure in (
        ("collapse", "locked_early_share", "locked_early_share"),
        ("depth", "depth_fluctuation", "depth_fluctuation"),
        ("redundancy", "redundant_share", "redundant_share"),
    ):
        found = pd.read_csv(folder / f"{figure}.csv").groupby("run_id")[column].agg(["min", "max"])
        for run_id, row in found.iterrows():
            assert row["min"] == row["max"] == pytest.approx(measures[run_id][measure])
    layers = pd.read_csv(folder / "networks.csv").groupby("run_id")["layer"].count()
    assert {run.run_id: run.metrics["derived_depth"] for run in experiment.runs} == layers.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_is_as_wide_as_a_column_or_a_text_and_fits_a_page(name: str, folder: Path):
    with Image.open(folder / f"{name}.png") as image:
        width_in, height_in = image.width / 300, image.height / 300
    assert min(abs(width_in - own) for own in (3.5, 4.8, 7.1)) < 0.01
    assert height_in < 11


@pytest.mark.parametrize("space", list(SPACES))
def test_networks_and_space_are_as_wide_as_a_text_without_small_or_cut_off_letters(space: str):
    widest = _widest(get_space(space))
    runs = [
        replace(
            run(f"s{seed}", space=space, seed=seed),
            architecture=widest,
            metrics={"derived_latency_ms": 12.345},
        )
        for seed in (0, 1)
    ]
    for drawing in network_drawings(experiment_of(runs)):
        figure = drawing.draw()
        figure.draw_without_rendering()
        assert figure.get_size_inches()[0] == pytest.approx(ANY_PAGE.text_in)
        page = figure.bbox
        for text in figure.findobj(Text):
            if text.get_text() and text.get_visible() and text.axes is not None and text.axes.axison is False:
                box = text.get_window_extent()
                assert text.get_fontsize() >= 6
                assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
                assert page.y0 <= box.y0 <= box.y1 <= page.y1, text
        for arc in figure.findobj(FancyArrowPatch):
            box, axes_box = arc.get_window_extent(), arc.axes.get_window_extent()
            assert axes_box.y0 <= box.y0 <= box.y1 <= axes_box.y1


def test_each_figure_names_its_runs_beside_and_within_it(folder: Path, experiment: Experiment):
    stamp = json.loads((folder / "depth.json").read_text())
    run_id = experiment.runs[0].run_id
    assert {run["run_id"] for run in stamp["runs"]} == {run.run_id for run in experiment.runs}
    assert stamp["table_fingerprint"] == experiment.basis.table_fingerprint
    assert stamp["results_version"] == experiment.basis.results_version
    assert (stamp["sources"], stamp["sets_of_libraries"]) == ([SOURCE], [LIBRARIES])
    with Image.open(folder / "depth.png") as image:
        assert run_id in image.info["Source"]
        assert LIBRARIES in image.info["Source"]
    assert run_id in (folder / "depth.svg").read_text()
    assert run_id.encode() in (folder / "depth.pdf").read_bytes()


def test_captions_say_n_and_which_cells_are_missing(experiment: Experiment):
    for drawing in make_drawings(experiment)[0]:
        assert drawing.runs
        assert experiment.runs[0].short_id in drawing.full_caption
        if drawing.name not in ("space",):
            assert "n = " in drawing.caption
    captions = {drawing.name: drawing.caption for drawing in make_drawings(experiment)[0]}
    assert "n = 8 trials" in captions["depth"]
    assert "bi_random-skip-s3" in captions["depth"]


def some_drawings(experiment: Experiment) -> list[Drawing]:
    """Two figures that are quickly drawn."""
    return [drawing for drawing in make_drawings(experiment)[0] if drawing.name in ("depth", "space")]


def test_the_same_runs_give_the_same_bytes(experiment: Experiment, tmp_path: Path):
    for name in ("a", "b"):
        write_drawings(some_drawings(experiment), experiment, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_figures_are_the_same_whatever_a_person_has_set_for_their_own(experiment: Experiment, tmp_path: Path):
    """LaTeX for all texts is the setting that fails where there is none."""
    own = {"text.usetex": True, "figure.figsize": (1, 1), "axes.grid": True, "savefig.bbox": "tight"}
    with mpl.rc_context(own):
        write_drawings(some_drawings(experiment), experiment, tmp_path / "own")
        assert mpl.rcParams["text.usetex"]
    with mpl.rc_context():
        mpl.rcdefaults()
        write_drawings(some_drawings(experiment), experiment, tmp_path / "defaults")
    for path in (tmp_path / "own").iterdir():
        assert path.read_bytes() == (tmp_path / "defaults" / path.name).read_bytes()


def test_a_name_with_dollar_signs_is_no_formula_and_numbers_are(tmp_path: Path):
    figure = new_figure(3, 2)
    axes = figure.subplots()
    axes.plot([1, 1000], [1, 2], label="a$\\undefined{$b")
    axes.set(xscale="log", title="$1 and $2")
    axes.legend()
    keep_names_plain(figure)
    figure.savefig(tmp_path / "x.svg", metadata={"Date": None})
    texts = {text.get_text(): text.get_parse_math() for text in figure.findobj(Text) if text.get_text()}
    assert not texts["a$\\undefined{$b"]
    assert not texts["$1 and $2"]
    assert any(is_formula for text, is_formula in texts.items() if "mathdefault" in text)


@pytest.fixture
def small(tmp_path: Path) -> Store:
    """One short trial."""
    store = Store(tmp_path, "demo")
    store.add(SHORT | {"seed": 0}, ["seed"])
    return store


def check(store: Store) -> list[str]:
    """What the check finds after the experiment was read anew."""
    experiment = read_experiment("demo", store.tracking_uri)
    return check_drawings(some_drawings(experiment), store.out_dir / "figures")


def draw(store: Store) -> Run:
    """Draws two figures; returns the trial."""
    experiment = read_experiment("demo", store.tracking_uri)
    write_drawings(some_drawings(experiment), experiment, store.out_dir / "figures")
    return experiment.runs[0]


def test_the_check_finds_files_that_are_missing_edited_or_unreadable(small: Store):
    assert check(small) == ["depth: not drawn yet", "space: not drawn yet"]
    draw(small)
    assert check(small) == []
    (small.out_dir / "figures" / "depth.svg").write_text("<svg/>")
    (small.out_dir / "figures" / "depth.pdf").unlink()
    (small.out_dir / "figures" / "space.json").write_text("{")
    assert check(small) == [
        "depth: depth.pdf is missing",
        "depth: depth.svg was changed after it was written",
        "space: space.json cannot be read; draw the figure again",
    ]


def test_the_check_finds_runs_that_came_or_changed(small: Store):
    run_id = draw(small).run_id
    small.client.log_metric(run_id, "val_accuracy", 0.123, step=4)
    assert f"depth: 1 run changed since: {run_id[:8]}" in check(small)
    added = small.add(SHORT | {"seed": 1}, ["seed"])
    assert f"depth: 1 run not in it: {added[:8]}" in check(small)


def test_figures_that_the_runs_no_longer_support_are_removed_unless_edited(small: Store):
    draw(small)
    folder = small.out_dir / "figures"
    experiment = read_experiment("demo", small.tracking_uri)
    write_drawings([], experiment, folder)
    assert not list(folder.iterdir())
    draw(small)
    (folder / "depth.svg").write_text("<svg>mine</svg>")
    write_drawings([], experiment, folder)
    assert sorted(path.suffix for path in folder.iterdir()) == sorted(SUFFIXES)
    assert {path.stem for path in folder.iterdir()} == {"depth"}


def test_figures_of_before_are_outdated_and_replaced(small: Store):
    draw(small)
    folder = small.out_dir / "figures"
    stamp = json.loads((folder / "depth.json").read_text())
    del stamp["style"]
    stamp["files"] = {name: digest for name, digest in stamp["files"].items() if name[-3:] in FORMATS}
    (folder / "depth.json").write_text(json.dumps(stamp))
    assert check(small) == ["depth: drawn in an older style; draw the figure again"]
    (folder / "depth.txt").write_text("mine")
    write_drawings([], read_experiment("demo", small.tracking_uri), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["depth.csv", "depth.tex", "depth.txt"]


def test_no_figure_is_removed_while_a_run_cannot_be_read(small: Store):
    run = draw(small)
    folder = small.out_dir / "figures"
    trajectory = next((small.out_dir / "mlartifacts").glob(f"{run.run_id}/**/trajectory.npz"))
    content = trajectory.read_bytes()
    trajectory.unlink()
    before = {path.name: path.read_bytes() for path in folder.glob("depth.*")}
    code, result = run_figures(small.out_dir)
    assert code == 1
    assert any("trajectory.npz is missing" in line for line in result["notices"])
    assert {path.name: path.read_bytes() for path in folder.glob("depth.*")} == before
    trajectory.write_bytes(content)
    assert run_figures(small.out_dir)[0] == 0


@pytest.mark.parametrize("name", ["../elsewhere.txt", "notes.txt", "{folder}/notes.txt", "space.png"])
def test_a_stamp_that_names_files_that_are_not_its_own_removes_nothing(small: Store, name: str):
    draw(small)
    folder = small.out_dir / "figures"
    name = name.format(folder=folder)
    if name != "space.png":
        (folder / name).write_text("mine")
    content = (folder / name).read_bytes()
    stamp = json.loads((folder / "depth.json").read_text())
    stamp["files"] |= {name: hashlib.sha256(content).hexdigest()}
    (folder / "depth.json").write_text(json.dumps(stamp))
    experiment = read_experiment("demo", small.tracking_uri)
    drawings = [drawing for drawing in some_drawings(experiment) if drawing.name == "space"]
    assert "depth: depth.json cannot be read; draw the figure again" in check_drawings(drawings, folder)
    write_drawings(drawings, experiment, folder)
    assert (folder / name).read_bytes() == content
    assert (folder / "depth.png").is_file()


def test_the_command_checks_with_an_exit_code(store: Store, reported: Result):
    code, result = run_figures(store.out_dir, "--check")
    assert (code, result["outdated"]) == (0, [])
    path = store.out_dir / "figures" / "space.svg"
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    assert run_figures(store.out_dir, "--check")[0] == 1
    path.write_bytes(content)


def test_a_run_without_trajectory_still_gives_what_needs_none(store: Store, tmp_path: Path):
    older = Store(tmp_path, "demo")
    older.add(
        {"target_latency_ms": 1.0, "num_epochs": 4, "num_warmup_epochs": 1, "seed": 0}, ["seed"], older=True
    )
    code, result = run_figures(tmp_path)
    assert code == 1
    assert {Path(path).stem for path in result["written"]} == {"tradeoff", "space", "networks"}
    assert "operator collapse: not drawn: no run with a trajectory" in result["undrawn"]
    assert "0.0.1" in result["notices"][0]
