"""The data sets that a config can name, one record each.

To add one, register a `Dataset` in `DATASETS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.data.dataset_readers import (
    FASHION_CLASSES,
    read_bundled,
    read_cifar,
    read_cifar_classes,
    read_fashion_mnist,
)
from nas.data.image_lists import Listing, folder_classes, list_classes, list_folder, read_lists
from nas.data.memory_images import Arrays, Part
from nas.foundation.registry import Registry

if TYPE_CHECKING:
    from nas.config import DataConfig

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_FASHION_LICENSE = "Fashion-MNIST: MIT, (c) 2017 Zalando SE"

SOURCE_FIELDS = (
    *("data_dir", "train_list", "arch_list", "test_list", "download"),
    *("skip_broken_images", "num_data_workers"),
)
"""Config fields that locate and read the images; each data set uses some of them."""

_FILE_FIELDS = ("skip_broken_images", "num_data_workers")
"""Those that every data set of image files uses."""


@dataclass(frozen=True)
class Dataset:
    """Everything that depends on the data set.

    Attributes:
        classes: names of the classes, one per label, or a function that reads them.
        arrays: reads the training or test images as one array, for data sets that fit in memory.
        files: lists the images of the given parts, for data sets of image files, which are decoded while
            they are used. Exactly one of `arrays` and `files` is given.
        resolution: height and width of the stored images, in pixels; None for image files.
        mean: mean of each channel, or one for all channels, for values 0 to 1.
        std: standard deviation, in the same form. Mean and deviation normalize images.
        num_classes: number of classes, if `classes` reads a file that searches do not need.
        license: of the images, for model cards; None where only the user knows it.
        required: fields of `SOURCE_FIELDS` that a config must set.
        optional: other fields of `SOURCE_FIELDS` that a config may set.
    """

    classes: tuple[str, ...] | Callable[["DataConfig"], tuple[str, ...]]
    arrays: Callable[["DataConfig", Part], Arrays] | None = None
    files: Callable[["DataConfig", Sequence[Part]], Listing] | None = None
    resolution: int | None = None
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD
    num_classes: int | None = None
    license: str | None = None
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert (self.arrays is None) != (self.files is None)

    @property
    def is_in_files(self) -> bool:
        """Whether each image is a file of its own."""
        return self.files is not None

    def uses(self, field: str) -> bool:
        """Whether a field of `SOURCE_FIELDS` has an effect."""
        return field in (*self.required, *self.optional, *(_FILE_FIELDS if self.is_in_files else ()))

    def class_names(self, config: "DataConfig") -> tuple[str, ...]:
        """Names of the classes, one per label; for an image list, the labels themselves.

        Raises:
            UserError: the file or folder that holds them is missing or damaged.
        """
        return self.classes(config) if callable(self.classes) else self.classes

    def count_classes(self, config: "DataConfig") -> int:
        """Number of classes; all labels are below it.

        Raises:
            UserError: see `class_names`.
        """
        return self.num_classes or len(self.class_names(config))


DATASETS: Registry[Dataset] = Registry(
    "dataset",
    {
        "fashion_mnist_subset": Dataset(
            FASHION_CLASSES,
            arrays=read_bundled,
            resolution=28,
            mean=(0.2860,),
            std=(0.3530,),
            license=_FASHION_LICENSE,
        ),
        "fashion_mnist": Dataset(
            FASHION_CLASSES,
            arrays=read_fashion_mnist,
            resolution=28,
            mean=(0.2860,),
            std=(0.3530,),
            license=_FASHION_LICENSE,
            required=("data_dir",),
            optional=("download",),
        ),
        "cifar10": Dataset(
            read_cifar_classes,
            num_classes=10,
            arrays=read_cifar,
            resolution=32,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            required=("data_dir",),
            optional=("download",),
        ),
        "cifar100": Dataset(
            read_cifar_classes,
            num_classes=100,
            arrays=read_cifar,
            resolution=32,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
            required=("data_dir",),
            optional=("download",),
        ),
        "image_folder": Dataset(folder_classes, files=list_folder, required=("data_dir",)),
        "image_list": Dataset(
            list_classes,
            files=read_lists,
            required=("data_dir", "train_list"),
            optional=("arch_list", "test_list"),
        ),
    },
)
"""The data sets by name."""
