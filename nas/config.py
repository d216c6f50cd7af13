"""What determines a search: one flat, frozen, typed record.

Source: TF-NAS, implementation details; defaults are the published protocol.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from nas.data.augmentation import Augmentation
from nas.data.datasets import DATASETS, SOURCE_FIELDS
from nas.foundation.errors import UserError
from nas.foundation.validation import first_error
from nas.search.methods import METHODS
from nas.space.macro_space import SPACES
from nas.supernet.objectives import OBJECTIVES, parameters_of
from nas.supernet.sampling import SAMPLINGS
from nas.supernet.supernet import Depth

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Resolution = Annotated[int, Field(ge=1, le=8192)]
Threads = Annotated[int, Field(ge=1, le=1024)]
"""More would be a slip, and would bring the machine down."""

DeviceName = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")]

OBJECTIVE_FIELDS = ("latency_weight", "objective_scale", "objective_exponent")
"""Fields that some objectives read, and nothing else does."""


def _without_alias(sampling: Any) -> Any:
    # The paper's variant has a short name; inside it has one name only.
    return "bi_random" if sampling == "bi" else sampling


class ConfigRecord(BaseModel):
    """A flat record that refuses unknown fields and wrong types (`1e-5` read as a string)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def parse(cls, fields: dict[str, Any], where: str) -> Self:
        """Validates fields that a person wrote.

        Args:
            where: what to name in the error, a file's path for instance.

        Raises:
            UserError: a field is unknown, missing, of the wrong type or impossible.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            raise UserError(f"{where}: {first_error(error)}") from None


class DataConfig(ConfigRecord):
    """Which images, how they are split, and how they are augmented."""

    dataset: Annotated[str, AfterValidator(DATASETS.check)] = "fashion_mnist_subset"
    """Images to search or train on; the subset of Fashion-MNIST is part of the package."""

    data_dir: Path | None = Field(default=None, strict=False)
    """Folder of the images, for every dataset that is not part of the package.

    torchvision's file formats for `fashion_mnist`, `cifar10`, `cifar100`; `train/CLASS/*` (and
    `test/CLASS/*`, if any) or `CLASS/*` for `image_folder`; the root of the paths of
    `image_list`.
    """

    train_list: Path | None = Field(default=None, strict=False)
    """For `image_list`: text file of `path label` lines, paths relative to `data_dir`."""

    test_list: Path | None = Field(default=None, strict=False)
    """For `image_list`: the same for the test images; only training of derived networks reads it."""

    download: bool = False
    """Whether torchvision may download a dataset that `data_dir` does not hold."""

    skip_broken_images: bool = False
    """Whether image files that are missing or cannot be read are left out, and counted.

    Finding them means decoding every training image once, before the first epoch. Otherwise the
    first one ends the search with its name.
    """

    max_train_images: PositiveInt | None = None
    """Use only the first so many training images, stratified by class; None for all."""

    augmentation: Augmentation = "paper"
    """`paper`: random resized crop, flip, colour jitter; `crop_flip`: pad by an eighth, crop, flip."""

    num_data_workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that decode image files, of each process that trains; images in memory need none."""

    @model_validator(mode="after")
    def _has_its_source(self) -> Self:
        dataset = DATASETS[self.dataset]
        for field in SOURCE_FIELDS:
            is_set = getattr(self, field) != type(self).model_fields[field].default
            if is_set and field not in (*dataset.required, *dataset.optional):
                raise ValueError(f"{field}: has no effect with dataset '{self.dataset}'; remove it")
            if not is_set and field in dataset.required:
                raise ValueError(f"{field}: missing; dataset '{self.dataset}' needs it")
        return self


