"""What is done around CUDA graphs is right; a stand-in on the CPU takes the place of the graphs themselves.

`make gpu-check` compares the real ones with the CPU.
"""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.config import SearchConfig
from nas.foundation.errors import UserError
from nas.space.macro_space import get_space
from nas.supernet import graphed_block
from nas.supernet.graphed_block import GraphedBlock
from nas.supernet.grouped_block import grouped_block
from nas.supernet.kernels import block_of
from nas.supernet.mixed_block import BlockFunction
from nas.supernet.steps import SearchSteps
from nas.supernet.supernet import Depth, Supernet
from tests.support.tiny import make_dense_table


class Replays:
    """In place of graphs: a replay computes again, and puts the results where the recording has put them.

    As if recordings of a layer shared all their memory, each replay spoils what the others have left.
    """

    def __init__(self) -> None:
        self.count = 0
        self._results: weakref.WeakKeyDictionary[object, dict[int, list[Tensor]]] = (
            weakref.WeakKeyDictionary()
        )

    def record(self, memory: object, compute: Callable[[], None]) -> Callable[[], None]:
        recording: graphed_block._Recording = compute.__self__  # type: ignore[attr-defined]
        names = (
            ["_out_BPHX"]
            if compute.__name__ == "_run_forward"
            else ["_features_gradient_BIHX", "_other_gradients"]
        )
        is_mixed = torch.is_autocast_enabled("cpu")
        compute()
        static = {name: getattr(recording, name) for name in names}
        of_layer = self._results.setdefault(memory, {})
        of_layer.setdefault(id(recording), []).extend(
            each.detach() for each in static.values() if each is not None
        )

        def replay() -> None:
            self.count += 1
            # As it was recorded, wherever it is replayed.
            with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                compute()
            for each in (
                each for key, results in of_layer.items() if key != id(recording) for each in results
            ):
                each.fill_(torch.nan)
            for name, place in static.items():
                if place is not None:
                    place.detach().copy_(getattr(recording, name).detach())
                if compute.__name__ != "_run_forward":
                    setattr(recording, name, place)

        return replay


@pytest.fixture(autouse=True)
def replays(monkeypatch: pytest.MonkeyPatch) -> Replays:
    replays = Replays()
    monkeypatch.setattr(graphed_block._LayerMemory, "record", lambda *args: replays.record(*args))
    return replays


class Forgetful(GraphedBlock):
    """For which each call is the first."""

    def __call__(self, *arguments: Any) -> Tensor:
        self._recordings.clear()
        return super().__call__(*arguments)


def make_steps(block: Callable[[], Any], depth: Depth, *, mixed_precision: bool = False) -> SearchSteps:
    space = get_space("nano")
    config = SearchConfig(
        space=space.name, target_latency_ms=10.0, depth=depth, mixed_precision=mixed_precision
    )
    supernet = Supernet(space, 10, config.depth)
    supernet.set_blocks(block)
    return SearchSteps(supernet, config, make_dense_table(space))


def take_steps(steps: SearchSteps) -> list[Tensor]:
    """Steps as in a search: two paths that meet in some layers, mixtures, and other widths halfway."""
    space, supernet = steps.supernet.space, steps.supernet
    draws, noise = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    losses = []
    for step in range(8):
        images_BCHW = torch.randn(4, 3, space.resolution, space.resolution, generator=draws)
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        labels_B = torch.randint(10, (4,), generator=draws)
        paths = [[(layer * shift) % 2 for layer in range(len(space.layers))] for shift in (1, step)]
        losses += [result.loss for result in steps.weight_step(images_BCHW, labels_B, paths)]
        losses.append(steps.arch_step(images_BCHW, labels_B, 5.0, noise))
        if step == 4:
            candidate = supernet.candidate(0, 0)
            candidate.set_width(candidate.width - 1, steps.weight_optimizer)
    return [*losses, *(each.detach() for each in supernet.parameters())]


@pytest.mark.parametrize("mixed_precision", [False, True])
@pytest.mark.parametrize("depth", ["sink", "skip"])
def test_steps_on_recorded_layers_give_the_bits_of_steps_that_run(
    depth: Depth, mixed_precision: bool, replays: Replays
) -> None:
    plain, run, recorded = (
        take_steps(make_steps(block, depth, mixed_precision=mixed_precision))
        for block in (
            lambda: grouped_block,
            lambda: Forgetful(grouped_block),
            lambda: GraphedBlock(grouped_block),
        )
    )
    assert replays.count > 100
    for each, one, other in zip(plain, run, recorded, strict=True):
        assert torch.equal(one, other)
        # A layer by itself adds up the gradients of its features in another order, which grows in bfloat16.
        assert mixed_precision or torch.allclose(each, one, rtol=1e-4, atol=1e-5)


class Layer:
    """One layer of a supernet, and features for it."""

    def __init__(self, block: BlockFunction) -> None:
        self.supernet = Supernet(get_space("nano"), 10)
        self.supernet.set_blocks(lambda: block)
        shape = (2, self.supernet.space.stem_channels, 8, 8)
        self.features_BCHW = torch.randn(shape).contiguous(memory_format=torch.channels_last)

    def run(self, op: int = 0) -> Tensor:
        out_BCHW: Tensor = self.supernet.blocks[0](self.features_BCHW, op)
        return out_BCHW


def test_a_choice_runs_once_and_is_recorded_once_for_its_widths(replays: Replays) -> None:
    num_runs = 0

    def counted(*arguments: Any) -> Tensor:
        nonlocal num_runs
        num_runs += 1
        return grouped_block(*arguments)

    layer = Layer(GraphedBlock(counted))  # type: ignore[arg-type]
    layer.run()
    assert (num_runs, replays.count) == (1, 0)
    layer.run().sum().backward()  # type: ignore[no-untyped-call]
    # To record it, and in the place of the graph's replay.
    assert (num_runs, replays.count) == (3, 2)
    layer.run()
    assert (num_runs, replays.count) == (4, 3)
    layer.supernet.candidate(0, 0).width -= 1
    layer.run()
    assert (num_runs, replays.count) == (5, 3)


def test_without_gradients_the_block_runs(replays: Replays) -> None:
    layer = Layer(GraphedBlock(grouped_block))
    with torch.no_grad():
        outputs = [layer.run() for _ in range(3)]
    assert replays.count == 0
    assert torch.equal(outputs[0], outputs[2])


def test_a_copied_layer_records_anew(replays: Replays) -> None:
    layer = Layer(GraphedBlock(grouped_block))
    expected = [layer.run(), layer.run()][0]
    count = replays.count
    copied = copy.deepcopy(layer)
    assert torch.equal(copied.run(), expected)
    assert replays.count == count


@pytest.mark.parametrize("other", [0, 1])
def test_a_layer_that_ran_again_refuses_the_former_backward_pass(other: int) -> None:
    layer = Layer(GraphedBlock(grouped_block))
    for op in (0, 1, 0, 1):
        layer.run(op)
    first = layer.run(0)
    layer.run(other)
    with pytest.raises(RuntimeError, match="ran again before its backward pass"):
        first.sum().backward()  # type: ignore[no-untyped-call]


def test_a_gpu_that_cannot_record_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    class Graph:
        replay = None

        def capture_begin(self, **options: object) -> None:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    layer = Layer(block_of("cuda_graphs", torch.device("cuda")))
    layer.run()
    with pytest.raises(UserError, match=r"^kernels: .*permitted when stream.*; set kernels: torch$"):
        layer.run()
