"""What cells need before they start: lookup tables, lists of images, and a record of what computes them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.cells.cell import Cell, listing_key
from experiments.cells.cell_folder import CODE_TAG, DEVICE_TAG, LIBRARIES_TAG
from experiments.cells.image_survey import ImageSurvey
from experiments.console import format_duration
from experiments.places.place import Place
from nas.config import DataConfig, SearchConfig, TrainConfig
from nas.data.image_doubts import find_doubts
from nas.data.image_lists import Listing
from nas.data.image_source import fingerprint_data
from nas.foundation.errors import UserError
from nas.foundation.identity import code_version, fingerprint, library_versions
from nas.latency.compatibility import Hardware, check_table
from nas.latency.duration import foresee_duration_s
from nas.latency.quiet import PATIENCE_S
from nas.latency.table import LatencyTable
from nas.search.search import measure_table_of
from nas.space.macro_space import get_space

_DATA_FIELDS = {
    *DataConfig.model_fields,
    *("method", "batch_size", "arch_fraction", "arch_list", "val_fraction", "weight_steps_per_arch_step"),
}


class Preparation:
    """Loads or measures each lookup table once, and lists and checks the images of each dataset once.

    Args:
        folder: for measured tables; later launches find them there.
        place: where trials run: it has the images, and tables are measured there.
        where: the YAML file, or the option, that has the fields, for errors.
        report: receives warnings, and a line before anything that takes a while.
        even_if_busy: whether to measure a table though the machine is busy, and use one that was measured so.
    """

    def __init__(
        self,
        folder: Path,
        place: Place,
        where: str,
        report: Callable[[str], None],
        *,
        even_if_busy: bool = False,
    ) -> None:
        self._folder = folder
        self._place = place
        self._where = where
        self._report = report
        self._even_if_busy = even_if_busy
        self._tables: dict[Path, LatencyTable] = {}
        self._hardware: dict[str, Hardware] = {}
        self._provenance: dict[str, dict[str, str]] = {}
        self._listings: dict[str, Listing] = {}
        self._surveys: dict[str, ImageSurvey] = {}
        self._training_images: dict[str, str] = {}
        self._doubts: set[str] = set()

    def table(self, config: SearchConfig) -> tuple[Path, LatencyTable]:
        """The lookup table of a config and its file; measures it if necessary.

        Raises:
            UserError: the file is missing or damaged, the table is for another space or device, or the
                machine is too busy to measure one.
        """
        path = self.table_path(config)
        if self.is_to_measure(config):
            self._measure(config, path)
        return path, self._load(config)

    def is_to_measure(self, config: SearchConfig) -> bool:
        """Whether the lookup table of a config still has to be measured, or has to be measured again.

        Raises:
            UserError: see `table`.
        """
        if config.latency_table != "measure":
            return False
        if not self.table_path(config).is_file():
            return True
        return self._load(config).provenance.doubt is not None and not self._even_if_busy

    def describe_measurement(self, config: SearchConfig) -> str:
        """The lookup table that a config has to measure, and how long that takes."""
        hardware = self.hardware(config)
        durations_s = foresee_duration_s(
            get_space(config.space),
            "cuda" if hardware.gpu_name else "cpu",
            batch_size=config.latency_batch_size,
            num_threads=config.num_threads,
        )
        low, high = map(format_duration, durations_s)
        takes = high if low == high else f"{low} to {high}"
        return f"the lookup table of space '{config.space}' on {hardware.device_name}, about {takes}"

    def table_path(self, config: SearchConfig) -> Path:
        """The file of the lookup table of a config, whether it exists or not."""
        if config.latency_table != "measure":
            return Path(config.latency_table)
        return self._folder / _file_name(config, self.hardware(config))

    def _load(self, config: SearchConfig) -> LatencyTable:
        """The table in the file of a config; says once if it was measured on a busy machine."""
        path, is_ours = self.table_path(config), config.latency_table == "measure"
        try:
            if path not in self._tables:
                self._tables[path] = LatencyTable.load(path)
                if doubt := self._tables[path].provenance.doubt:
                    line = f"warning: latency_table: {path}: {doubt}; {self._remedy(is_ours)}"
                    self._report(f"{self._where}: {line}")
            check_table(self._tables[path], get_space(config.space), self.hardware(config), str(path))
        except UserError as error:
            remedy = "; or remove the file to measure a new table" if is_ours else ""
            raise UserError(f"{self._where}: latency_table: {error}{remedy}") from None
        return self._tables[path]

    def _remedy(self, is_ours: bool) -> str:
        """What makes a table good that was measured on a busy machine."""
        if not is_ours:
            return "measure it again on a quiet machine"
        return f"a launch{' without --even-if-busy' if self._even_if_busy else ''} measures it again"

    def hardware(self, config: SearchConfig | TrainConfig) -> Hardware:
        """The hardware that a search or a training of that config runs on."""
        if config.device not in self._hardware:
            self._hardware[config.device] = self._place.run(Hardware.of, config.device)
        return self._hardware[config.device]

    def provenance(self, config: SearchConfig | TrainConfig) -> dict[str, str]:
        """Tags that name what computes a search or a training of that config."""
        if config.device not in self._provenance:
            self._provenance[config.device] = self._place.run(describe_installation, config.device)
        return self._provenance[config.device]

    def listing(self, kind: type[Cell], config: SearchConfig | TrainConfig) -> Listing:
        """The image files of a cell, listed once for all cells that use the same; reports doubts.

        Raises:
            UserError: images are missing, or lists or folders are wrong.
        """
        key = listing_key(config)
        if key not in self._listings:
            try:
                self._listings[key] = self._place.run(kind.list_images, config)
            except UserError as error:
                raise UserError(f"{self._where}: {error}") from None
            self._report_doubts(self._place.run(find_doubts, self._listings[key]))
        return self._listings[key]

    def images(self, kind: type[Cell], config: SearchConfig | TrainConfig) -> ImageSurvey:
        """The images of a cell; checks that images and device are there, and reports doubts.

        Raises:
            UserError: there is no such device; images are missing, or fewer than a batch.
        """
        resolution = kind.resolution(config)
        fields = config.model_dump(mode="json", include=_DATA_FIELDS)
        key = fingerprint(fields | {"resolution": resolution})
        if key not in self._surveys:
            listing = self.listing(kind, config)
            try:
                self.hardware(config)
                self._surveys[key] = self._place.run(kind.look_at_images, config, resolution, listing)
            except UserError as error:
                raise UserError(f"{self._where}: {error}") from None
            self._report_doubts(self._surveys[key].doubts)
        return self._surveys[key]

    def training_images(self, kind: type[Cell], config: SearchConfig | TrainConfig) -> str:
        """Fingerprint of the training images alone, which a search and a training of them have in common.

        Raises:
            UserError: see `listing`.
        """
        listing = self.listing(kind, config)
        key = f"{listing_key(config)} {config.max_train_images}"
        if key not in self._training_images:
            self._training_images[key] = self._place.run(fingerprint_data, config, "train", listing)
        return self._training_images[key]

    def _report_doubts(self, doubts: Sequence[str]) -> None:
        for doubt in doubts:
            if doubt not in self._doubts:
                self._report(f"{self._where}: warning: {doubt}")
                self._doubts.add(doubt)

    def _measure(self, config: SearchConfig, path: Path) -> None:
        waiting = "" if self._even_if_busy else f"; waits up to {PATIENCE_S:.0f} s for a quiet machine"
        self._report(f"Measuring {self.describe_measurement(config)}{waiting} ...")
        try:
            table = self._place.run(measure_table_of, config, self._even_if_busy, alone=True)
        except UserError as error:
            raise UserError(f"{self._where}: latency_table: {error}") from None
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        table.save(partial)
        partial.replace(path)
        self._tables.pop(path, None)
        self._report(f"Saved as {path}; other launches into this folder reuse it")


def describe_installation(device: str) -> dict[str, str]:
    """Tags that name what computes here: source, libraries and device."""
    return {
        CODE_TAG: code_version(),
        LIBRARIES_TAG: library_versions(),
        DEVICE_TAG: Hardware.of(device).device_name,
    }


def _file_name(config: SearchConfig, hardware: Hardware) -> str:
    """A name for each table that `measure` can mean; each GPU model has its own."""
    gpu = f"cuda-{re.sub('[^A-Za-z0-9]+', '_', hardware.gpu_name)}" if hardware.gpu_name else None
    parts = ["latency-table", config.space, gpu or "cpu", f"threads{config.num_threads}"]
    if config.latency_batch_size:
        parts.append(f"batch{config.latency_batch_size}")
    return "-".join(parts) + ".json"
