"""Whatever is written into a config, a YAML file or a JSON record: it is read, or refused in one line.

`pytest tests/hostile --hypothesis-profile=explore` tries more, and other, examples than the suite does.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from experiments.specs.experiment_spec import check_spec
from experiments.specs.grid_file import load_grid
from experiments.specs.search_grid import draft_cells
from experiments.specs.yaml_file import parse_yaml, read_yaml_file
from nas.config import ConfigRecord, SearchConfig, TrainConfig
from nas.data.augmentation import Augmentation
from nas.data.datasets import SOURCE_FIELDS
from nas.foundation.errors import UserError
from nas.foundation.escaping import escape_unprintable
from nas.latency.entry import LatencyEntry, space_keys
from nas.latency.table import LatencyTable, Provenance
from nas.search.methods import METHODS
from nas.search.search_identity import search_identity
from nas.space.architecture import Architecture
from nas.space.macro_space import SPACES, get_space
from nas.space.published_files import load_published_architecture
from nas.supernet.objectives import OBJECTIVES
from nas.supernet.sampling import SAMPLINGS
from nas.supernet.supernet import Depth
from tests.support.published import make_config
from tests.support.tiny import full_depth_architecture

TRAININGS = b"""experiment: a
architectures: [tf-nas-a, mobilenet_v2]
base: {num_epochs: 20, batch_size: 64, lr: 0.05, ema_decay: 0.9, mixed_precision: true}
grid: {seed: [0, 1]}
"""
SHIPPED = [
    TRAININGS,
    *(path.read_bytes() for path in sorted((Path(__file__).parents[2] / "tune_configs").glob("*.yaml"))),
]


def _nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)


# What a YAML file can hold.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**63 - 1, -(2**63), 10**30, 10**4000]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["1e-5", "on", "~", "", "measure", "cpu", "50%", "a\nb", "a\0b", "\ud800", "a" * 5000]),
    st.dates(),
    st.binary(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    _nested,
    max_leaves=5,
)


def good_values(positive_floats: st.SearchStrategy[float]) -> dict[str, st.SearchStrategy[Any]]:
    """Values of the fields of both configs that are valid by themselves."""
    fractions = st.floats(0, 1, exclude_max=True)
    inner = st.floats(0, 1, exclude_min=True, exclude_max=True)
    counts, natural = st.integers(1, 2**31 - 1), st.integers(0, 2**31 - 1)
    texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
    not_negative = positive_floats | st.just(0.0)
    return {
        "max_train_images": st.none() | counts,
        "augmentation": st.sampled_from(get_args(Augmentation)),
        "method": st.sampled_from(list(METHODS)),
        "kernels": st.sampled_from(["auto", "torch", "recompute", "cuda_graphs", "compiled"]),
        "space": st.sampled_from(list(SPACES)),
        "target_latency_ms": positive_floats,
        "latency_table": texts,
        "latency_batch_size": st.none() | st.integers(1, 1024),
        "sampling": st.sampled_from([*SAMPLINGS, "bi"]),
        "depth": st.sampled_from(get_args(Depth)),
        "elasticity": st.booleans(),
        "num_evaluations": st.integers(2, 100).map(lambda number: 10 * number),
        "evaluation_sample": st.sampled_from(["mutual_information", "random"]),
        "derivation": st.sampled_from(["argmax", "in_reach"]),
        "refine_widths": st.booleans(),
        "objective": st.sampled_from(list(OBJECTIVES)),
        "latency_weight": not_negative,
        "objective_scale": positive_floats,
        "objective_exponent": st.none() | positive_floats,
        "latency_multiplier_lr": positive_floats,
        "seed": st.integers(0, 2**32 - 1),
        "num_epochs": counts,
        "num_warmup_epochs": natural,
        "batch_size": counts,
        "arch_fraction": inner,
        "weight_steps_per_arch_step": counts,
        "weight_lr": positive_floats,
        "weight_momentum": fractions,
        "weight_decay": not_negative,
        "arch_lr": positive_floats,
        "arch_lr_schedule": st.sampled_from(["constant", "cosine"]),
        "arch_beta1": fractions,
        "arch_beta2": fractions,
        "arch_weight_decay": not_negative,
        "grad_clip_norm": positive_floats,
        "initial_temperature": positive_floats,
        "final_temperature": st.none() | positive_floats,
        "temperature_decay": st.floats(0, 1, exclude_min=True),
        "reset_optimizers_each_epoch": st.booleans(),
        "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:11"]),
        "num_threads": st.integers(1, 1024),
        "architecture": texts,
        "resolution": st.none() | st.integers(1, 8192),
        "lr_schedule": st.sampled_from(["per_epoch", "per_step"]),
        "val_fraction": fractions,
        "lr": positive_floats,
        "momentum": fractions,
        "label_smoothing": fractions,
        "dropout": fractions,
        "drop_connect": fractions,
        "ema_decay": st.none() | fractions,
        "mixed_precision": st.booleans(),
        "deterministic": st.booleans(),
    }


GOOD = good_values(st.floats(0, exclude_min=True, allow_infinity=False))
# Those depend on each other; they are among what is drawn below.
DATA_FIELDS = {"dataset", *SOURCE_FIELDS}


def good_fields(record: type[ConfigRecord]) -> st.SearchStrategy[dict[str, Any]]:
    known = {name: GOOD[name] for name in record.model_fields if name not in DATA_FIELDS}
    required = {name for name, field in record.model_fields.items() if field.is_required()}
    data = st.one_of(
        st.just({}),
        st.just({"dataset": "cifar10", "data_dir": "images", "download": True}),
        st.just({"dataset": "image_list", "data_dir": "/a", "train_list": "b", "test_list": "c"}),
        st.just({"dataset": "image_folder", "data_dir": "images", "skip_broken_images": True}),
        st.just({"dataset": "image_folder", "data_dir": "images", "num_data_workers": 2}),
    )
    fields = st.fixed_dictionaries(
        {name: known[name] for name in required},
        optional={name: known[name] for name in known.keys() - required},
    )
    return st.tuples(fields, data).map(lambda parts: parts[0] | parts[1])


def wild_fields(record: type[ConfigRecord]) -> st.SearchStrategy[dict[str, Any]]:
    """Good fields, some replaced by anything, some added, some taken away."""
    names = st.sampled_from(list(record.model_fields)) | st.text(max_size=10)
    changes = st.dictionaries(names, VALUES, max_size=3)
    lost = st.sets(st.sampled_from(list(record.model_fields)), max_size=2)
    return st.tuples(good_fields(record) | st.just({}), changes, lost).map(
        lambda parts: {name: value for name, value in (parts[0] | parts[1]).items() if name not in parts[2]}
    )


def check_refusal(error: UserError, *beginnings: str) -> None:
    lines = str(error).splitlines()
    assert lines
    for line in lines:
        assert line.isprintable()
        assert len(line) <= 1100
        assert line.startswith((*beginnings, "and "))


@pytest.mark.parametrize("record", [SearchConfig, TrainConfig])
@given(data=st.data())
def test_any_fields_make_a_config_or_are_refused_by_name(
    record: type[ConfigRecord], data: st.DataObject
) -> None:
    fields = data.draw(wild_fields(record))
    try:
        made = record.parse(fields, "spec.yaml")
    except UserError as error:
        names = {*record.model_fields, *fields}
        check_refusal(error, *(f"spec.yaml: {escape_unprintable(name)}" for name in names))
    else:
        assert made.model_fields_set <= fields.keys()


@given(
    base=wild_fields(SearchConfig),
    grid=st.dictionaries(
        st.sampled_from(list(SearchConfig.model_fields)) | st.text(max_size=5),
        st.lists(VALUES, max_size=3) | VALUES,
        max_size=2,
    ),
    others=st.dictionaries(
        st.sampled_from(["cells", "grid", "resources", "base", "experiment", "architectures"])
        | st.text(max_size=5),
        VALUES,
        max_size=2,
    ),
)
def test_any_sections_make_a_grid_or_are_refused_in_one_line(
    base: dict[str, Any], grid: dict[str, Any], others: dict[str, Any]
) -> None:
    content = {"experiment": "a", "base": base, "grid": {"seed": [0, 1]} | grid} | others
    path = Path("spec.yaml")
    try:
        draft_cells(check_spec(content, path), path)
    except UserError as error:
        check_refusal(error, "spec.yaml: ")


@pytest.mark.parametrize("record", [SearchConfig, TrainConfig])
@given(data=st.data())
def test_a_config_survives_its_yaml_file_with_its_identity(
    record: type[ConfigRecord], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fields = data.draw(good_fields(record))
    try:
        made = record.parse(fields, "spec.yaml")
    except UserError as error:
        # Good fields, but two of them contradict each other.
        contradictory = (
            "num_warmup_epochs",
            "refine_widths",
            "kernels",
            "final_temperature",
            "temperature_decay",
        )
        check_refusal(error, *(f"spec.yaml: {name}" for name in contradictory))
        assume(False)
    path = tmp_path_factory.getbasetemp() / f"{record.__name__}.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json"), sort_keys=False))
    again = record.parse(parse_yaml(read_yaml_file(path), path), "spec.yaml")
    assert again == made
    if isinstance(made, SearchConfig):
        assert search_identity(again, "table", "data") == search_identity(made, "table", "data")


READ_BY = {
    "tfnas": {"latency_weight"},
    "fbnet": {"objective_scale", "objective_exponent"},
    "proxyless_add": {"latency_weight"},
    "proxyless_mul": {"objective_scale", "objective_exponent"},
    "lagrangian": {"latency_multiplier_lr"},
}


@given(fields=good_fields(SearchConfig), others=good_fields(SearchConfig))
def test_what_has_no_effect_on_the_result_is_not_part_of_the_identity(
    fields: dict[str, Any], others: dict[str, Any]
) -> None:
    without_effect = {"latency_table", "latency_batch_size", "device", "kernels"}
    without_effect |= set().union(*READ_BY.values())
    without_effect -= READ_BY[fields.get("objective", "tfnas")]
    changed = {name: value for name, value in others.items() if name in without_effect}
    try:
        one, other = SearchConfig.parse(fields, "one"), SearchConfig.parse(fields | changed, "other")
    except UserError:
        assume(False)
    assert search_identity(one, "table", "data") == search_identity(other, "table", "data")


@st.composite
def damaged(draw: st.DrawFn, contents: list[bytes]) -> bytes:
    """One of the contents, with bytes changed, cut out, put in or repeated."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(start + draw(st.integers(0, 20)), len(content))
        twice = bytes(content[start:stop]) * 2
        content[start:stop] = draw(st.binary(max_size=4) | st.sampled_from([*TOKENS, twice]))
    return bytes(content)


