"""Claim (c): sink-connecting leaves no redundant encodings. A property of the space, with its count."""

from analysis.measures.measure import Numbers
from analysis.reading.experiment import Experiment


def describe_redundancy(experiment: Experiment, numbers: Numbers) -> str:
    """Counts the joint epochs whose encoding was not the only one of its network; of a study, empty."""
    if experiment.is_study:
        return ""
    counts = {depth: _count(experiment, numbers, depth) for depth in ("sink", "skip")}
    known = [
        f"{num} of {total} joint epochs in the {depth} space"
        for depth, (num, total) in counts.items()
        if total
    ]
    return f"Redundant encodings: {' and '.join(known)}." if known else ""


def _count(experiment: Experiment, numbers: Numbers, depth: str) -> tuple[int, int]:
    runs = [
        run
        for run in experiment.searched
        if run.config.get("depth") == depth
        and run.trajectory is not None
        and run.trajectory.redundant_E is not None
    ]
    redundant = sum(numbers[run.run_id]["num_redundant_epochs"] for run in runs)
    joint = sum(int(run.trajectory.is_joint_E.sum()) for run in runs if run.trajectory is not None)
    return int(redundant), joint
