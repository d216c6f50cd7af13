"""From a YAML file to cells: what is combined, what is refused, what makes a cell another one."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.cells.cell import first_of_each_warmup_first
from experiments.cells.search_cell import SearchCell
from experiments.places.place import ThisMachine
from experiments.places.resources import Resources
from experiments.specs.experiment_spec import check_spec, load_spec
from experiments.specs.preparation import Preparation
from experiments.specs.search_grid import draft_cells, make_cells
from nas.config import SearchConfig
from nas.foundation.errors import UserError
from nas.latency.table import reachable_interval_ms
from nas.space.macro_space import get_space
from tests.support.tiny import make_dense_table

BASE = {"space": "micro", "target_latency_ms": "40%", "latency_table": "table.json", "max_train_images": 200}
SMALL = {"experiment": "small", "base": BASE, "grid": {"seed": [0, 1]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("specs")
    make_dense_table(get_space("micro")).save(path / "table.json")
    return path


def write(folder: Path, content: dict[str, Any] | str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def preparation_of(path: Path, out: Path) -> Preparation:
    return Preparation(out, ThisMachine(Resources(), str(path)), str(path), print)


def cells_of(folder: Path, content: dict[str, Any]) -> list[SearchCell]:
    path = write(folder, content)
    return make_cells(draft_cells(load_spec(path), path), preparation_of(path, folder / "out"), str(path))


def with_base(**fields: Any) -> dict[str, Any]:
    return SMALL | {"base": BASE | fields}


def without_target(**fields: Any) -> dict[str, Any]:
    base = {name: value for name, value in BASE.items() if name != "target_latency_ms"}
    return SMALL | {"base": base | fields}


def test_every_combination_of_cells_and_grid_is_one_cell(folder: Path) -> None:
    content = SMALL | {
        "cells": [{"sampling": "single", "depth": "sink"}, {"sampling": "bi", "depth": "skip"}],
        "grid": {"target_latency_ms": ["30%", "60%"], "seed": [0, 1, 2]},
        "base": {key: value for key, value in BASE.items() if key != "target_latency_ms"},
    }
    cells = cells_of(folder, content)
    expected = {
        (s, d, t, n) for s, d in (("single", "sink"), ("bi_random", "skip")) for t in (0, 1) for n in range(3)
    }
    targets = sorted({cell.config.target_latency_ms for cell in cells})
    found = {
        (c.config.sampling, c.config.depth, targets.index(c.config.target_latency_ms), c.config.seed)
        for c in cells
    }
    assert found == expected
    assert len(cells) == len({cell.hash for cell in cells}) == len({cell.name for cell in cells}) == 12
    assert list(cells[0].factors) == ["sampling", "depth", "target_latency_ms", "seed"]


def test_names_tell_the_switches_the_target_and_the_seed(folder: Path) -> None:
    low_ms, high_ms = reachable_interval_ms(make_dense_table(get_space("micro")))
    target_ms = round((low_ms + high_ms) / 2, 1)
    content = SMALL | {"base": BASE | {"target_latency_ms": target_ms}, "grid": {"latency_weight": [0.3]}}
    assert [cell.name for cell in cells_of(folder, content)] == [
        f"bi_random-sink-T{target_ms:g}-latency_weight=0.3-s0"
    ]


def test_names_begin_with_what_differs_in_the_grid_and_stay_apart_when_they_are_cut(folder: Path) -> None:
    base = BASE | {"target_latency_ms": "50%"}
    grid = {"sampling": ["single", "bi_random"], "seed": [0, 1]}
    content = {"experiment": "small", "base": base, "grid": grid}
    names = [cell.name for cell in cells_of(folder, content)]
    assert [name.split("-")[:2] for name in names] == [
        ["single", "s0"],
        ["single", "s1"],
        ["bi_random", "s0"],
        ["bi_random", "s1"],
    ]
    content = content | {"grid": grid | {"depth": ["sink", "skip"]}}
    names = [cell.name for cell in cells_of(folder, content)]
    assert len({name[:16] for name in names}) == 8
    assert names[0].startswith("s0-sink-single-T")


def test_names_tell_the_method_and_only_switches_that_it_has(folder: Path) -> None:
    content = SMALL | {"grid": {"method": ["tf_nas", "random"]}, "base": BASE | {"target_latency_ms": "50%"}}
    one, other = cells_of(folder, content)
    target = f"T{one.config.target_latency_ms:g}"
    assert [one.name, other.name] == [f"bi_random-sink-{target}-s0", f"random-{target}-s0"]


@pytest.mark.parametrize("share", ["0%", "12.5%", "40%", "100 %"])
def test_a_share_is_that_far_along_the_reachable_interval(folder: Path, share: str) -> None:
    low_ms, high_ms = reachable_interval_ms(make_dense_table(get_space("micro")))
    (cell, _) = cells_of(folder, with_base(target_latency_ms=share))
    fraction = float(share.split("%")[0]) / 100
    expected_ms = low_ms + fraction * (high_ms - low_ms)
    assert cell.config.target_latency_ms == pytest.approx(expected_ms, rel=5e-3)
    assert low_ms <= cell.config.target_latency_ms <= high_ms


def test_relative_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (cell, _) = cells_of(folder, SMALL)
    assert cell.config.latency_table == str(folder / "table.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"experiment": "x"}, "grid: missing or empty"),
        (SMALL | {"grid": {}}, "grid: missing or empty"),
        (SMALL | {"grid": {"seed": []}}, "grid.seed: empty"),
        (SMALL | {"grid": {"seed": 1}}, "grid.seed: 1"),
        (SMALL | {"grid": [0]}, "grid: [0]"),
        (SMALL | {"grid": {"seed": [1, 1]}}, "a value is there twice"),
        (SMALL | {"grid": {"sede": [1]}}, "grid.sede: unknown field; did you mean 'seed'?"),
        (SMALL | {"grid": {"seed": [1.5]}}, "grid.seed: 1.5"),
        (SMALL | {"grid": {"seed": [True]}}, "grid.seed: True"),
        (SMALL | {"grid": {"seed": [-1]}}, "grid.seed: -1"),
        (SMALL | {"grid": {"depth": ["deep"]}}, "grid.depth: 'deep'"),
        (SMALL | {"grid": {"target_latency_ms": [1.0]}}, "base.target_latency_ms: also in `grid`"),
        (SMALL | {"grid": {"sampling": ["bi", "bi_random"]}}, "are the same search"),
        (
            with_base(objective="fbnet", elasticity=False, target_latency_ms="50%")
            | {"grid": {"latency_weight": [0.1, 0.2]}},
            "are the same search; remove one",
        ),
        (
            without_target(objective="proxyless_add", latency_weight=0.0, elasticity=False)
            | {"grid": {"target_latency_ms": ["40%", "60%"]}},
            "are the same search, on which target_latency_ms has no effect; remove one",
        ),
        (
            SMALL | {"grid": {"deterministic": [False, True]}},
            "are the same search, on which deterministic has no effect; remove one",
        ),
        (SMALL | {"cells": []}, None),
        (SMALL | {"cells": [{}]}, "cells[0]: empty"),
        (SMALL | {"cells": [{"depth": "sink"}, {"sampling": "bi"}]}, "cells[1]"),
        (SMALL | {"cells": [{"seed": 3}]}, "grid.seed: also in `cells`"),
        (SMALL | {"cells": [{"depth": "sink"}, {"depth": "sink"}]}, "are the same search"),
        (SMALL | {"cells": "bi"}, "cells: 'bi'"),
        (SMALL | {"experiment": "../up"}, "experiment: '../up'"),
        (SMALL | {"experiment": "/etc/attacked"}, "experiment: '/etc/attacked'"),
        (SMALL | {"experiment": "a" * 101}, "experiment: 'aaaa"),
        (SMALL | {"experiment": 1}, "experiment: 1"),
        (SMALL | {"experiment": ""}, "experiment: ''"),
        (SMALL | {"experiment": None}, "experiment: None"),
        ({"base": BASE, "grid": {"seed": [0]}}, "experiment: missing"),
        (SMALL | {"gird": {}}, "gird: unknown field"),
        (SMALL | {"resources": {"cpus": 1}}, "resources.cpus: unknown field"),
        (SMALL | {"resources": {"cpus_per_trial": 0}}, "resources.cpus_per_trial: 0"),
        (SMALL | {"resources": {"gpus_per_trial": float("nan")}}, "resources.gpus_per_trial"),
        (with_base(num_threads=4), "num_threads: 4; a trial has 1 cores; set resources.cpus_per_trial: 4"),
        (with_base(weight_decay="1e-5"), "base.weight_decay: '1e-5'"),
        (with_base(elasticity="true"), "base.elasticity: 'true'"),
        (with_base(sampling=True), "base.sampling: True"),
        (with_base(sampling="duo"), "base.sampling: 'duo'"),
        (with_base(device="tpu"), "base.device: 'tpu'"),
        (with_base(weight_lr=0), "base.weight_lr: 0"),
        (with_base(weight_lr=float("inf")), "base.weight_lr: inf"),
        (with_base(space="huge"), "base.space: 'huge'"),
        (with_base(num_epochs=5, num_warmup_epochs=5), "num_warmup_epochs: 5; must be below num_epochs (5)"),
        (
            with_base(final_temperature=6.0),
            "final_temperature: 6; must be at most initial_temperature (5)",
        ),
        (
            with_base(final_temperature=0.2, temperature_decay=0.9),
            "temperature_decay: has no effect with final_temperature; remove one of the two",
        ),
        (
            with_base(num_epochs=5, num_warmup_epochs=4, final_temperature=0.2),
            "final_temperature: has no effect on a single joint epoch",
        ),
        (with_base(weight_steps_per_arch_step=1000), "weight_steps_per_arch_step: 1000; an epoch has"),
        (with_base(target_latency_ms="fast"), "base.target_latency_ms: 'fast'"),
        (with_base(target_latency_ms="140%"), "base.target_latency_ms: '140%'"),
        (with_base(target_latency_ms="-5%"), "base.target_latency_ms: '-5%'"),
        (with_base(target_latency_ms=1000.0), "out of reach"),
        (with_base(target_latency_ms=0.001), "out of reach"),
        (with_base(target_latency_ms=None), "base.target_latency_ms: None"),
        (SMALL | {"base": {"space": "micro"}}, "target_latency_ms: missing"),
        (with_base(latency_table="missing.json"), "missing.json"),
        (with_base(latency_table="spec.yaml"), "it is not JSON"),
        (with_base(space="small32"), "is of space 'micro'"),
        (with_base(dataset="cifar10"), "data_dir: missing"),
        (with_base(dataset="cifar10", data_dir="nowhere"), "no such folder"),
        (with_base(batch_size=500), "batch_size: 500"),
        (with_base(max_train_images=5), "images"),
        (with_base(objective="fbnet", latency_weight="a lot"), "base.latency_weight: 'a lot'"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_field_and_value(
    folder: Path, content: dict[str, Any], expected: str | None
) -> None:
    if expected is None:
        cells_of(folder, content)
        return
    with pytest.raises(UserError) as caught:
        cells_of(folder, content)
    assert expected in str(caught.value)
    assert str(folder / "spec.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_that_yaml_reads_as_text_comes_with_the_remedy(folder: Path) -> None:
    path = write(
        folder, "experiment: a\nbase: {target_latency_ms: 1, weight_decay: 1e-5}\ngrid: {seed: [0]}\n"
    )
    with pytest.raises(UserError, match=r"write it like 1\.0e-5"):
        draft_cells(load_spec(path), path)


def test_a_measured_table_is_not_measured_before_all_fields_are_checked(folder: Path, tmp_path: Path) -> None:
    content = SMALL | {
        "base": BASE | {"latency_table": "measure"},
        "grid": {"weight_lr": [0.1, -0.1]},
    }
    path = write(folder, content)
    with pytest.raises(UserError, match=r"grid\.weight_lr: -0\.1"):
        make_cells(draft_cells(load_spec(path), path), preparation_of(path, tmp_path), str(path))
    assert list(tmp_path.iterdir()) == []


def test_whether_warm_ups_are_shared_is_no_part_of_a_cells_identity(folder: Path) -> None:
    shared, alone = (cells_of(folder, SMALL | {"share_warmup": share}) for share in (True, False))
    assert [cell.hash for cell in shared] == [cell.hash for cell in alone]


def test_cells_whose_warm_ups_differ_start_before_those_that_wait(folder: Path) -> None:
    content = SMALL | {"grid": {"seed": [0, 1], "sampling": ["single", "bi"], "depth": ["sink"]}}
    in_order = first_of_each_warmup_first(cells_of(folder, content))
    assert [(cell.config.seed, cell.config.sampling) for cell in in_order] == [
        *[(0, "single"), (1, "single")],
        *[(0, "bi_random"), (1, "bi_random")],
    ]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_content_is_read_or_refused_in_a_line_for_each_fault(data: st.DataObject) -> None:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
    fields = st.dictionaries(st.sampled_from([*SearchConfig.model_fields, "oops"]), anything, max_size=4)
    grids = st.dictionaries(
        st.sampled_from([*SearchConfig.model_fields, "oops"]), st.lists(anything, max_size=3), max_size=3
    )
    content = data.draw(
        st.fixed_dictionaries(
            {"experiment": st.just("any") | anything},
            optional={
                "base": fields | anything,
                "grid": grids | anything,
                "cells": st.lists(fields, max_size=2),
            },
        )
    )
    path = Path("any.yaml")
    complaints: list[str] = []
    try:
        draft_cells(check_spec(content, path), path)
    except UserError as error:
        complaints = str(error).splitlines()
        assert complaints
    assert all(line.startswith(("any.yaml: ", "and ")) for line in complaints)


def test_all_that_is_wrong_in_a_file_is_said_at_once(folder: Path) -> None:
    content = {
        "experiment": "not/a name",
        "oops": 1,
        "base": {"space": "huge", "weight_lrr": 0.1, "batch_size": 0},
        "grid": {"seed": [0, -1], "sampling": ["single", "double"], "target_latency_ms": ["40%", 3.0]},
    }
    with pytest.raises(UserError) as caught:
        cells_of(folder, content)
    where = f"{folder / 'spec.yaml'}: "
    begins = (
        "experiment",
        "oops",
        "base.space",
        "base.weight_lrr",
        "base.batch_size",
        "grid.seed",
        "grid.sampling",
    )
    lines = str(caught.value).splitlines()
    assert sorted(line.removeprefix(where).split(":")[0] for line in lines) == sorted(begins)


def test_what_only_whole_cells_show_is_said_of_all_cells_once(folder: Path) -> None:
    grid = {"num_warmup_epochs": [0, 90, 95], "seed": [0, 1]}
    with pytest.raises(UserError) as caught:
        cells_of(folder, SMALL | {"grid": grid, "base": BASE | {"num_epochs": 60}})
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert "num_warmup_epochs: 90" in lines[0]
    assert "num_warmup_epochs: 95" in lines[1]


def test_of_many_faults_the_first_twenty_are_said(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        cells_of(folder, SMALL | {"grid": {"seed": [-1 - number for number in range(30)]}})
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 10 more"
