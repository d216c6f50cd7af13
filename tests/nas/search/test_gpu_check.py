"""`make gpu-check` runs on a CPU in a tiny form, so that it is known not to break by itself."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from tests.support.limits import PATIENCE_S

ROOT = Path(__file__).parents[3]


def test_every_check_passes_on_a_cpu_and_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its processes are what takes long; see below.
    shorter = {name: check for name, check in gpu_check.CHECKS.items() if "share" not in name}
    monkeypatch.setattr(gpu_check, "CHECKS", shorter)
    assert gpu_check.main(["--device", "cpu", "--tiny", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu-check.json").read_text())
    assert [check["status"] for check in report["checks"]] == ["passed"] * len(shorter)
    numbers = {name: value for check in report["checks"] for name, value in check["numbers"].items()}
    assert numbers["repeats_to_the_bit"] is True
    assert numbers["speedup_float32"] > 0
    table = (tmp_path / "gpu-check.md").read_text()
    assert report["card"] in table
    assert table.count("| passed |") == len(shorter)


def test_a_search_that_shares_a_gpu_counts_what_it_did() -> None:
    results: queue.Queue[tuple[int, int]] = queue.Queue()
    gpu_check._step_for_a_while("cpu", True, True, threading.Barrier(1), results)
    alone, together = results.get()
    assert alone >= 1
    assert together >= 1


def test_a_check_that_breaks_is_told_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(setting: gpu_check.Setting) -> gpu_check.Numbers:
        raise RuntimeError("no kernel\nimage")

    monkeypatch.setattr(gpu_check, "CHECKS", {"first": fail, "second": lambda setting: {"seen": 1.0}})
    assert gpu_check.main(["--device", "cpu", "--tiny", "--out", str(tmp_path)]) == 1
    checks = json.loads((tmp_path / "gpu-check.json").read_text())["checks"]
    assert [check["status"] for check in checks] == ["failed", "passed"]
    assert checks[0]["error"] == "RuntimeError: no kernel image"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_and_without_psutil_it_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    script = (
        "import sys, importlib.util as util; found = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'psutil' else found(name, *more)\n"
        "from benchmarks.gpu_check import main; assert not hasattr(sys.modules['psutil'], 'Error')\n"
        "sys.exit(main([]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("gpu-check: device: 'cuda'; 0 GPUs are visible")
