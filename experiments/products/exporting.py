"""Export of a trained network: a file, its model card, a model in MLflow."""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Generator, Tensor, nn

from experiments.cells.training_cell import SEARCH_RUN_TAG, SEARCHED_ON_TAG
from experiments.products.model_card import Facts, write_card
from experiments.products.model_registry import register
from experiments.tracking.named_run import NamedRun, find_run
from experiments.tracking.short_names import RUN_PREFIX, as_run
from experiments.tracking.store_access import moving_artifacts, reaching
from nas.config import TrainConfig
from nas.data.image_source import load_images
from nas.foundation.device import resolve_device
from nas.foundation.errors import UserError
from nas.latency.calibration import summarize_networks, time_networks_in_turn
from nas.latency.quiet import measure_load
from nas.latency.timing import device_name, make_images, prepare_network
from nas.space.network_names import find_architecture
from nas.space.profile import count_macs, count_parameters
from nas.training.export import ExportFormat, PixelClassifier, export_network, fold_batch_norm
from nas.training.trained_network import TrainedNetwork, load_trained_network
from nas.training.training import BEST_FILE

_NUM_CHECKED_IMAGES = 64
_NUM_TIMING_ROUNDS = 10
_MODEL_NAME = "model"


@dataclass(frozen=True)
class Source:
    """A trained network, and the run that trained it, if it is tracked."""

    record: TrainedNetwork
    network: nn.Module
    run: NamedRun | None


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        max_error: largest difference of a logit, on `checked_on`.
        model_uri: URI of the model in MLflow, if the training is tracked.
        registered: URI of its version in the model registry, if the store has one.
    """

    path: Path
    card: Path
    max_error: float
    checked_on: str
    model_uri: str | None
    registered: str | None = None


def find_source(reference: str, checkpoint: Path | None, out: Path) -> Source:
    """The trained network of `run:RUN`, or of a file.

    Args:
        reference: a run, or an architecture (a file or a name) that fits the checkpoint.
        checkpoint: a file `best.pt` or `last.pt`; None for the best one of the run.

    Raises:
        UserError: there is none, or it is of another architecture.
    """
    reference = as_run(reference, out)
    run = find_run(reference, out) if reference.startswith(RUN_PREFIX) else None
    if checkpoint is None:
        if run is None:
            raise UserError(
                f"{reference}: an architecture has no weights; give a file with --checkpoint, or a training "
                "as run:RUN"
            )
        checkpoint = run.fetch(BEST_FILE, f"train it first: tfnas train {reference}")
    record, network = load_trained_network(checkpoint)
    if run is None:
        _check_same_network(record, reference, checkpoint)
    return Source(record, network, run)


def export(source: Source, path: Path, export_format: ExportFormat) -> Exported:
    """Writes a trained network and its card; if it is tracked, logs both and a model to MLflow.

    Raises:
        UserError: the files cannot be written, or not be logged.
        ExportError: the exported network gives other results.
    """
    images_BCHW, checked_on = _test_images(source.record)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        max_error = export_network(source.record, source.network, images_BCHW, path, export_format)
    except OSError as error:
        raise UserError(f"{path}: cannot write it ({error.strerror}); choose another file") from None
    facts = Facts(
        num_parameters=count_parameters(source.network),
        num_macs=count_macs(source.network, source.record.resolution),
        file_name=path.name,
        file_format=export_format,
        size_bytes=path.stat().st_size,
        latency=_measure(source),
        checked_on=checked_on,
        max_error=max_error,
        table_latency=_table_latency(source.run),
        searched_on=source.run.run.data.tags.get(SEARCHED_ON_TAG) if source.run else None,
        run=f"{source.run.run_id} (experiment {source.run.experiment})" if source.run else None,
    )
    card = path.with_name(f"{path.name}.md")
    card.write_text(write_card(source.record, facts), encoding="utf-8")
    if source.run is None:
        return Exported(path, card, max_error, checked_on, None)
    model_uri = _log_model(source, source.run, images_BCHW, [path, card])
    with reaching(source.run.client.tracking_uri):
        registered = register(source.run, model_uri, path, card.read_text(encoding="utf-8"))
    return Exported(path, card, max_error, checked_on, model_uri, registered)


def _check_same_network(record: TrainedNetwork, reference: str, checkpoint: Path) -> None:
    named = find_architecture(reference) or reference
    same_layers = (
        named == record.network
        if isinstance(named, str) or isinstance(record.network, str)
        else (named.space, named.stages) == (record.network.space, record.network.stages)
    )
    if not same_layers:
        raise UserError(
            f"--checkpoint {checkpoint}: holds {record.name}, not {reference}; name its architecture"
        )


def _test_images(record: TrainedNetwork) -> tuple[Tensor, str]:
    """Real images_BCHW, values 0 to 1, and a description."""
    try:
        config = TrainConfig.parse(record.config | {"download": False}, record.name)
        return _some_images(config, record.resolution), f"test images of {record.dataset}"
    except UserError:
        # The card names them; any real images will do to compare two computations.
        config = TrainConfig(architecture=record.name)
        return _some_images(
            config, record.resolution
        ), "bundled images, since those of the dataset are missing"


def _some_images(config: TrainConfig, resolution: int) -> Tensor:
    images = load_images(config, "test", resolution).images
    chosen = torch.arange(0, len(images.labels_N), max(len(images.labels_N) // _NUM_CHECKED_IMAGES, 1))
    images_BHWC, _ = next(images.batches(iter([chosen]), "none", Generator()))
    images_BHWC = images_BHWC.float().expand(*images_BHWC.shape[:3], 3) / 255
    return images_BHWC.permute(0, 3, 1, 2).contiguous()


def _measure(source: Source) -> str:
    device = resolve_device("cpu")
    network = prepare_network(fold_batch_norm(source.network), device)
    images_BCHW = make_images(source.record.resolution, 1, device)
    is_busy = measure_load().is_busy
    times_RNK = time_networks_in_turn(
        [(network, images_BCHW)],
        num_threads=1,
        rng=np.random.default_rng(0),
        num_rounds=_NUM_TIMING_ROUNDS,
    )
    (timing,) = summarize_networks(times_RNK)
    busy = " (an upper bound: other processes were using the machine)" if is_busy else ""
    return (
        f"{timing.median_ms:.2f} ms, interquartile range {timing.iqr_ms:.2f} ms, n = {timing.num_repeats}, "
        f"batch size 1, one thread of {device_name(device)}, torch {torch.__version__}{busy}"
    )


def _table_latency(run: NamedRun | None) -> str | None:
    search_id = run.run.data.tags.get(SEARCH_RUN_TAG) if run else None
    if run is None or search_id is None:
        return None
    search = find_run(f"{RUN_PREFIX}{search_id}", run.out).run.data
    latency_ms, target_ms = search.metrics.get("derived_latency_ms"), search.params.get("target_latency_ms")
    fingerprint = search.tags.get("tfnas.table_fingerprint", "unknown")[:8]
    return f"{latency_ms:.3f} ms, target {target_ms} ms, table {fingerprint}, search {search_id}"


def _log_model(source: Source, run: NamedRun, images_BCHW: Tensor, files: list[Path]) -> str:
    side = source.record.resolution
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 3, side, side))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(source.record.class_names)))]),
    )
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with reaching(run.client.tracking_uri), moving_artifacts():
        for file in files:
            run.client.log_artifact(run.run_id, str(file))
    mlflow.set_tracking_uri(run.client.tracking_uri)
    try:
        with (
            reaching(run.client.tracking_uri),
            warnings.catch_warnings(),
            mlflow.start_run(run_id=run.run_id),
        ):
            warnings.simplefilter("ignore")
            info = mlflow.pytorch.log_model(
                PixelClassifier(fold_batch_norm(source.network), source.record).eval(),
                name=_MODEL_NAME,
                signature=signature,
                input_example=images_BCHW[:2].numpy(),
                extra_files=[str(files[0])],
                pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
                # A graph, which loads without running foreign code.
                serialization_format="pt2",
            )
    finally:
        # Logging reopened the run, which ended with its training, whether or not this export succeeds.
        with reaching(run.client.tracking_uri):
            run.client.set_terminated(run.run_id, run.run.info.status, run.run.info.end_time)
    return str(info.model_uri)
