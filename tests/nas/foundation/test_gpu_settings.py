"""What is set for a GPU; torch keeps these settings on machines without one, too."""

import os
from collections.abc import Iterator

import pytest
import torch

from nas.foundation.device import check_repeatable, float32_precision, gpu_settings, resolve_device
from nas.foundation.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NAME = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(NAME, "")
    monkeypatch.delenv(NAME)
    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = convolutions.fp32_precision, products.fp32_precision
    yield
    convolutions.fp32_precision, products.fp32_precision = before


@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_products_are_as_exact_as_convolutions_on_a_gpu_and_as_before_afterwards(precision: str) -> None:
    products = torch.backends.cuda.matmul
    torch.backends.cudnn.conv.fp32_precision = precision
    before = products.fp32_precision
    with gpu_settings(GPU):
        assert products.fp32_precision == precision
        assert float32_precision(GPU) == f"float32 (convolutions {precision}, products {precision})"
    assert products.fp32_precision == before
    with gpu_settings(CPU):
        assert products.fp32_precision == before
    assert float32_precision(CPU) == "float32"


def test_convolutions_are_tuned_where_one_asks_for_it_and_results_need_not_repeat() -> None:
    cudnn = torch.backends.cudnn
    with gpu_settings(GPU, tunes_convolutions=True):
        assert cudnn.benchmark
    assert not cudnn.benchmark
    with cudnn.flags(deterministic=True), gpu_settings(GPU, tunes_convolutions=True):
        assert not cudnn.benchmark


def test_a_process_that_finds_a_gpu_can_repeat_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are reused, so a search that need not repeat may come before one that must."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_repeatable(resolve_device("cuda"))
    assert os.environ[NAME] == ":4096:8"


@pytest.mark.parametrize("value", [None, ":0:0"])
def test_a_process_that_used_the_gpu_before_is_refused_what_it_cannot_repeat(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    if value is not None:
        monkeypatch.setenv(NAME, value)
    with pytest.raises(UserError, match=rf"^deterministic: {NAME} is '{value or ''}'; set it to :4096:8"):
        check_repeatable(resolve_device("cuda"))
    check_repeatable(CPU)
