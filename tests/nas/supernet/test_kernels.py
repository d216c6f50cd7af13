"""Which kernels a search uses, what it says of it, and that both kinds find the same."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.config import SearchConfig
from nas.foundation.errors import RunWarning, UserError
from nas.search.records import EpochRecord
from nas.search.search import Search, run_search
from nas.supernet import kernels
from nas.supernet.compiled import loop_compiler
from nas.supernet.kernels import Kernels, choose_kernels
from tests.support.limits import PATIENCE_S
from tests.support.tiny import TINY, assert_identical, make_config, make_dense_table

ROOT = Path(__file__).parents[3]
TABLE = make_dense_table(TINY)
CPU = torch.device("cpu")
REASON = "No module named 'numba'; install tfnas[kernels]"


@pytest.fixture
def unavailable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiled kernels that cannot run."""
    monkeypatch.setattr(kernels, "find_failure", lambda: REASON)
    kernels._warn_once.cache_clear()
    yield
    kernels._warn_once.cache_clear()


@pytest.fixture
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def search(folder: Path | None = None, **fields: object) -> list[EpochRecord]:
    return list(run_search(make_config(**fields), table=TABLE, checkpoint_dir=folder))


def kernels_of(records: list[EpochRecord]) -> list[str | None]:
    return [record.kernels for record in records]


# The choice


@pytest.mark.parametrize(
    ("device", "mixed_precision", "expected"),
    [
        ("cpu", False, "compiled"),
        ("cpu", True, "torch"),
        ("cuda", False, "cuda_graphs"),
        ("cuda", True, "cuda_graphs"),
    ],
)
@pytest.mark.usefixtures("no_warnings")
def test_auto_is_compiled_in_float32_on_the_cpu_and_cuda_graphs_on_a_gpu(
    device: str, mixed_precision: bool, expected: str
) -> None:
    assert choose_kernels("auto", torch.device(device), mixed_precision=mixed_precision) == expected


@pytest.mark.parametrize("fields", [{"device": "cuda"}, {"device": "cuda:1"}, {"mixed_precision": True}])
def test_a_config_refuses_compiled_kernels_that_can_never_run(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="kernels"):
        SearchConfig.model_validate(
            {"space": "paper", "target_latency_ms": 2.0, "kernels": "compiled", **fields}
        )


@pytest.mark.parametrize("begun_with", ["torch", "recompute", "cuda_graphs"])
@pytest.mark.usefixtures("no_warnings")
def test_a_search_on_a_gpu_keeps_what_it_began_with(begun_with: Kernels) -> None:
    chosen = choose_kernels("auto", torch.device("cuda"), mixed_precision=False, begun_with=begun_with)
    assert chosen == begun_with


def test_cuda_graphs_are_refused_on_the_cpu() -> None:
    with pytest.raises(UserError, match=r"kernels: 'cuda_graphs'.*cpu; use auto"):
        choose_kernels("cuda_graphs", CPU, mixed_precision=False)
    with pytest.raises(ValueError, match="kernels: CUDA graphs run on a GPU"):
        SearchConfig(space="paper", target_latency_ms=2.0, kernels="cuda_graphs", device="cpu")