TOKENS = [
    *(b"\n", b": ", b"- ", b"[", b"]", b"{", b"}", b"'", b'"', b"#", b"!!", b"&a ", b"*a", b"<<: ", b"? "),
    *(b"%", b"|\n", b"null", b"true", b".nan", b"-.inf", b"1e400", b"9" * 30, b"1:30", b"1e5", b"2026-02-30"),
    *(b"\xef\xbb\xbf", b"\0", b"\\ud800"),
]


def loads_or_is_refused(load: Callable[[Path], Any], content: bytes, path: Path) -> None:
    path.write_bytes(content)
    try:
        load(path)
    except UserError as error:
        check_refusal(error, str(path))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "file"


@given(content=st.one_of(damaged(SHIPPED), st.text().map(lambda text: text.encode()), st.binary()))
@example(content=b"a: &a [*a]")
@example(content=b"a: 0:1.0e5")
def test_a_damaged_experiment_file_is_read_or_refused_in_one_line(content: bytes, file: Path) -> None:
    loads_or_is_refused(load_grid, content, file)


ARCHITECTURE = json.dumps(full_depth_architecture(get_space("micro")).model_dump(mode="json"))
CONFIG = json.dumps(make_config(full_depth_architecture(get_space("micro")), get_space("micro")))


def sparse_table() -> str:
    """Two widths a key."""
    entries = tuple(
        LatencyEntry(key=key, widths=(low, high), latency_ms=(0.1, 0.2))
        for key, (low, high) in space_keys(get_space("micro")).items()
    )
    provenance = Provenance(source="measured", device_type="cpu", device_name="a")
    table = LatencyTable(space="micro", base_ms=1.0, provenance=provenance, entries=entries)
    return table.model_dump_json(exclude_none=True)


