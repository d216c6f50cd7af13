"""What MLflow says of a launch, on its run and on the experiment: states, health and verdicts."""

from rich.console import Console

from experiments.console import say
from experiments.launching.grid_launch import LaunchResult
from nas.foundation.errors import UserError

_HOW_TO_READ = "The menu *Views* shows the runs in columns, and settings over their seeds."


def write_notes(result: LaunchResult, file: str, console: Console) -> None:
    """Describes the launch in MLflow, on its run and on the experiment: states, health and verdicts."""
    from experiments.tracking.notes import note_on_experiment, note_on_run
    from experiments.tracking.store_access import open_store, reaching

    if result.launch is None:
        return
    states = f"{len(result.finished)} of {len(result.cells)} {result.cells[0].plural} are finished"
    health = f", {_count_healthy(result)}" if result.num_healthy or result.num_unhealthy else ""
    lines = [f"`{file}`: {states}{health}.", *_describe_verdicts(result)]
    client = open_store(result.tracking_uri)
    try:
        with reaching(result.tracking_uri):
            note_on_run(client, result.launch, lines)
            note_on_experiment(client, result.experiment_id, [*lines, _HOW_TO_READ])
    except UserError as error:
        say(console, f"{error}; the next launch writes the note")


def _describe_verdicts(result: LaunchResult) -> list[str]:
    """The verdicts on the claims that the grid asks, a line each; none while searches are to come."""
    if result.interrupted or not set(result.cells[0].factors) - {"seed"}:
        # Seeds alone compare nothing, and what judges takes seconds to import.
        return []
    from analysis.measures import measure_runs
    from analysis.reading.experiment_reader import read_experiment
    from analysis.verdicts import judge

    try:
        experiment = read_experiment(result.experiment, result.tracking_uri)
    except UserError:
        # No search is finished: nothing to judge.
        return []
    verdicts = [one for one in judge(experiment, measure_runs(experiment)) if one.status != "not asked"]
    lines = [f"- ({one.name}) {one.claim.statement} **{one.status}**: {one.reason}" for one in verdicts]
    return ["Claims, as `tfnas report` judges them:", "\n".join(lines)] if lines else []


def _count_healthy(result: LaunchResult) -> str:
    num_checked = result.num_healthy + result.num_unhealthy
    return f"{result.num_healthy} of {num_checked} {result.cells[0].plural} are healthy"
