"""Model cards: what a trained network is, its training data, its accuracy and its latency."""

from dataclasses import dataclass

from scipy.stats import binomtest

from nas.data.datasets import DATASETS
from nas.foundation.escaping import escape_markdown
from nas.space.architecture import Architecture
from nas.training.trained_network import TrainedNetwork

_PROTOCOL = (
    *("num_epochs", "num_warmup_epochs", "batch_size", "lr", "momentum", "weight_decay", "label_smoothing"),
    *("dropout", "drop_connect", "grad_clip_norm", "ema_decay", "augmentation", "mixed_precision", "seed"),
)


@dataclass(frozen=True)
class Facts:
    """The contents of a card beyond the trained network itself.

    Attributes:
        latency: measured here, with its conditions, in one line.
        table_latency: predicted by the lookup table of its search, if a search found it.
        searched_on: the images of its search, if they were other ones.
        run: its run in MLflow, if it is tracked.
        checked_on: images on which the export was compared.
        max_error: largest difference of a logit there.
    """

    num_parameters: int
    num_macs: int
    file_name: str
    file_format: str
    size_bytes: int
    latency: str
    checked_on: str
    max_error: float
    table_latency: str | None = None
    searched_on: str | None = None
    run: str | None = None


def _license(dataset: str) -> str:
    # A network may have been trained on the images of a plugin that is not installed here.
    known = DATASETS[dataset].license if dataset in DATASETS else None
    return known or f"that of the images ({dataset})"


def write_card(record: TrainedNetwork, facts: Facts) -> str:
    """The card as Markdown; names of others in it are shown as they are, whatever they hold."""
    rows = {
        "Task": f"image classification, {len(record.class_names)} classes",
        "Input": _describe_input(record),
        "Architecture": _describe_architecture(record),
        "Parameters": f"{facts.num_parameters:,}",
        "Multiply-accumulates": f"{facts.num_macs:,} per image",
        "Test accuracy": describe_accuracy(record),
        "Latency": facts.latency,
        "Latency by lookup table": facts.table_latency or "none (not found by a search)",
        "File": f"{facts.file_name}, {facts.file_format}, {facts.size_bytes:,} bytes",
        "Checked": f"logits within {facts.max_error:.1e} of the trained network, on {facts.checked_on}",
        "Run": facts.run or "not tracked",
        "License": _license(record.dataset),
    }
    lines = [
        f"# {escape_markdown(record.name)}",
        "",
        "| | |",
        "|---|---|",
        *(_row(name, text) for name, text in rows.items()),
        "",
        "## Training",
        "",
        f"From scratch on {escape_markdown(record.dataset)}; the weights are those of epoch {record.epoch} "
        f"of {escape_markdown(str(record.config.get('num_epochs', '?')))}. "
        f"{_describe_choice(record)}{_describe_search(facts)}",
        "",
        "| field | value |",
        "|---|---|",
        *(_row(name, record.config[name]) for name in _PROTOCOL if name in record.config),
        "",
        "## Classes",
        "",
        f"In the order of the outputs: {', '.join(map(escape_markdown, record.class_names))}",
        *_layers(record),
    ]
    return "\n".join(lines) + "\n"


def _row(*cells: object) -> str:
    return f"| {' | '.join(escape_markdown(str(cell)) for cell in cells)} |"


def _describe_choice(record: TrainedNetwork) -> str:
    if record.config.get("val_fraction") == 0:
        return (
            "The best epoch was chosen on the test images: the test accuracy is selected on test images, and "
            "so too high."
        )
    return (
        "The best epoch was chosen on held-out training images; the test images were used once, after that "
        "choice."
    )


def _describe_search(facts: Facts) -> str:
    if facts.searched_on is None:
        return ""
    return f" The search that found the network used other images: {escape_markdown(facts.searched_on)}."


def describe_accuracy(record: TrainedNetwork) -> str:
    """Test accuracy in percent, with its 95 % Wilson interval."""
    metrics = record.metrics
    if "test_accuracy" not in metrics:
        return "unknown: only a finished training is evaluated on the test images"
    num_images = int(metrics["num_test_images"])
    test = binomtest(round(metrics["test_accuracy"] * num_images), num_images)
    low, high = test.proportion_ci(0.95, method="wilson")
    text = f"{metrics['test_accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {num_images}), top-1"
    if "test_top5_accuracy" in metrics:
        text += f"; {metrics['test_top5_accuracy']:.2%}, top-5"
    return text


def _describe_input(record: TrainedNetwork) -> str:
    side = record.resolution
    colors = "gray images as three equal channels" if len(record.mean) == 1 else "RGB"
    return f"float32, (batch, 3, {side}, {side}), values 0 to 1, {colors}; normalized inside"


def _describe_architecture(record: TrainedNetwork) -> str:
    if isinstance(record.network, Architecture):
        return f"derived network of space {record.network.space}, {record.network.depth} searchable layers"
    return f"{record.network} of torchvision"


def _layers(record: TrainedNetwork) -> list[str]:
    if not isinstance(record.network, Architecture):
        return []
    return [
        "",
        "## Layers",
        "",
        "| stage | operator | mid channels | out channels | stride |",
        "|---|---|---|---|---|",
        *(
            _row(layer.stage + 1, op.name, mid_channels, layer.out_channels, layer.stride)
            for layer, op, mid_channels in record.network.layers
        ),
    ]
