"""What cells share and need before any of them starts: lookup tables and images."""

import re
from collections.abc import Callable
from pathlib import Path

from experiments.cells.cell_folder import CODE_TAG, DEVICE_TAG, LIBRARIES_TAG
from experiments.places.place import Place
from nas.config import DataConfig, SearchConfig, TrainConfig
from nas.data.image_source import fingerprint_data
from nas.data.search_data import load_search_data
from nas.data.training_data import fingerprint_training_data, load_training_data
from nas.foundation.errors import UserError
from nas.foundation.identity import code_version, fingerprint, library_versions
from nas.latency.compatibility import Hardware, check_table
from nas.latency.table import LatencyTable
from nas.search.search import load_or_measure_table
from nas.space.macro_space import get_space
from nas.training.training import NetworkChoice

_DATA_FIELDS = {*DataConfig.model_fields, "batch_size", "arch_fraction", "val_fraction"}


class Preparation:
    """Loads or measures each lookup table once, and looks at each dataset once.

    Args:
        folder: where measured tables are saved, and found again.
        place: where trials run; there a table is measured, and there are the images.
        where: the YAML file, for errors.
        report: is told what takes a while.
    """

    def __init__(self, folder: Path, place: Place, where: str, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._place = place
        self._where = where
        self._report = report
        self._tables: dict[Path, LatencyTable] = {}
        self._hardware: dict[str, Hardware] = {}
        self._provenance: dict[str, dict[str, str]] = {}
        self._data_fingerprints: dict[str, str] = {}

    def table(self, config: SearchConfig) -> tuple[Path, LatencyTable]:
        """The lookup table of a config and the file that holds it.

        Raises:
            UserError: the file is missing or damaged, or the table is of another space or machine.
        """
        try:
            return self._table(config)
        except UserError as error:
            remedy = "; or remove it: a new one is measured" if config.latency_table == "measure" else ""
            raise UserError(f"{self._where}: latency_table: {error}{remedy}") from None

    def is_to_measure(self, config: SearchConfig) -> bool:
        """Whether the lookup table of a config is yet to be measured."""
        return config.latency_table == "measure" and not self._path(config).is_file()

    def _path(self, config: SearchConfig) -> Path:
        if config.latency_table != "measure":
            return Path(config.latency_table)
        return self._folder / _file_name(config, self.hardware(config))

    def _table(self, config: SearchConfig) -> tuple[Path, LatencyTable]:
        path = self._path(config)
        if path not in self._tables:
            if self.is_to_measure(config):
                self._measure(config, path)
            self._tables[path] = LatencyTable.load(path)
        check_table(self._tables[path], get_space(config.space), self.hardware(config), str(path))
        return path, self._tables[path]

    def hardware(self, config: SearchConfig | TrainConfig) -> Hardware:
        """What a search or a training of that config runs on."""
        if config.device not in self._hardware:
            self._hardware[config.device] = self._place.run(Hardware.of, config.device)
        return self._hardware[config.device]

    def provenance(self, config: SearchConfig | TrainConfig) -> dict[str, str]:
        """Tags that say what computes a search or a training of that config."""
        if config.device not in self._provenance:
            self._provenance[config.device] = self._place.run(describe_installation, config.device)
        return self._provenance[config.device]

    def data_fingerprint(self, config: SearchConfig | TrainConfig) -> str:
        """Fingerprint of the images; makes sure that they and the device are there.

        Raises:
            UserError: there is no such device; images are missing, or fewer than a batch.
        """
        resolution = _resolution(config)
        fields = config.model_dump(mode="json", include=_DATA_FIELDS)
        key = fingerprint(fields | {"resolution": resolution})
        if key not in self._data_fingerprints:
            try:
                self.hardware(config)
                self._data_fingerprints[key] = self._place.run(look_at_images, config, resolution)
            except UserError as error:
                raise UserError(f"{self._where}: {error}") from None
        return self._data_fingerprints[key]

    def _measure(self, config: SearchConfig, path: Path) -> None:
        self._report(
            f"Measuring the lookup table of space '{config.space}' on "
            f"{self.hardware(config).device_name}, once ..."
        )
        table = self._place.run(load_or_measure_table, config, alone=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        table.save(partial)
        partial.replace(path)
        self._report(f"Saved it as {path}; other launches into this folder reuse it")


def describe_installation(device: str) -> dict[str, str]:
    """Tags that say what computes here: source, libraries and device."""
    return {
        CODE_TAG: code_version(),
        LIBRARIES_TAG: library_versions(),
        DEVICE_TAG: Hardware.of(device).device_name,
    }


def _resolution(config: SearchConfig | TrainConfig) -> int:
    """To be asked on this machine, of which an architecture may be a file."""
    if isinstance(config, SearchConfig):
        return get_space(config.space).resolution
    return NetworkChoice.of(config).resolution


def look_at_images(config: SearchConfig | TrainConfig, resolution: int) -> str:
    """The fingerprint of a search's or a training's images; makes sure that they can be used."""
    # Finding broken images takes an epoch's time: that is left to the trial.
    if isinstance(config, SearchConfig):
        if config.skip_broken_images:
            return fingerprint_data(config)
        return load_search_data(config, resolution).fingerprint
    if config.skip_broken_images:
        return fingerprint_training_data(config)
    return load_training_data(config, resolution).fingerprint


def _file_name(config: SearchConfig, hardware: Hardware) -> str:
    """A name for each kind of table that `measure` can mean; every model of GPU has one of its own."""
    gpu = f"cuda-{re.sub('[^A-Za-z0-9]+', '_', hardware.gpu_name)}" if hardware.gpu_name else None
    parts = ["latency-table", config.space, gpu or "cpu", f"threads{config.num_threads}"]
    if config.latency_batch_size:
        parts.append(f"batch{config.latency_batch_size}")
    return "-".join(parts) + ".json"