def test_too_little_memory_of_a_gpu_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Search(make_config(), TABLE)

    def fail(epoch: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(begun.method, "run_epoch", fail)
    with pytest.raises(UserError, match=r"kernels: .*Tried to allocate 20.00 MiB.*set kernels: torch"):
        begun.run_epoch()


def test_compiled_kernels_on_a_gpu_are_refused() -> None:
    """As with `device: auto`, where the config cannot know it."""
    with pytest.raises(UserError, match=r"kernels.*cuda"):
        choose_kernels("compiled", torch.device("cuda"), mixed_precision=False)


@pytest.mark.usefixtures("unavailable")
def test_auto_falls_back_to_torch_and_says_so_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        searches = [search(num_epochs=2), search(num_epochs=3)]
    (message,) = [str(w.message) for w in caught if issubclass(w.category, RunWarning)]
    assert REASON in message
    assert "\n" not in message
    assert [kernels_of(records) for records in searches] == [["torch"] * 2, ["torch"] * 3]


@pytest.mark.usefixtures("unavailable")
def test_compiled_kernels_that_cannot_run_are_an_error_where_asked_for() -> None:
    with pytest.raises(UserError, match=r"kernels: 'compiled'.*numba"):
        search(kernels="compiled")


@pytest.mark.usefixtures("unavailable", "no_warnings")
def test_torch_asked_for_is_no_fallback() -> None:
    assert kernels_of(search(kernels="torch", num_epochs=2)) == ["torch"] * 2


# Import and compilation


def run_python(script: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


IMPORT_ALL = """
import importlib, pkgutil, sys, warnings, nas
for module in pkgutil.walk_packages(nas.__path__, "nas."):
    if not module.name.startswith("nas.supernet.compiled"):
        importlib.import_module(module.name)
def loaded():
    return [name for name in sys.modules if name.startswith(("numba", "llvmlite", "nas.supernet.compiled."))]
"""

SEARCH = """
from nas.search.search import run_search
from nas.space.macro_space import SPACES
from tests.support.tiny import TINY, make_config, make_dense_table
SPACES.register("tiny", TINY)
def search(**fields):
    config = make_config(num_epochs=1, num_warmup_epochs=0, **fields)
    return [record.kernels for record in run_search(config, table=make_dense_table(TINY))]
"""


def test_compiled_kernels_are_imported_only_where_they_are_chosen() -> None:
    script = IMPORT_ALL + SEARCH + "print(loaded(), search(kernels='torch'), loaded())"
    assert run_python(script) == "[] ['torch'] []\n"


BLOCK_NUMBA = "import sys\nsys.modules['numba'] = None\n"


def test_a_search_without_numba_uses_torch() -> None:
    script = BLOCK_NUMBA + SEARCH + "print(search(mixed_precision=False))"
    assert run_python(script) == "['torch']\n"


def test_any_failure_of_the_compiler_is_a_reason_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("cannot cache function:\nno locator")

    monkeypatch.setattr("nas.supernet.compiled.trial_run.check_compiled_block", fail)
    kernels.find_failure.cache_clear()
    try:
        assert kernels.find_failure() == "RuntimeError: cannot cache function: no locator; set kernels: torch"
    finally:
        kernels.find_failure.cache_clear()


def test_compiled_code_is_kept_in_the_first_place_that_is_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a read-only installation with an unwritable home, that is the temporary folder."""
    monkeypatch.setattr(loop_compiler.numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(loop_compiler.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    places = list(loop_compiler._cache_places())
    assert places[0] == Path(loop_compiler.__file__).parent / "__pycache__"
    assert places[-1].parent == tmp_path / "temporary"
    assert places[-1].stat().st_mode & 0o077 == 0

    writable = loop_compiler._is_writable
    monkeypatch.setattr(
        loop_compiler, "_is_writable", lambda folder: tmp_path in folder.parents and writable(folder)
    )
    assert Path(loop_compiler._find_cache_dir()).parent == places[-1]
    # A folder of that name that others could write into is not used.
    places[-1].chmod(0o777)
    with pytest.raises(RuntimeError, match="NUMBA_CACHE_DIR"):
        loop_compiler._find_cache_dir()


# Resuming


@pytest.mark.parametrize("begun_with", ["torch", "recompute", "compiled"])
@pytest.mark.usefixtures("no_warnings")
def test_a_resumed_search_keeps_its_kernels(begun_with: Kernels, tmp_path: Path) -> None:
    whole = search(kernels=begun_with)
    first = Search(make_config(kernels=begun_with), TABLE)
    first.run_epoch()
    first.save(tmp_path)
    resumed = search(tmp_path)
    assert kernels_of(resumed) == [begun_with] * 4
    assert_identical(resumed, whole)


def begin(folder: Path, begun_with: Kernels) -> None:
    first = Search(make_config(kernels=begun_with), TABLE)
    first.run_epoch()
    first.save(folder)


def test_a_resume_that_lacks_its_kernels_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tmp_path, "compiled")
    monkeypatch.setattr(kernels, "find_failure", lambda: REASON)
    with pytest.warns(RunWarning, match="began with compiled") as caught:
        records = search(tmp_path)
    assert len([w for w in caught if issubclass(w.category, RunWarning)]) == 1
    assert REASON in str(caught[0].message)
    assert kernels_of(records) == ["compiled", *["torch"] * 3]


@pytest.mark.parametrize(("begun_with", "asked_for"), [("torch", "compiled"), ("compiled", "torch")])
def test_kernels_asked_for_replace_those_a_search_began_with(
    begun_with: Kernels, asked_for: Kernels, tmp_path: Path
) -> None:
    begin(tmp_path, begun_with)
    with pytest.warns(RunWarning, match=f"began with {begun_with}.*continues with {asked_for}"):
        records = search(tmp_path, kernels=asked_for)
    assert kernels_of(records) == [begun_with, *[asked_for] * 3]


def test_a_search_that_runs_out_of_memory_can_go_on_recomputing_to_the_same_bits(tmp_path: Path) -> None:
    begin(tmp_path, "torch")
    with pytest.warns(RunWarning, match="continues with recompute, equal to the bit"):
        records = search(tmp_path, kernels="recompute")
    assert kernels_of(records) == ["torch", *["recompute"] * 3]
    assert_identical(records, search(kernels="torch"))


def test_shared_warm_ups_record_the_kernels_of_who_computed_them(tmp_path: Path) -> None:
    records = []
    for wanted in ("torch", "compiled"):
        config = make_config(num_epochs=2, kernels=wanted)
        records.append(list(run_search(config, table=TABLE, warmups_dir=tmp_path)))
    assert records[1][0].is_shared
    assert [kernels_of(each) for each in records] == [["torch", "torch"], ["torch", "compiled"]]


# Whole searches

TOLERANCE = 1e-3
"""Of losses (relative) and of log-probabilities, which move by about 0.1 here."""


@pytest.mark.parametrize("sampling", ["single", "bi_random"])
@pytest.mark.parametrize("depth", ["sink", "skip"])
def test_searches_agree_whatever_the_kernels(depth: str, sampling: str) -> None:
    """With a seed where no ReLU is so near its kink that rounding decides its gradient.

    And with small steps: each large one multiplies a difference by about ten.
    """
    fields = {"elasticity": False, "num_epochs": 3, "weight_lr": 0.01, "arch_lr": 0.1, "seed": 0}
    compiled, plain = (
        search(kernels=name, depth=depth, sampling=sampling, **fields) for name in ("compiled", "torch")
    )
    for one, other in zip(compiled, plain, strict=True):
        for name in ("alpha_ELO", "beta_ESD"):
            np.testing.assert_allclose(one.arrays[name], other.arrays[name], rtol=0, atol=TOLERANCE)
        for name in {"train_loss", "arch_loss", "expected_latency_ms"} & one.metrics.keys():
            assert one.metrics[name] == pytest.approx(other.metrics[name], rel=TOLERANCE), name
    assert not np.array_equal(compiled[-1].arrays["alpha_ELO"], plain[-1].arrays["alpha_ELO"])
