"""Draw README's figures, and write its table of results, from the bundles of the replication study.

make figures
python scripts/readme_results.py
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.bundles.bundle_store import BundleStore
from analysis.figures import make_drawings
from analysis.figures.ink.figure_files import write_drawing
from analysis.measures import MEASURES, measure_runs
from analysis.reading.experiment import Experiment
from analysis.reading.experiment_reader import read_experiment
from analysis.verdicts import judge
from analysis.verdicts.redundant_encodings import describe_redundancy
from analysis.verdicts.verdict import Estimate, Verdict

ROOT = Path(__file__).parents[1]
BUNDLES = ROOT / "docs" / "replication"
PAGES = (ROOT / "README.md", BUNDLES / "README.md")
FIGURES = {"collapse": "operator-collapse.png", "depth": "depth-fluctuation.png"}
"""README's figures, from the bundle whose claims they show."""
_OF_FIGURES = "replication_sampling_and_depth.bundle"
_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"


def open_bundle(path: Path) -> Experiment:
    """The experiment of a bundle."""
    store = BundleStore.open(path)
    return read_experiment(store.experiment, store)


def results_table() -> str:
    """All claims that the study asks, with estimate and verdict, as a Markdown table."""
    rows = sorted(row for path in sorted(BUNDLES.glob("*.bundle")) for row in _rows(open_bundle(path)))
    header = "| claim | measure | difference | mean, 95 % interval, p by Holm | verdict |"
    return "\n".join([header, "|---|---|---|---|---|", *rows])


def _rows(experiment: Experiment) -> Iterator[str]:
    numbers = measure_runs(experiment)
    for verdict in judge(experiment, numbers):
        if verdict.status != "not asked":
            claim = f"({verdict.name}) {verdict.claim.statement}"
            measure = MEASURES[verdict.claim.measure].title
            cells = [
                claim,
                measure,
                f"{verdict.claim.contrast}",
                _estimate(verdict.estimate, MEASURES[verdict.claim.measure].digits),
                _outcome(verdict),
            ]
            yield f"| {' | '.join(cells)} |"
    redundancy = describe_redundancy(experiment, numbers)
    # A property needs no second grid.
    if "skip" in redundancy and experiment.name == Path(_OF_FIGURES).stem:
        name, _, counts = redundancy.rstrip(".").partition(": ")
        claim = "(c) Sink-connecting has no redundant encodings."
        yield f"| {claim} | {name.lower()} | | {counts} | by construction |"


def _estimate(estimate: Estimate, digits: int) -> str:
    low, high = estimate.interval or (math.nan, math.nan)
    p_value = "" if estimate.p_holm is None else f", p = {estimate.p_holm:.2g}"
    mean, low, high = (
        f"{value:{sign}.{digits}f}" for value, sign in ((estimate.mean, "+"), (low, ""), (high, ""))
    )
    return f"{mean} [{low}, {high}]{p_value}; n = {estimate.n} seeds"


def _outcome(verdict: Verdict) -> str:
    """The verdict; of one that is open, what it lacks."""
    _, _, lacks = verdict.reason.partition("; ")
    status: str = verdict.status
    if status == "supported" and verdict.claim.smallest_effect < 0:
        status = f"supported: not worse by {-verdict.claim.smallest_effect:g}"
    words = [status, lacks, "" if verdict.is_registered else "exploratory"]
    return "; ".join(word for word in words if word)


def with_table(page: str, table: str) -> str:
    """A page with the table in place of the former one."""
    between = re.compile(f"{_BEGIN}\n.*?{_END}", re.DOTALL)
    return between.sub(lambda _: f"{_BEGIN}\n\n{table}\n\n{_END}", page)


def draw_figures(folder: Path) -> None:
    """Writes README's figures into a folder."""
    experiment = open_bundle(BUNDLES / _OF_FIGURES)
    drawings, _ = make_drawings(experiment)
    with TemporaryDirectory() as scratch:
        for drawing in drawings:
            if drawing.name not in FIGURES:
                continue
            write_drawing(drawing, experiment, Path(scratch))
            (folder / FIGURES[drawing.name]).write_bytes((Path(scratch) / f"{drawing.name}.png").read_bytes())


if __name__ == "__main__":
    draw_figures(ROOT / "docs" / "figures")
    for page in PAGES:
        page.write_text(with_table(page.read_text("utf-8"), results_table()), "utf-8")
