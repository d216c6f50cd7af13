"""Bundles for tests: made up without MLflow, changed, and sealed again so that all checksums fit."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analysis.bundles.archive import CRATE, pack
from analysis.bundles.bundle_store import FORMAT, BundleRecord, RunRecord
from analysis.bundles.crate import describe_files
from tests.support.synthetic import IMAGES, make_search, make_table

RUN = "runs/made_up"


def seal(files: Mapping[str, bytes]) -> bytes:
    """A bundle of these files, with metadata that declare them as they are."""
    files = {path: content for path, content in files.items() if path != CRATE}
    return pack(files | {CRATE: describe_files(files, "made_up", "0.1.0", 0)})


def made_up_files() -> dict[str, bytes]:
    """The files of a bundle with one made-up search."""
    table = make_table()
    search = make_search(table, target_latency_ms=1.0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        search.trajectory.save(folder / "trajectory.npz")
        search.architecture.save(folder / "architecture.json")
        table.save(folder / "latency_table.json")
        epochs = pd.DataFrame(search.metrics, pd.RangeIndex(1, len(search.metrics) + 1, name="epoch"))
        epochs.to_csv(folder / "metrics.csv")
        names = sorted(path.name for path in folder.iterdir())
        files = {f"{RUN}/{name}": (folder / name).read_bytes() for name in names}
    run = RunRecord(
        run_id="1a2b3c4d",
        name="made_up",
        status="FINISHED",
        start_time_ms=0,
        config=search.config.model_dump(mode="json"),
        metrics=search.metrics[-1],
        tags={
            "tfnas.kind": "search",
            "tfnas.cell": "made up",
            "tfnas.results_version": "2",
            "tfnas.table_fingerprint": table.fingerprint,
            "tfnas.data_fingerprint": IMAGES,
        },
        files={name: f"{RUN}/{name}" for name in names},
    )
    record = BundleRecord(
        format=FORMAT, tfnas="0.1.0", experiment="made_up", experiment_id="1", views=[], runs=[run]
    )
    return files | {"runs.json": record.to_bytes()}
