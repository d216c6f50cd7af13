"""A search that is repeated from scratch, to compare it with what is recorded of it."""

from pathlib import Path

from experiments.cells.cell_folder import CellFolder
from experiments.cells.search_cell import SearchCell
from nas.config import SearchConfig
from nas.data.image_lists import Listing
from nas.foundation.errors import UserError
from nas.latency.table import LatencyTable


def local_config(config: SearchConfig) -> SearchConfig:
    """The search as this machine may repeat it: its config comes from somebody else.

    It downloads nothing, and this machine chooses how many processes decode images; neither has an effect
    on results.
    """
    return config.model_copy(update={"download": False, "num_data_workers": None})


def find_images(config: SearchConfig, fingerprint: str, name: str) -> Listing:
    """Returns the image files of a search, after a look at whether they are the same as then.

    Args:
        fingerprint: of the images then.
        name: of the search, for the error.

    Raises:
        UserError: the images are missing, or are others.
    """
    try:
        listing = SearchCell.list_images(config)
        found = SearchCell.look_at_images(config, SearchCell.resolution(config), listing)
    except UserError as error:
        raise UserError(f"--rerun: {name}: {error}") from None
    if found.fingerprint != fingerprint:
        raise UserError(
            f"--rerun: {name}: it searched on other images than {found.description} (fingerprint "
            f"{fingerprint[:12]}, not {found.fingerprint[:12]}); put those images there"
        )
    return listing


def rerun_search(config: SearchConfig, table: LatencyTable, listing: Listing, folder: Path) -> Path:
    """Runs a search without Ray, and returns the folder with the files that it leaves in MLflow.

    Args:
        folder: an empty one, for checkpoints as well.

    Raises:
        UserError, DivergedError: see `run_search`.
    """
    cell_folder = CellFolder(folder)
    for _ in SearchCell.run(config, table, cell_folder, listing=listing):
        pass
    return cell_folder.artifacts