class SearchConfig(DataConfig):
    """Everything that determines a search: space, switches, data, protocol.

    Raises:
        ValueError: an unknown field, a wrong type, an impossible value or combination.
    """

    method: Annotated[str, AfterValidator(METHODS.check)] = "tf_nas"
    """How architectures are searched: `tf_nas`, the paper's differentiable search."""

    space: Annotated[str, AfterValidator(SPACES.check)] = "paper"
    """Macro space: `paper` (224x224), `paper_no_se`, `small32` (32x32) or `micro` (28x28)."""

    target_latency_ms: Positive
    """Latency that the derived network shall have, in ms of the lookup table."""

    latency_table: str = "measure"
    """Path of the lookup table, or `measure` to measure one on this machine first."""

    latency_batch_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Images at a time when a table is measured; None for 1 on the CPU and 32 on CUDA."""

    sampling: Annotated[str, BeforeValidator(_without_alias), AfterValidator(SAMPLINGS.check)] = "bi_random"
    """How a weight step samples paths: `single`, one Gumbel path; or a second one beside it (`bi_*`).

    `bi_random`, the paper's choice (`bi` for short): the second path is uniform over the other
    operators of each layer. `bi_gumbel`, `bi_min`, `bi_max`: from alpha, the lowest, the highest alpha.
    """

    depth: Depth = "sink"
    """How depth is searched: sink-connecting stages, or identity as a further candidate."""

    elasticity: bool = True
    """Whether widths are scaled to the latency target after every joint epoch."""

    refine_widths: bool = False
    """Whether elasticity-scaling ends with single-width steps that use up what is left."""

    objective: Annotated[str, AfterValidator(OBJECTIVES.check)] = "tfnas"
    """Form of the architecture step's loss."""

    latency_weight: NonNegative = 0.1
    """Lambda, the weight of the latency term, in `tfnas` and `proxyless_add`."""

    objective_scale: Positive = 0.2
    """The factor a of `fbnet` and `proxyless_mul`."""

    objective_exponent: Positive | None = None
    """The exponent b of `fbnet` and `proxyless_mul`; None for the published 0.6 and 0.3."""

    seed: Seed = 0
    """Seeds the split, the initial weights, the batches and the sampling."""

    num_epochs: PositiveInt = 90
    """Epochs in all, warm-up included."""

    num_warmup_epochs: NonNegativeInt = 10
    """First epochs, in which only weights are trained, on one Gumbel path."""

    batch_size: PositiveInt = 32
    """Images a step, of both kinds of steps."""

    arch_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training images held out for architecture steps, stratified by class."""

    weight_steps_per_arch_step: PositiveInt = 2
    """Weight steps between two architecture steps of a joint epoch."""

    weight_lr: Positive = 0.025
    """Initial learning rate of the weights' SGD, with a cosine over all epochs down to 0."""

    weight_momentum: Fraction = 0.9
    """Momentum of the weights' SGD."""

    weight_decay: NonNegative = 1e-5
    """L2 penalty on the weights."""

    arch_lr: Positive = 0.01
    """Learning rate of the architecture parameters' Adam."""

    arch_beta1: Fraction = 0.5
    """Adam's first decay rate."""

    arch_beta2: Fraction = 0.999
    """Adam's second decay rate."""

    arch_weight_decay: NonNegative = 5e-4
    """L2 penalty on the architecture parameters."""

    grad_clip_norm: Positive = 5.0
    """Largest L2 norm of the gradient, of weights and of architecture parameters."""

    initial_temperature: Positive = 5.0
    """Temperature of the Gumbel softmax until the end of the first joint epoch."""

    temperature_decay: Annotated[float, Field(gt=0, le=1)] = 0.96
    """Factor on the temperature after each joint epoch."""

    reset_optimizers_each_epoch: bool = False
    """Whether both optimisers are built anew each epoch, as the reference behaviour has it."""

    device: DeviceName = "auto"
    """`auto` (CUDA if there), `cpu`, `cuda` or `cuda:N`, of the GPUs that `CUDA_VISIBLE_DEVICES` shows.

    In a grid `auto` is CUDA where trials reserve a GPU or a part of one.
    """

    mixed_precision: bool = False
    """Whether the supernet computes in bfloat16 where torch deems that safe.

    Weights, optimizers and the architecture parameters stay in float32. Meant for GPUs: the compiled
    kernels of the CPU compute in float32 only.
    """

    deterministic: bool = False
    """Whether torch uses deterministic algorithms only, so that a search repeats exactly on a GPU too.

    On the CPU it repeats exactly in any case.
    """

    num_threads: Threads = 1
    """Threads of a search on the CPU; results are exact for equal numbers only."""

    kernels: Literal["auto", "torch", "compiled"] = "auto"
    """What computes the mixed blocks: `torch`, or `compiled` CPU loops, which are faster.

    `auto` is `compiled` where it can run: in float32, on the CPU, with tfnas[kernels] installed. The two
    agree to rounding. A resumed search keeps what it began with where it can.
    """

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.kernels == "compiled" and self.device.startswith("cuda"):
            raise ValueError(f"kernels: compiled kernels run on the CPU, not on '{self.device}'; use auto")
        if self.kernels == "compiled" and self.mixed_precision:
            raise ValueError("kernels: compiled kernels compute in float32, not in mixed precision; use auto")
        if self.num_warmup_epochs > self.num_epochs:
            raise ValueError(
                f"num_warmup_epochs: {self.num_warmup_epochs}; must be at most num_epochs ({self.num_epochs})"
            )
        if self.refine_widths and not self.elasticity:
            raise ValueError("refine_widths: has no effect without elasticity; set elasticity: true")
        return self

    def objective_fields(self) -> dict[str, Any]:
        """What the objective reads, with its own default where a field is None."""
        return {
            name: default if getattr(self, name) is None else getattr(self, name)
            for name, default in parameters_of(self.objective).items()
        }

    def unused_fields(self) -> set[str]:
        """Fields that have no effect in this combination."""
        unread = {field for field in OBJECTIVE_FIELDS if field not in parameters_of(self.objective)}
        return unread | METHODS[self.method].ignored_fields

    def ineffective_fields(self) -> list[str]:
        """Fields that were set and have no effect in this combination, for a warning."""
        return sorted(self.unused_fields() & self.model_fields_set)


