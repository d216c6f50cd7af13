"""What trials reserve: cores, GPUs or parts of them, and nodes of a kind."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import yaml

from experiments.places.place import ThisMachine, find_ray_folder, num_cores
from experiments.places.resources import Resources, num_bundles
from experiments.specs.experiment_spec import load_spec
from experiments.specs.search_grid import Draft, draft_cells
from nas.foundation.errors import UserError


@pytest.mark.parametrize(
    ("per_trial", "has", "expected"),
    [
        ({"CPU": 1.0}, {"CPU": 4.0}, 4),
        ({"CPU": 3.0}, {"CPU": 4.0}, 1),
        ({"CPU": 1.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}, 2),
        ({"CPU": 1.0, "GPU": 0.5}, {"CPU": 8.0, "GPU": 2.0}, 4),
        # A trial does not get 0.2 of each of two GPUs.
        ({"CPU": 1.0, "GPU": 0.4}, {"CPU": 8.0, "GPU": 2.0}, 4),
        ({"CPU": 1.0, "GPU": 0.1}, {"CPU": 3.0, "GPU": 1.0}, 3),
        ({"CPU": 1.0, "GPU": 1.0}, {"CPU": 8.0}, 0),
        ({"CPU": 1.0, "accelerator_type:A100": 0.001}, {"CPU": 8.0}, 0),
        ({"CPU": 1.0, "accelerator_type:A100": 0.001}, {"CPU": 8.0, "accelerator_type:A100": 1.0}, 8),
    ],
)
def test_so_many_trials_fit_on_a_node(
    per_trial: dict[str, float], has: dict[str, float], expected: int
) -> None:
    assert num_bundles(per_trial, has) == expected


def test_a_kind_of_node_matters_on_a_cluster_only() -> None:
    resources = Resources(cpus_per_trial=2, gpus_per_trial=0.25, node_resource="accelerator_type:T4")
    shared = {"CPU": 2.0, "GPU": 0.25}
    assert resources.bundle(on_cluster=False) == shared
    assert resources.bundle(on_cluster=True) == shared | {"accelerator_type:T4": 0.001}


def test_a_machine_that_is_too_small_is_refused_in_one_line() -> None:
    assert ThisMachine(Resources(), "x.yaml").num_slots() == num_cores()
    num = num_cores() + 1
    with pytest.raises(UserError, match=f"x.yaml: resources.cpus_per_trial: {num}; this machine has"):
        ThisMachine(Resources(cpus_per_trial=num), "x.yaml")
    num_gpus = torch.cuda.device_count()
    with pytest.raises(
        UserError, match=rf"gpus_per_trial: {num_gpus + 1}.0; this machine has {num_gpus} GPUs"
    ):
        ThisMachine(Resources(gpus_per_trial=num_gpus + 1), "x.yaml")


def test_ray_uses_the_temporary_folder_unless_the_paths_of_its_sockets_were_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert find_ray_folder() == "/tmp"
    with TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("TMPDIR", short)
        assert find_ray_folder() == short
        long = Path(short) / "job_1355700" / "node_local_0123456789_scratch" / "tmp"
        long.mkdir(parents=True)
        monkeypatch.setenv("TMPDIR", str(long))
        assert find_ray_folder() == "/tmp"
        monkeypatch.setenv("RAY_TMPDIR", short)
        assert find_ray_folder() == short
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    assert find_ray_folder() == "/tmp"
    monkeypatch.setattr("nas.foundation.socket_folder._SHORT_FOLDERS", ())
    with pytest.raises(UserError, match=r"TMPDIR: /nowhere: .*set RAY_TMPDIR"):
        ThisMachine(Resources(), "x.yaml")


def drafts_of(folder: Path, device: str, gpus_per_trial: float) -> list[Draft]:
    content = {
        "experiment": "devices",
        "base": {"space": "micro", "target_latency_ms": 1.0, "device": device},
        "grid": {"seed": [0, 1]},
        "resources": {"gpus_per_trial": gpus_per_trial},
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(content))
    return draft_cells(load_spec(path), path)


def test_auto_is_cuda_where_trials_reserve_a_part_of_a_gpu(tmp_path: Path) -> None:
    assert {draft.config.device for draft in drafts_of(tmp_path, "auto", 0.0)} == {"cpu"}
    assert {draft.config.device for draft in drafts_of(tmp_path, "auto", 0.5)} == {"cuda"}
    assert {draft.config.device for draft in drafts_of(tmp_path, "cuda", 0.5)} == {"cuda"}
    assert {draft.config.device for draft in drafts_of(tmp_path, "cpu", 0.5)} == {"cpu"}


def test_a_gpu_that_is_not_reserved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"base.device: cuda; trials reserve no GPU; set resources.gpus_per"):
        drafts_of(tmp_path, "cuda", 0.0)
    with pytest.raises(
        UserError, match=r"base.device: cuda:1; a trial sees only the GPUs that it reserves.*write cuda"
    ):
        drafts_of(tmp_path, "cuda:1", 1.0)
