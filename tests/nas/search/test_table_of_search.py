"""The lookup table of a search in a notebook: when it is measured, and when it is doubted."""

import warnings
from pathlib import Path

import pytest
import torch

from nas.foundation.errors import InputWarning, UserError
from nas.latency import quiet
from nas.latency.quiet import LoadMeter, OtherLoad
from nas.latency.table import LatencyTable, Provenance
from nas.latency.timing import device_name
from nas.search import search as search_module
from nas.search.search import run_search
from tests.support.tiny import TINY, assert_identical, make_config, make_dense_table

BUSY, QUIET = OtherLoad(0.9, 2), OtherLoad(0.0, 2)

BASE_MS = 60_000.0
"""No network of the tiny space takes a minute."""


def table_of_this_machine(num_busy_cpus: float = 0.0) -> LatencyTable:
    provenance = Provenance(
        source="measured",
        device_type="cpu",
        device_name=device_name(torch.device("cpu")),
        num_threads=1,
        batch_size=1,
        num_classes=10,
        num_busy_cpus=num_busy_cpus,
        num_cpus=2,
    )
    return make_dense_table(TINY, base_ms=BASE_MS).model_copy(update={"provenance": provenance})


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> list[OtherLoad]:
    """What other processes use, whatever runs beside the tests."""
    read = [QUIET]
    monkeypatch.setattr(LoadMeter, "load", lambda meter: read[0])
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.0)
    return read


def test_a_search_measures_no_table_on_a_busy_machine_unless_it_is_asked_to(load: list[OtherLoad]) -> None:
    load[0] = BUSY
    with pytest.raises(UserError, match=r"even_if_busy=True"):
        next(run_search(make_config(target_latency_ms=1.0)))
    # The range of the table that is then measured is not known here; that there is one, the error says.
    with pytest.raises(UserError, match=r"out of reach: networks of 'tiny' take .* by the lookup table"):
        next(run_search(make_config(target_latency_ms=1e9), even_if_busy=True))


def test_images_are_counted_before_a_table_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "measure_table_of", lambda *_: pytest.fail("measured"))
    with pytest.raises(UserError, match="batch_size: 32"):
        next(run_search(make_config(batch_size=32)))


def test_a_table_that_does_not_hold_is_doubted_and_changes_no_result(
    tmp_path: Path, load: list[OtherLoad]
) -> None:
    table = table_of_this_machine()
    table.save(tmp_path / "table.json")
    config = make_config(latency_table=str(tmp_path / "table.json"), target_latency_ms=BASE_MS + 0.3)
    with warnings.catch_warnings():
        # A launch compares once for all of its searches.
        warnings.simplefilter("error", InputWarning)
        expected = list(run_search(config, table=table))
    with pytest.warns(InputWarning, match="than the table says") as caught:
        records = list(run_search(config))
    assert sum("than the table says" in str(warning.message) for warning in caught) == 1
    assert_identical(records, expected)


def test_a_table_that_was_measured_on_a_busy_machine_is_doubted(
    tmp_path: Path, load: list[OtherLoad]
) -> None:
    load[0] = BUSY
    table_of_this_machine(num_busy_cpus=0.9).save(tmp_path / "table.json")
    config = make_config(latency_table=str(tmp_path / "table.json"), target_latency_ms=BASE_MS + 0.3)
    with pytest.warns(InputWarning) as caught:
        next(run_search(config))
    (warning,) = [str(warning.message) for warning in caught if "table" in str(warning.message)]
    assert "measured while other processes used 0.9 CPUs" in warning
