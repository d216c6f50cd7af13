"""Two trials side by side: how their configs, numbers and networks differ."""

from dataclasses import dataclass
from itertools import zip_longest

from analysis.reading import tags
from analysis.reading.run import Run
from analysis.reading.run_reader import read_files
from analysis.reading.run_store import RunStore
from nas.foundation.errors import UserError
from nas.space.architecture import LayerChoice

Pair = tuple[str, str]


@dataclass(frozen=True)
class RunComparison:
    """Two runs side by side; `–` where one of them has nothing.

    Attributes:
        provenance: how they ended, and what made them.
        config: fields that differ.
        numbers: the last value of each metric.
        layers: operator and mid channels of each layer (stage.layer) of the derived networks.
    """

    runs: tuple[Run, Run]
    provenance: dict[str, Pair]
    config: dict[str, Pair]
    numbers: dict[str, Pair]
    layers: dict[str, Pair]


def find_run(name: str, store: RunStore) -> Run:
    """Finds a run by its name, its id or the first digits of its id, with `run:` before it or not.

    Raises:
        UserError: there is none, which offers near names; or more than one, which lists them.
    """
    name = name.removeprefix("run:")
    found = store.find_runs(name)
    if len(found) > 1:
        shown = ", ".join(f"{run.short_id} ({run.name}, {run.status})" for run in found)
        raise UserError(f"run '{name}': there are several: {shown}; give the first digits of an id")
    return read_files(found, store)[0]


def compare_runs(first: Run, second: Run) -> RunComparison:
    """Returns two runs side by side."""
    fields = dict.fromkeys([*first.config, *second.config])
    metrics = dict.fromkeys([*first.metrics, *second.metrics])
    return RunComparison(
        runs=(first, second),
        provenance={
            "status": (first.outcome, second.outcome),
            "lookup table": (first.basis.table_fingerprint[:16], second.basis.table_fingerprint[:16]),
            "results version": (first.basis.results_version, second.basis.results_version),
            "source": (first.code_version[:16], second.code_version[:16]),
            "libraries": (first.tag(tags.LIBRARIES), second.tag(tags.LIBRARIES)),
            "device": (first.tag(tags.DEVICE), second.tag(tags.DEVICE)),
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
    stages = zip_longest(_stages(first), _stages(second), fillvalue=())
    return {
        f"{stage}.{layer}": (_layer(a), _layer(b))
        for stage, (ours, theirs) in enumerate(stages, start=1)
        for layer, (a, b) in enumerate(zip_longest(ours, theirs), start=1)
    }


def _stages(run: Run) -> tuple[tuple[LayerChoice, ...], ...]:
    return run.architecture.stages if run.architecture is not None else ()


def _layer(choice: LayerChoice | None) -> str:
    return "–" if choice is None else f"{choice.op} {choice.mid_channels}"
