"""Checks whether a search may use a lookup table: same space, same hardware."""

from typing import NamedTuple, Self

import torch

from nas.foundation.device import resolve_device
from nas.foundation.errors import UserError
from nas.latency.table import LatencyTable
from nas.latency.timing import device_name
from nas.space.macro_space import Space


class Hardware(NamedTuple):
    """The hardware of a search, by the names that tables record.

    Attributes:
        gpu_name: None if the search runs on the CPU.
    """

    cpu_name: str
    gpu_name: str | None = None

    @property
    def device_name(self) -> str:
        """Name of the device that the search itself runs on."""
        return self.gpu_name or self.cpu_name

    @classmethod
    def of(cls, device: str | torch.device) -> Self:
        """The hardware of this machine, for the device of a config."""
        device = resolve_device(device) if isinstance(device, str) else device
        gpu_name = device_name(device) if device.type == "cuda" else None
        return cls(device_name(torch.device("cpu")), gpu_name)


def check_table(table: LatencyTable, space: Space, hardware: Hardware, where: str = "latency table") -> None:
    """Checks that a table is valid for a search.

    A measured table must come from this hardware: from its CPU, or from the search's GPU model. (The
    paper's CPU networks come from a search on a GPU for the latency of the CPU next to it.) Imported and
    synthetic tables stand for other devices on purpose.

    Args:
        hardware: hardware of the search.
        where: what the error names, for instance the path of the table.

    Raises:
        UserError: the table is of another space or device, or lacks an operator or a width.
    """
    if table.space != space.name:
        raise UserError(
            f"{where}: is of space '{table.space}', the search of '{space.name}'; "
            f"measure one: tfnas latency measure --space {space.name} --out table.json"
        )
    table.check_covers(space, where)
    provenance = table.provenance
    if provenance.source != "measured":
        return
    is_of_gpu = provenance.device_type == "cuda"
    if provenance.device_name != (hardware.gpu_name if is_of_gpu else hardware.cpu_name):
        raise UserError(
            f"{where}: was measured on '{provenance.device_name}' ({provenance.device_type}), this is "
            f"'{hardware.device_name}'; measure one here "
            f"(tfnas latency measure --space {space.name} --out table.json) "
            "or, to search for that device on purpose, import it (tfnas latency import)"
        )
