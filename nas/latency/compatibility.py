"""Whether a lookup table is one to search with: of this space and of this machine."""

import torch

from nas.errors import UserError
from nas.latency.table import LatencyTable
from nas.latency.timing import device_name
from nas.space import Space


def check_table(
    table: LatencyTable, space: Space, device: str | torch.device, where: str = "latency table"
) -> None:
    """Checks that a table holds for a search.

    A measured table must be of this machine: of its CPU, or of the search's GPU. (A search on
    a GPU for the latency of the CPU beside it is what the paper's CPU networks are.) Imported
    and synthetic tables stand for other devices on purpose.

    Args:
        device: what the search runs on.
        where: what to name in the error, the table's path for instance.

    Raises:
        UserError: the table is of another space or device, or lacks an operator or a width.
    """
    if table.space != space.name:
        raise UserError(
            f"{where}: is of space '{table.space}', the search of '{space.name}'; "
            f"measure one: tfnas latency measure --space {space.name}"
        )
    table.check_covers(space, where)
    provenance, device = table.provenance, torch.device(device)
    if provenance.source != "measured":
        return
    is_of_gpu = provenance.device_type == "cuda"
    here = device_name(device if is_of_gpu and device.type == "cuda" else torch.device("cpu"))
    if provenance.device_name != here or (is_of_gpu and device.type != "cuda"):
        raise UserError(
            f"{where}: was measured on '{provenance.device_name}' ({provenance.device_type}), "
            f"this is '{here}'; measure one here (tfnas latency measure --space {space.name}) "
            "or, to search for that device on purpose, import it (tfnas latency import)"
        )
