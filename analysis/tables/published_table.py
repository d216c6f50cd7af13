"""The paper's comparison of networks: ours, then the published ones, marked as such."""

from analysis.measures.accuracy import selection_note
from analysis.measures.measure import Numbers
from analysis.measures.published_networks import PUBLISHED_NETWORKS
from analysis.measures.run_measures import LATENCY, TEST_ACCURACY
from analysis.measures.summary import Summary
from analysis.measures.trained_groups import trained_groups
from analysis.reading.experiment import Experiment
from analysis.reading.nothing_to_draw import NothingToDrawError, for_grids
from analysis.tables.result_table import Column, ResultTable, TableCell, summarize_measures
from analysis.tables.trained_table import sizes_in_millions

_COLUMNS = (
    Column("name", "network"),
    Column("origin", "origin"),
    Column("top1", "top-1", 4),
    Column("parameters_millions", "parameters (M)", 2),
    Column("macs_millions", "MACs (M)", 0),
    Column("table_latency_ms", "table latency (ms)", 3),
    Column("gpu_ms", "GPU (ms)", 2),
    Column("cpu_ms", "CPU (ms)", 2),
)


@for_grids
def published_table(experiment: Experiment, numbers: Numbers) -> ResultTable:
    """Makes a row for each setting and each network trained here, then the published rows."""
    ours = _our_rows(experiment, numbers)
    if not any(isinstance(cell, Summary) and cell.n for _, _, cell, *_ in ours):
        raise NothingToDrawError("no network was trained")
    config = experiment.runs[0].config
    return ResultTable(
        "published",
        "Comparison with published networks",
        f"Above the rule: networks of this experiment ({config.get('dataset')}, space "
        f"'{config.get('space')}'), top-1 on the test images after training from scratch, latency by the "
        "lookup table. Below: published results on ImageNet-1K (GPU: Titan RTX, batch 32; CPU: Xeon 6130, "
        "batch 1), not measured here. The two parts compare only if the images are the same."
        f"{selection_note(experiment.training)}",
        _COLUMNS,
        (*ours, *_published_rows()),
        (*experiment.runs, *experiment.training),
        rule_before=len(ours),
    )


def _our_rows(experiment: Experiment, numbers: Numbers) -> list[tuple[TableCell, ...]]:
    groups = trained_groups(experiment)
    sizes = {group.name: sizes_in_millions(group) for group in groups}
    rows: list[tuple[TableCell, ...]] = []
    for runs in experiment.by_setting():
        latency, accuracy = summarize_measures(runs, (LATENCY, TEST_ACCURACY), numbers)
        name = experiment.label(runs[0]) or experiment.name
        rows.append((name, "searched here", accuracy, *sizes.get(name, (None, None)), latency, None, None))
    for group in groups:
        if not group.searches:
            accuracy = group.over_seeds(TEST_ACCURACY.name)
            rows.append((group.name, "trained here", accuracy, *sizes[group.name], None, None, None))
    return rows


def _published_rows() -> list[tuple[TableCell, ...]]:
    return [
        (
            network.name,
            f"published: {network.source}",
            network.top1_percent / 100,
            network.parameters_millions,
            network.macs_millions,
            None,
            network.gpu_ms,
            network.cpu_ms,
        )
        for network in PUBLISHED_NETWORKS
    ]
