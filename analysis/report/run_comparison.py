"""Two trials side by side: what differs in their configs, numbers and networks."""

from dataclasses import dataclass
from itertools import zip_longest

from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from analysis.figures.networks_figure import Block, derived_blocks
from analysis.measures.collapse import CANDIDATE_NAMES
from analysis.reading.experiment import Run
from analysis.reading.runs import read_run
from analysis.reading.store import refuse_broken_store
from nas.foundation.errors import UserError

Pair = tuple[str, str]


@dataclass(frozen=True)
class RunComparison:
    """What two runs have, side by side; `–` where one has nothing.

    Attributes:
        config: fields that differ.
        numbers: every metric that one of them has, its last value.
        layers: for each layer of the derived networks (stage.layer) operator and mid channels.
    """

    runs: tuple[Run, Run]
    provenance: dict[str, Pair]
    config: dict[str, Pair]
    numbers: dict[str, Pair]
    layers: dict[str, Pair]


def find_run(name: str, tracking_uri: str) -> Run:
    """The run of that id, or of these first digits of an id, or of that name.

    Raises:
        UserError: there is none, or more than one.
    """
    with refuse_broken_store(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = _search(client, experiments, f"attributes.run_name = '{_literal(name)}'")
        if not found and name.isalnum():
            found = _search(client, experiments, f"attributes.run_id LIKE '{name}%'")
    if not found:
        raise UserError(f"run '{name}': there is none; give the name or the first digits of the id of a run")
    if len(found) > 1:
        ids = ", ".join(run.info.run_id[:8] for run in found)
        raise UserError(f"run '{name}': there are several: {ids}; give the first digits of an id")
    return read_run(found[0], tracking_uri)


def _search(client: MlflowClient, experiments: list[str], query: str) -> list[MlflowRun]:
    return list(client.search_runs(experiments, query, max_results=10))


def _literal(text: str) -> str:
    return text.replace("'", "")


def compare_runs(first: Run, second: Run) -> RunComparison:
    """What two runs have, side by side."""
    fields = dict.fromkeys([*first.config, *second.config])
    metrics = dict.fromkeys([*first.metrics, *second.metrics])
    return RunComparison(
        runs=(first, second),
        provenance={
            "status": (first.outcome, second.outcome),
            "lookup table": (
                first.provenance.table_fingerprint[:16],
                second.provenance.table_fingerprint[:16],
            ),
            "code version": (first.provenance.code_version[:16], second.provenance.code_version[:16]),
        },
        config={
            name: (str(first.config.get(name, "–")), str(second.config.get(name, "–")))
            for name in fields
            if first.config.get(name) != second.config.get(name)
        },
        numbers={name: (_metric(first, name), _metric(second, name)) for name in metrics},
        layers=_compare_layers(first, second),
    )


def _metric(run: Run, name: str) -> str:
    return f"{run.metrics[name]:.5g}" if name in run.metrics else "–"


def _compare_layers(first: Run, second: Run) -> dict[str, Pair]:
    stages = zip_longest(_blocks(first), _blocks(second), fillvalue=())
    return {
        f"{stage}.{layer}": (_block(a), _block(b))
        for stage, (ours, theirs) in enumerate(stages, start=1)
        for layer, (a, b) in enumerate(zip_longest(ours, theirs), start=1)
    }


def _blocks(run: Run) -> list[list[Block]]:
    return derived_blocks(run) if run.trajectory is not None else []


def _block(block: Block | None) -> str:
    return "–" if block is None else f"{CANDIDATE_NAMES[block.op]} {block.mid_channels}"