TABLE = sparse_table()


def places(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON content."""
    inner: Mapping[Any, Any] = {}
    if isinstance(content, dict):
        inner = content
    elif isinstance(content, list):
        inner = dict(enumerate(content))
    return [place, *(found for key, value in inner.items() for found in places(value, (*place, key)))]


@st.composite
def replaced(draw: st.DrawFn, text: str) -> bytes:
    """A sound JSON text in which some values are others."""
    content = {"root": json.loads(text)}
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(content)[1:]))
        parent: Any = content
        for key in path:
            parent = parent[key]
        parent[last] = draw(JSON_VALUES)
    return json.dumps(content["root"]).encode()


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([-1, 0, 1, 10**12, 10**400, -1e308, 1e308]),
        st.floats(),
        st.text(max_size=10),
    ),
    _nested,
    max_leaves=4,
)


@given(content=damaged([ARCHITECTURE.encode()]) | replaced(ARCHITECTURE))
def test_a_damaged_architecture_is_read_or_refused_in_one_line(content: bytes, file: Path) -> None:
    loads_or_is_refused(Architecture.load, content, file)


@given(content=damaged([CONFIG.encode()]) | replaced(CONFIG))
def test_a_damaged_published_architecture_is_read_or_refused_in_one_line(content: bytes, file: Path) -> None:
    loads_or_is_refused(load_published_architecture, content, file)


@given(content=damaged([TABLE.encode()]) | replaced(TABLE))
def test_a_damaged_table_is_read_or_refused_in_one_line(content: bytes, file: Path) -> None:
    def load(path: Path) -> None:
        table = LatencyTable.load(path)
        architecture = full_depth_architecture(get_space(table.space))
        assert math.isfinite(table.latency_ms(architecture))

    loads_or_is_refused(load, content, file)
