"""Runs by name, by id and by the first digits of an id, and the folder that they are in."""

import sqlite3
from pathlib import Path

import pytest

from experiments.tracking import short_names
from experiments.tracking.named_network import find_networks
from experiments.tracking.named_run import find_run
from experiments.tracking.short_names import find_folder, find_run_id, list_runs
from nas.foundation.errors import UserError
from tests.support.synthetic import Store, grid

BASE = {"target_latency_ms": 1.0, "sampling": "single", "seed": 0}
NAMED = ["sampling", "seed"]
"""The fields that a run is named after."""


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results" / "one", "named")


def name_of(store: Store, run_id: str) -> str:
    return str(store.client.get_run(run_id).info.run_name)


def shortest(run_id: str, *others: str) -> str:
    """The first digits that only this id begins with."""
    return next(
        run_id[:length] for length in range(1, 33) if not any(o.startswith(run_id[:length]) for o in others)
    )


@pytest.mark.parametrize("prefix", ["run:", ""])
def test_a_run_is_found_by_its_name_its_id_and_the_first_digits_of_it(store: Store, prefix: str) -> None:
    first, second = store.add_grid(BASE, grid(sampling=["single", "bi_random"]))
    for text in (first, name_of(store, first), shortest(first, second)):
        (network,) = find_networks([f"{prefix}{text}"], store.out_dir)
        assert network.search is not None
        assert network.search.run_id == first
        # What a training is known by does not depend on how its search was named.
        assert network.reference == f"run:{first}"


def test_several_runs_of_a_name_are_listed(store: Store) -> None:
    ids = [store.add(BASE, NAMED) for _ in range(2)]
    with pytest.raises(UserError) as caught:
        find_run(f"run:{name_of(store, ids[0])}", store.out_dir)
    assert all(run_id[:8] in str(caught.value) for run_id in ids)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_offers_near_ones(store: Store) -> None:
    known = name_of(store, store.add_grid(BASE, grid(sampling=["bi_random"]))[0])
    with pytest.raises(UserError, match=known):
        find_run(f"run:{known[:-1]}", store.out_dir)
    with pytest.raises(UserError, match="no such run"):
        find_run("run:" + "0" * 32, store.out_dir)


def test_launches_and_deleted_runs_are_not_named(store: Store) -> None:
    run_id = store.add(BASE, NAMED)
    name = name_of(store, run_id)
    store.client.delete_run(run_id)
    for text in ("launch", store.parent_id[:6], name):
        with pytest.raises(UserError, match="no such run"):
            find_run_id(f"run:{text}", store.out_dir)


def test_runs_are_the_same_whether_mlflow_lists_them_or_not(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_grid(BASE, grid(seed=[0, 1, 2]))

    def refuse(database: Path) -> None:
        raise sqlite3.OperationalError("no such table: runs")

    directly = list_runs(store.out_dir)
    monkeypatch.setattr(short_names, "list_sqlite_runs", refuse)
    assert sorted(list_runs(store.out_dir)) == sorted(directly)
    assert len(directly) == 3


def test_the_folder_of_a_run_is_found_beside_the_default_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    default = Path("results") / "training"
    run_id = store.add(BASE, NAMED)
    for reference in (f"run:{run_id[:8]}", run_id[:8], f"run:{name_of(store, run_id)}", "experiment:named"):
        assert find_folder([reference], default) == Path("results") / "one"
    for reference in ("efficientnet_b0", "gone.json", "space:nano"):
        assert find_folder([reference], default) == default
    with pytest.raises(UserError, match=r"^experiment:other: no such experiment in results/one; "):
        find_folder(["experiment:other"], default)
    assert find_folder(["mobilenet_v2", run_id[:8]], default) == Path("results") / "one"


def test_a_run_in_no_folder_or_in_several_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = name_of(store, store.add(BASE, NAMED))
    other = Store(tmp_path / "results" / "two", "named")
    other.add(BASE, NAMED)
    with pytest.raises(UserError, match=r"results/one, results/two"):
        find_folder([f"run:{name}"], Path("results") / "training")
    with pytest.raises(UserError, match=name):
        find_folder([f"run:{name}x"], Path("results") / "training")
    # A folder that is no store is no reason to refuse.
    (tmp_path / "results" / "broken").mkdir()
    (tmp_path / "results" / "broken" / "mlflow.db").write_text("no database")
    assert find_folder(["mobilenet_v2"], Path("results") / "training") == Path("results") / "training"


def test_with_a_server_the_folder_is_the_default_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    run_id = store.add(BASE, NAMED)
    assert find_folder([f"run:{run_id}"], Path("results") / "training") == Path("results") / "training"