class TrainConfig(DataConfig):
    """Everything that determines the training of one network from scratch.

    Source: TF-NAS, retraining of derived networks; defaults are the published protocol.

    Raises:
        ValueError: an unknown field, a wrong type, an impossible value or combination.
    """

    architecture: str
    """Path of an architecture file, or the name of a network that comes with the package.

    Names: `tf-nas-a`, and `efficientnet_b0`, `mobilenet_v3_large`, `mobilenet_v2`, `mnasnet1_0`
    of torchvision.
    """

    resolution: Resolution | None = None
    """Height and width of the images, in pixels.

    None for that of the space of an architecture file and, where a network is named, that of the
    dataset's images (224 for image files).
    """

    seed: Seed = 0
    """Seeds the split, the initial weights, the batches, dropout and drop-connect."""

    num_epochs: PositiveInt = 250
    """Epochs in all, warm-up included."""

    num_warmup_epochs: NonNegativeInt = 5
    """First epochs, in which the learning rate rises linearly, step by step."""

    batch_size: PositiveInt = 512
    """Images a step, of all processes together."""

    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training images held out to choose the best epoch, stratified by class."""

    lr: Positive = 0.2
    """Highest learning rate of SGD: where warm-up ends and a cosine down to 0 begins."""

    momentum: Fraction = 0.9
    """Momentum of SGD."""

    weight_decay: NonNegative = 1e-5
    """L2 penalty on all parameters."""

    grad_clip_norm: Positive = 5.0
    """Largest L2 norm of the gradient."""

    label_smoothing: Fraction = 0.1
    """Share of the target distribution that is spread over all classes."""

    dropout: Fraction = 0.2
    """Probability of dropout before the classifier."""

    drop_connect: Fraction = 0.2
    """Probability to drop the last residual branch; linear in depth before it."""

    ema_decay: Fraction | None = None
    """Decay a step of the moving average of the weights that is then evaluated and kept; None for none."""

    mixed_precision: bool = False
    """Whether forward and backward compute in bfloat16 where torch deems that safe."""

    device: DeviceName = "auto"
    """`auto` (CUDA if there), `cpu`, `cuda` or `cuda:N`."""

    num_threads: Threads = 1
    """Threads of a training on the CPU; results are exact for equal numbers only."""

    @model_validator(mode="after")
    def _has_epochs_after_warmup(self) -> Self:
        if self.num_warmup_epochs >= self.num_epochs:
            raise ValueError(
                f"num_warmup_epochs: {self.num_warmup_epochs}; must be below num_epochs ({self.num_epochs})"
            )
        return self
