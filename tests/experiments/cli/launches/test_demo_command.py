"""The demo runs whole rounds of seeds until its time is used."""

from importlib.resources import files
from pathlib import Path

import pytest

from experiments.cells.search_cell import SearchCell
from experiments.cli.launches.demo_command import count_rounds, first_rounds
from experiments.specs.grid_file import load_grid
from nas.latency.table import LatencyTable, reachable_interval_ms
from nas.search.health import check_health, foresee_health
from nas.search.search import run_search

ROOT = Path(__file__).parents[4]
QUICKSTART = Path(str(files("tune_configs") / "quickstart.yaml"))


@pytest.mark.parametrize(
    ("budget_s", "spent_s", "expected"),
    [(0, 90, 1), (240, 300, 1), (240, 181, 1), (240, 180, 2), (240, 100, 3), (9999, 100, 4)],
)
def test_further_rounds_run_if_they_fit_and_the_first_always(
    budget_s: float, spent_s: float, expected: int
) -> None:
    assert count_rounds(budget_s, spent_s, round_s=60, most=4) == expected


def test_a_number_of_rounds_means_the_same_searches_whatever_the_time() -> None:
    grid = load_grid(QUICKSTART)
    one, two = (first_rounds(grid, num_rounds).drafts for num_rounds in (1, 2))
    assert [draft.config for draft in one] == [draft.config for draft in two if draft.config.seed == 0]
    assert {draft.config.seed for draft in two} == {0, 1}
    settings = {(draft.config.sampling, draft.config.depth) for draft in one}
    assert settings == {
        (sampling, depth) for sampling in ("single", "bi_random") for depth in ("sink", "skip")
    }


def test_the_smallest_shipped_search_is_healthy() -> None:
    table = LatencyTable.load(ROOT / "tests" / "support" / "micro_latency_table.json")
    *_, draft = load_grid(QUICKSTART.with_name("smoke.yaml")).drafts
    assert draft.config.sampling == "bi_random"
    low_ms, high_ms = reachable_interval_ms(table)
    share = float(draft.target.removesuffix("%")) / 100
    config = draft.config.model_copy(update={"target_latency_ms": low_ms + share * (high_ms - low_ms)})
    records = list(run_search(config, table=table))
    assert [str(check) for check in check_health(config, records) if not check.is_healthy] == []


def test_epochs_of_the_smallest_shipped_search_can_be_timed() -> None:
    table = LatencyTable.load(ROOT / "tests" / "support" / "micro_latency_table.json")
    draft, _ = load_grid(QUICKSTART.with_name("smoke.yaml")).drafts
    config = draft.config.model_copy(update={"target_latency_ms": table.base_latency_ms * 3})
    listing = SearchCell.list_images(config)
    cost = SearchCell.time_epochs(config, table, listing)
    assert min(cost.seconds.values()) > 0
    assert SearchCell.count_weight_steps(config, listing) == 60


@pytest.mark.parametrize(
    "name",
    [
        *("smoke", "quickstart", "ablation_depth", "ablation_sampling", "ablation_width"),
        *("latency_targets", "whole_method", "paper_gpu", "paper_cpu"),
    ],
)
def test_nothing_unhealthy_is_foreseen_of_a_shipped_grid(name: str) -> None:
    grid = load_grid(QUICKSTART.with_name(f"{name}.yaml"))
    for draft in grid.drafts:
        config = draft.config
        # ImageNet-100 where the file names no number.
        num_images = (1 - config.arch_fraction) * (config.max_train_images or 127_720)
        foreseen = foresee_health(config, int(num_images) // config.batch_size)
        assert [str(check) for check in foreseen if not check.is_healthy] == []
