"""Published numbers as data, to be shown beside ours and marked as such. None was measured here."""

from dataclasses import dataclass
from pathlib import PurePath

from analysis.reading.run import Run


@dataclass(frozen=True)
class PublishedNetwork:
    """A network's published results on ImageNet-1K at 224x224; None if not published.

    Attributes:
        gpu_ms: on a Titan RTX, batch 32.
        cpu_ms: on a Xeon 6130, batch 1.
    """

    name: str
    family: str
    top1_percent: float
    macs_millions: float
    source: str
    top5_percent: float | None = None
    parameters_millions: float | None = None
    gpu_ms: float | None = None
    cpu_ms: float | None = None


def _tf_nas(
    name: str,
    macs: float,
    top1: float,
    top5: float,
    gpu_ms: float,
    cpu_ms: float,
    parameters_millions: float | None = None,
) -> PublishedNetwork:
    built = "; parameters as built here" if parameters_millions else ""
    source = f"TF-NAS, comparison on ImageNet{built}"
    return PublishedNetwork(name, "TF-NAS", top1, macs, source, top5, parameters_millions, gpu_ms, cpu_ms)


PUBLISHED_NETWORKS: tuple[PublishedNetwork, ...] = (
    _tf_nas("TF-NAS-A", 457, 76.87, 93.11, 18.03, 80.14, 8.757527),
    _tf_nas("TF-NAS-B", 361, 76.28, 92.88, 15.06, 72.10),
    _tf_nas("TF-NAS-C", 284, 75.15, 92.13, 11.95, 51.87),
    _tf_nas("TF-NAS-D", 219, 74.19, 91.45, 10.08, 46.09),
    _tf_nas("TF-NAS-CPU-A", 305, 75.83, 92.57, 14.00, 60.11),
    _tf_nas("TF-NAS-CPU-B", 230, 74.44, 91.82, 10.29, 40.09),
    # The accuracy of the conference paper; the fifth version on arXiv has 77.1.
    PublishedNetwork(
        "EfficientNet-B0", "EfficientNet", 76.3, 385.8,
        "Tan and Le, EfficientNet, ICML 2019, results on ImageNet; MACs as built by torchvision",
        93.2, parameters_millions=5.29,
    ),
    PublishedNetwork("MobileNetV2 1.0", "others", 71.8, 300, "MobileNetV2", parameters_millions=3.47),
    PublishedNetwork("MobileNetV3-Large", "others", 75.2, 217, "MobileNetV3", parameters_millions=5.4),
    PublishedNetwork("MnasNet-A1", "others", 75.2, 312, "MnasNet", parameters_millions=3.9),
    PublishedNetwork("FBNet-A", "others", 73.3, 244.5, "FBNet, repository"),
    PublishedNetwork("FBNet-B", "others", 74.5, 291.1, "FBNet, repository"),
    PublishedNetwork("FBNet-C", "others", 75.2, 378.2, "FBNet, repository"),
    PublishedNetwork("ProxylessNAS mobile", "others", 74.6, 320, "ProxylessNAS"),
)  # fmt: skip
"""ProxylessNAS-GPU (75.1 %) is left out, since its MACs are not published."""

PUBLISHED_SCALING_MS: tuple[float, ...] = (17.68, 14.26, 14.78, 14.99)
"""TF-NAS, elasticity-scaling: before, shrunk, expanded, expanded; the target is 15 ms."""

PUBLISHED_SCALING_TARGET_MS = 15.0

_IMAGENET_NAMES = ("imagenet", "ilsvrc")
_SOURCE_FIELDS = ("data_dir", "train_list")


def is_of_imagenet(run: Run) -> bool:
    """Returns whether a run's images are ImageNet's, or some of them, by the name of their folder or list."""
    sources = [str(run.config.get(field) or "").lower() for field in _SOURCE_FIELDS]
    names = [name for source in sources for name in PurePath(source).parts[-2:]]
    return any(own in name for own in _IMAGENET_NAMES for name in names)
