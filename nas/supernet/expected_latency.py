"""The expected latency of a supernet, differentiable in its architecture parameters.

Shapes: L searchable layers, O candidate operators, S stages, D depths of a stage.

Source: TF-NAS, latency model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.latency.table import LatencyTable
from nas.space.macro_space import Space


class ExpectedLatency:
    """Base + sum over layers of P(layer is kept) * sum over operators of weight * latency.

    Latencies are looked up again only where widths, or the table, have changed. They stay on the device, and
    so do indices: a GPU would wait for whatever came from the host.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._place_2L = torch.tensor([[layer.stage, layer.index + 1] for layer in space.layers]).t()
        self._widths_LO: Sequence[Sequence[int]] = []
        self._table: LatencyTable | None = None
        self._latencies_LO = torch.empty(0)

    def __call__(
        self,
        table: LatencyTable,
        widths_LO: Sequence[Sequence[int]],
        weights_LO: Tensor,
        depth_probabilities_SD: Tensor | None,
    ) -> Tensor:
        """The expected latency in ms.

        Args:
            widths_LO: active mid channels of each candidate; 0 for identity.
            weights_LO: probabilities of the candidates.
            depth_probabilities_SD: of the stages' depths; None where every layer is kept.
        """
        self._look_up(table, widths_LO)
        self._latencies_LO = self._latencies_LO.to(weights_LO)
        layer_ms_L = (weights_LO * self._latencies_LO).sum(-1)
        if depth_probabilities_SD is not None:
            self._place_2L = self._place_2L.to(weights_LO.device)
            at_least_SD = _at_least(depth_probabilities_SD)
            layer_ms_L = at_least_SD[self._place_2L[0], self._place_2L[1]] * layer_ms_L
        return table.base_latency_ms + layer_ms_L.sum()

    def _look_up(self, table: LatencyTable, widths_LO: Sequence[Sequence[int]]) -> None:
        if table is not self._table or widths_LO != self._widths_LO:
            ops = self._space.ops
            self._latencies_LO = torch.tensor(
                [
                    [float(table.curve_ms(layer, op)[width]) for op, width in zip(ops, row, strict=False)]
                    + [0.0] * (len(row) - len(ops))
                    for layer, row in zip(self._space.layers, widths_LO, strict=True)
                ]
            )
            self._table, self._widths_LO = table, widths_LO


def _at_least(probabilities_SD: Tensor) -> Tensor:
    """Probabilities that a stage has a depth or more."""
    if probabilities_SD.device.type != "cpu":
        return sum_from_each(probabilities_SD)
    return probabilities_SD.flip(-1).cumsum(-1).flip(-1)


def sum_from_each(values_SD: Tensor) -> Tensor:
    """The sum of each element and those after it; on a GPU, `cumsum` is not deterministic.

    No matrix product, which a GPU may compute in TF32: too coarse for a latency.
    """
    is_counted_DD = torch.ones_like(values_SD[:1]).expand(values_SD.shape[1], -1).triu()
    return (values_SD[:, None] * is_counted_DD).sum(-1)
