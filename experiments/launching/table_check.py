"""Whether the lookup tables of a launch hold where its searches run, looked up before the first of them."""

from collections.abc import Callable, Sequence

from experiments.cells.cell import Cell
from experiments.cells.search_cell import SearchCell
from experiments.places.place import Place
from nas.latency.spot_check import spot_check


def check_tables(cells: Sequence[Cell], place: Place, report: Callable[[str], None]) -> None:
    """Compares each measured lookup table with a few networks, and warns once if it does not hold.

    Before the first trial, since trials keep the CPUs busy: during them, every network takes longer.

    Args:
        cells: that are about to run; no trial of theirs may be running.
        place: where they run. If trials of other launches are running there, nothing is compared.
    """
    searches = {cell.input_name: cell for cell in cells if isinstance(cell, SearchCell)}
    for cell in searches.values():
        check = place.run(spot_check, cell.load_input(), cell.config.device)
        if check is None:
            continue
        path = cell.config.latency_table
        if check.load.is_busy:
            report(f"{path}: not compared with networks measured now: {check.load}")
        elif check.doubt:
            report(f"warning: {path}: {check.doubt} (remove the file if a launch measured it)")
