"""Effects: the contrast of each claim by level of the other factors, and their interactions."""

from analysis.measures import MEASURES
from analysis.measures.measure import Numbers
from analysis.measures.summary import Summary
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import OutOfPlaceError, for_grids
from analysis.tables.result_table import Column, ResultTable
from analysis.verdicts import judge
from analysis.verdicts.effects import Effect, effects_of
from analysis.verdicts.verdict import Verdict


@for_grids
def effects_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    """Makes a row for each effect: as tested, at each level of another factor, and for other contrasts."""
    found = [
        (verdict, effect)
        for verdict in judge(experiment, numbers)
        for effect in effects_of(verdict, experiment, numbers)
    ]
    if not found:
        raise OutOfPlaceError("no claim compares finished trials")
    runs = {run.run_id: run for _, effect in found for run in effect.runs}
    return ResultTable(
        "effects",
        "Effects by level",
        "Mean difference over seeds, with the 95 % interval from 7 seeds on. The first row of each claim is "
        "what its verdict is about; the others are not tested, may lie outside of what the claim is about, "
        "and show where the effect comes from. "
        "Interaction: by how much the effect at the first level exceeds that at the second. Where a grid "
        "varies fields together, a level of one of them stands for the whole cell.",
        (
            Column("claim", "claim"),
            Column("measure", "measure"),
            Column("contrast", "difference"),
            Column("level", "at"),
            Column("effect", "effect", 3),
            Column("n", "seeds"),
        ),
        tuple(_row(verdict, effect) for verdict, effect in found),
        tuple(runs.values()),
    )


def _row(verdict: Verdict, effect: Effect) -> tuple[str | int | Summary, ...]:
    found = effect.estimate
    return (
        verdict.name,
        MEASURES[verdict.claim.measure].heading,
        effect.contrast,
        effect.level,
        Summary(found.n, found.mean, found.interval),
        found.n,
    )
