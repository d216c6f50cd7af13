"""Configs of searches and trainings: flat, frozen, typed records.

Source: TF-NAS, implementation details; defaults are the published protocol.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

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
from nas.foundation.field_notes import Needs, Origin, Unit, note_of
from nas.foundation.field_types import (
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Resolution,
    Seed,
    Threads,
)
from nas.foundation.validation import first_error
from nas.search.methods import METHODS
from nas.space.macro_space import SPACES
from nas.supernet.objectives import OBJECTIVES, depends_on_target, has_multiplier, parameters_of
from nas.supernet.sampling import SAMPLINGS
from nas.supernet.supernet import Depth

if TYPE_CHECKING:
    from nas.search.records import Phase

DeviceName = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")]

PATH_FIELDS = ("data_dir", "train_list", "arch_list", "test_list", "latency_table")
"""Fields that name files and folders of one machine."""

OBJECTIVE_FIELDS = ("latency_weight", "objective_scale", "objective_exponent")
"""Fields that some objectives read, and nothing else does."""


SAMPLING_ALIASES = {"bi": "bi_random"}
"""The paper's variant has a short name; inside it has one name only."""

_PROTOCOL = Origin("TF-NAS, implementation details of the search")
_RETRAINING = Origin("TF-NAS, implementation details of the retraining")
_OPERATORS = Origin("TF-NAS, operator level: bi-sampling")
_DEPTH = Origin("TF-NAS, depth level: sink-connecting")
_WIDTH = Origin("TF-NAS, width level: elasticity-scaling")
_OBJECTIVE = Origin("TF-NAS, latency-constrained objective")
_OTHER_METHODS = Origin("random search: Li and Talwalkar, UAI 2019; GP-NAS: Li et al., CVPR 2020")
_BEYOND = Origin("beyond the paper")

_TARGET = Needs(
    "elasticity: true, or an objective with the target in it",
    lambda config: config.as_searched().is_target_used,
)
_ELASTICITY = Needs("elasticity: true", lambda config: config.elasticity)
_MUST_HAVE_ELASTICITY = Needs("elasticity: true", lambda config: config.elasticity, is_required=True)
_ONE_LIST = Needs("arch_list: null", lambda config: not config.arch_list, is_required=True)


def _without_alias(sampling: Any) -> Any:
    return SAMPLING_ALIASES.get(sampling, sampling) if isinstance(sampling, str) else sampling


class ConfigRecord(BaseModel):
    """A flat record that refuses unknown fields and wrong types (`1e-5` read as a string)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def parse(cls, fields: dict[str, Any], where: str) -> Self:
        """Validates fields from a user.

        Args:
            where: what the error names, such as a file's path.

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
    """Images to search or train on. `fashion_mnist_subset` comes with the package.

    Others: `fashion_mnist`, `cifar10`, `cifar100`, `image_folder`, `image_list`, and those of plugins.
    """

    data_dir: Path | None = Field(default=None, strict=False)
    """Folder of the images, for every dataset that does not come with the package.

    `fashion_mnist`, `cifar10`, `cifar100`: files as torchvision has them. `image_folder`: `train/CLASS/*`
    and, for trainings, `test/CLASS/*`; or `CLASS/*`, of which a fifth of each class is set apart as test
    images. `image_list`: the paths in the lists are relative to it.
    """

    train_list: Path | None = Field(default=None, strict=False)
    """For `image_list`: text file with a line `path label` per training image."""

    arch_list: Path | None = Field(default=None, strict=False)
    """For `image_list`: a text file like `train_list` with the images for architecture steps.

    In a search, `train_list` then names the images for weight steps, and `arch_fraction` has no effect;
    without it, the search splits the images of `train_list`. Trainings train on the images of both.
    """

    test_list: Path | None = Field(default=None, strict=False)
    """For `image_list`: the same for the test images. Searches do not read it."""

    download: bool = False
    """Whether torchvision may download a dataset that is missing from `data_dir`."""

    skip_broken_images: bool = False
    """Whether to leave out, and count, image files that are missing or cannot be decoded.

    Finding them takes decoding every image once before the first epoch. Without this, the first broken
    file ends the run with its name.
    """

    max_train_images: Annotated[PositiveInt | None, Unit("images")] = None
    """Number of training images to use, the first ones of each class (files: by path); None for all."""

    augmentation: Augmentation = "paper"
    """`paper`: random resized crop, flip, color jitter; `crop_flip`: pad by an eighth, crop, flip; `none`."""

    num_data_workers: Annotated[Annotated[int, Field(ge=0, le=1024)] | None, Unit("processes")] = None
    """Worker processes that decode image files; 0 decodes them between the steps.

    None: one per core that `num_threads` leaves; in a grid of the trial's cores, otherwise of the machine's,
    but at most 8. Results do not depend on it.
    """

    @model_validator(mode="after")
    def _has_its_source(self) -> Self:
        dataset = DATASETS[self.dataset]
        for field in SOURCE_FIELDS:
            if field not in type(self).model_fields:
                continue
            is_set = getattr(self, field) != type(self).model_fields[field].default
            if is_set and not dataset.uses(field):
                raise ValueError(f"{field}: has no effect with dataset '{self.dataset}'; remove it")
            if not is_set and field in dataset.required:
                raise ValueError(f"{field}: missing; dataset '{self.dataset}' needs it")
        return self


class SearchConfig(DataConfig):
    """Everything that determines a search: method, space, switches, images, protocol.

    Raises:
        ValueError: an unknown field, a wrong type, an impossible value or combination.
    """

    method: Annotated[
        str,
        AfterValidator(METHODS.check),
        Origin("tf_nas: TF-NAS; random: Li and Talwalkar, UAI 2019; gp_nas: Li et al., CVPR 2020"),
    ] = "tf_nas"
    """How architectures are searched: `tf_nas`, the paper's differentiable search; `random` or `gp_nas`.

    The latter two train the supernet along random networks for as many weight steps, and then evaluate
    `num_evaluations` networks with its weights: random ones, or those that a Gaussian process chooses.
    """

    space: Annotated[
        str,
        AfterValidator(SPACES.check),
        Origin("TF-NAS, search space; small32, micro, nano and the variants of paper are not in it"),
    ]
    """Macro space: `paper` (224x224), `small32` (32x32), `micro` (28x28), or one of the variants of `paper`.

    `nano` (28x28) has 400 networks, few enough to train them all, see docs/oracle.md. `paper_no_se` has no
    candidates with squeeze-and-excitation; `paper_no_se_no_swish` has ReLU, and no squeeze-and-excitation,
    everywhere.
    """

    target_latency_ms: Annotated[Positive, Unit("ms"), _TARGET]
    """Latency that the derived network is to have, in ms by the lookup table."""

    latency_table: str = "measure"
    """Path of the lookup table; `measure` measures one on this machine first."""

    latency_batch_size: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | None,
        Unit("images"),
        Needs("latency_table: measure", lambda config: config.latency_table == "measure"),
    ] = None
    """Batch size at which a table is measured; None for 1 on the CPU and 32 on CUDA.

    It has no effect if `latency_table` is a file.
    """

    sampling: Annotated[str, BeforeValidator(_without_alias), AfterValidator(SAMPLINGS.check), _OPERATORS] = (
        "bi_random"
    )
    """Paths of a weight step: `single`, one path sampled from alpha; or a second one beside it (`bi_*`).

    The second path avoids the first path's operator in every layer. `bi_random` (or `bi`), the paper's
    choice, draws uniformly from the others; `bi_gumbel` draws from alpha; `bi_min` and `bi_max` take the
    lowest and the highest alpha.
    """

    depth: Annotated[Depth, _DEPTH] = "sink"
    """Depth space: `sink`, a learned sum over each stage's layers; `skip`, identity as a candidate."""

    elasticity: Annotated[bool, _WIDTH] = True
    """Whether widths are scaled to the latency target after every joint epoch."""

    derivation: Annotated[
        Literal["argmax", "in_reach"], _ELASTICITY, Origin("argmax: TF-NAS; in_reach: beyond the paper")
    ] = "argmax"
    """Which layers the network keeps that a search ends with: the most probable ones, or those `in_reach`.

    `argmax` is the paper's. In the last epoch, `in_reach` takes the most probable depths (in the skip space:
    layers) that elasticity-scaling brings within 1 % of the target, with not all widths at a bound; where
    there are none, as `argmax`. Without elasticity it has no effect.
    """

    refine_widths: Annotated[bool, _MUST_HAVE_ELASTICITY, _BEYOND] = False
    """Whether elasticity-scaling ends by widening single layers to use the rest (beyond the paper)."""

    objective: Annotated[
        str,
        AfterValidator(OBJECTIVES.check),
        Origin("TF-NAS; FBNet, CVPR 2019; ProxylessNAS, ICLR 2019; lagrangian: LightNAS, DAC 2022"),
    ] = "tfnas"
    """Loss of an architecture step: `tfnas`, `fbnet`, `proxyless_add`, `proxyless_mul`, `lagrangian`."""

    latency_weight: Annotated[NonNegative, _OBJECTIVE] = 0.1
    """Lambda, the weight of the latency term of `tfnas` and `proxyless_add`."""

    objective_scale: Annotated[Positive, Origin("FBNet, CVPR 2019")] = 0.2
    """Factor a of `fbnet` and `proxyless_mul`."""

    objective_exponent: Annotated[Positive | None, Origin("FBNet, CVPR 2019; ProxylessNAS, ICLR 2019")] = None
    """Exponent b of `fbnet` and `proxyless_mul`; None for the published 0.6 and 0.3."""

    latency_multiplier_lr: Annotated[Positive, Origin("LightNAS, DAC 2022")] = 5e-4
    """Rate of `lagrangian`: each architecture step adds it, times latency / target - 1, to lambda.

    The default is LightNAS's, for long searches. Fewer steps need a higher rate: 0.03 for 300 of them.
    """

    seed: Seed = 0
    """Seeds the split, the initial weights, the batches and the sampling."""

    num_epochs: Annotated[PositiveInt, Unit("epochs"), _PROTOCOL] = 90
    """Number of epochs, warm-up included."""

    num_warmup_epochs: Annotated[NonNegativeInt, Unit("epochs"), _PROTOCOL] = 10
    """Number of first epochs that train only weights, on one sampled path; fewer than `num_epochs`."""

    batch_size: Annotated[PositiveInt, Unit("images"), _PROTOCOL] = 32
    """Images per step, for weight and architecture steps alike."""

    arch_fraction: Annotated[float, Field(gt=0, lt=1), _PROTOCOL, _ONE_LIST] = 0.2
    """Share of the training images held out for architecture steps, stratified by class."""

    num_evaluations: Annotated[
        int, Field(ge=20, le=1000, multiple_of=10), Unit("networks"), _OTHER_METHODS
    ] = 100
    """Networks that `random` and `gp_nas` evaluate after training, in rounds of 10."""

    evaluation_sample: Annotated[
        Literal["mutual_information", "random"],
        Origin("mutual information: Krause, Singh and Guestrin, JMLR 2008"),
    ] = "mutual_information"
    """How `gp_nas` chooses what to evaluate before its last round, which has the ten best predicted networks.

    `mutual_information` takes those that tell most about the others; `random` the same as `random` search.
    """

    weight_steps_per_arch_step: Annotated[PositiveInt, Unit("steps"), _PROTOCOL] = 2
    """Weight steps per architecture step in joint epochs."""

    weight_lr: Annotated[Positive, _PROTOCOL] = 0.025
    """Initial learning rate of the weights' SGD; a cosine over all epochs takes it to 0."""

    weight_momentum: Annotated[Fraction, _PROTOCOL] = 0.9
    """Momentum of the weights' SGD."""

    weight_decay: Annotated[NonNegative, _PROTOCOL] = 1e-5
    """L2 penalty on the weights."""

    arch_lr: Annotated[Positive, _PROTOCOL] = 0.01
    """Learning rate of the architecture parameters' Adam, see `arch_lr_schedule`."""

    arch_lr_schedule: Annotated[
        Literal["constant", "cosine"], Origin("constant: TF-NAS; cosine: beyond the paper")
    ] = "constant"
    """How `arch_lr` changes over the joint epochs: `constant`, as published, or a `cosine` to 0.

    Short searches need a high rate, under which alpha and beta still jump in the last epoch; the cosine calms
    them.
    """

    arch_beta1: Annotated[Fraction, _PROTOCOL] = 0.5
    """Adam's first decay rate."""

    arch_beta2: Annotated[Fraction, _PROTOCOL] = 0.999
    """Adam's second decay rate."""

    arch_weight_decay: Annotated[NonNegative, _PROTOCOL] = 5e-4
    """L2 penalty on the architecture parameters."""

    grad_clip_norm: Annotated[Positive, _PROTOCOL] = 5.0
    """L2 norm to which gradients are clipped, of weights and of architecture parameters."""

    initial_temperature: Annotated[Positive, _PROTOCOL] = 5.0
    """Temperature of the Gumbel softmax up to and including the first joint epoch."""

    final_temperature: Annotated[Positive | None, _BEYOND] = None
    """Temperature of the last epoch, at most `initial_temperature`; it falls by the same factor each epoch.

    None: the temperature falls by `temperature_decay`. Prefer this field where the number of epochs changes.
    """

    temperature_decay: Annotated[
        float,
        Field(gt=0, le=1),
        _PROTOCOL,
        Needs("final_temperature: null", lambda config: config.final_temperature is None),
    ] = 0.96
    """Factor on the temperature after each joint epoch, as published: it ends at 0.2 after 80 of them.

    It has no effect if `final_temperature` is set.
    """

    reset_optimizers_each_epoch: Annotated[bool, Origin("published implementation of TF-NAS")] = False
    """Whether both optimizers start afresh each epoch, as in the published implementation."""

    device: DeviceName = "auto"
    """`auto` (CUDA if available), `cpu`, `cuda`, or `cuda:N` among the GPUs in `CUDA_VISIBLE_DEVICES`.

    In a grid, `auto` is CUDA if trials reserve a GPU or a part of one.
    """

    mixed_precision: bool = False
    """Whether the supernet runs under autocast to bfloat16.

    Weights, optimizers and architecture parameters stay in float32. Meant for GPUs: the compiled CPU
    kernels compute in float32 only.
    """

    deterministic: Annotated[bool, Needs("a GPU", lambda config: config.device != "cpu")] = False
    """Whether torch is limited to deterministic algorithms, so that a search repeats exactly on a GPU.

    On the CPU it always does, and this has no effect.
    """

    num_threads: Annotated[Threads, Unit("threads")] = 1
    """CPU threads of a search. Results are equal to the bit for equal numbers of threads only."""

    kernels: Annotated[Literal["auto", "torch", "recompute", "cuda_graphs", "compiled"], _BEYOND] = "auto"
    """What computes the mixed blocks: `torch`, or what is faster: `cuda_graphs`, or `compiled` CPU loops.

    `auto` is `cuda_graphs` on a GPU, and `compiled` where that can run: in float32, on the CPU, with
    tfnas[kernels] installed. Both agree with `torch` to rounding. `recompute` is `torch` in a fraction of the
    memory, for GPUs that lack it: each layer runs a second time in the backward pass. A resumed search keeps
    what it began with where it can.
    """

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.kernels == "compiled" and self.device.startswith("cuda"):
            raise ValueError(f"kernels: compiled kernels run on the CPU, not on '{self.device}'; use auto")
        if self.kernels == "cuda_graphs" and self.device == "cpu":
            raise ValueError("kernels: CUDA graphs run on a GPU, not on the CPU; use auto")
        if self.kernels == "compiled" and self.mixed_precision:
            raise ValueError("kernels: compiled kernels compute in float32, not in mixed precision; use auto")
        ignored = METHODS[self.method].ignored_fields
        if "num_warmup_epochs" not in ignored and self.num_warmup_epochs >= self.num_epochs:
            raise ValueError(
                f"num_warmup_epochs: {self.num_warmup_epochs}; must be below num_epochs ({self.num_epochs}), "
                "or nothing is searched"
            )
        for name, default in parameters_of(self.objective).items():
            if name not in type(self).model_fields and default is None:
                where = f"objective: '{self.objective}' reads '{name}'"
                raise ValueError(f"{where}, which is no config field and has no default")
        if self.arch_list and self.arch_fraction != type(self).model_fields["arch_fraction"].default:
            raise ValueError("arch_fraction: has no effect with arch_list; remove one of the two")
        if "final_temperature" not in ignored and self.final_temperature is not None:
            self._check_final_temperature(self.final_temperature)
        if self.refine_widths and not self.elasticity:
            raise ValueError("refine_widths: has no effect without elasticity; set elasticity: true")
        return self

    def _check_final_temperature(self, final_temperature: float) -> None:
        if final_temperature > self.initial_temperature:
            raise ValueError(
                f"final_temperature: {final_temperature:g}; must be at most initial_temperature "
                f"({self.initial_temperature:g})"
            )
        if self.temperature_decay != type(self).model_fields["temperature_decay"].default:
            raise ValueError("temperature_decay: has no effect with final_temperature; remove one of the two")
        if self.num_joint_epochs == 1:
            raise ValueError(
                "final_temperature: has no effect on a single joint epoch, which has initial_temperature; "
                "raise num_epochs, or remove it"
            )

    @property
    def num_joint_epochs(self) -> int:
        """Number of epochs after warm-up."""
        return self.num_epochs - self.num_warmup_epochs

    @property
    def phases(self) -> list["Phase"]:
        """The phase of each epoch, by the method; rounds of evaluation count as epochs."""
        return METHODS[self.method].phases(self)

    @property
    def temperature_factor(self) -> float:
        """Factor on the temperature after each joint epoch."""
        if self.final_temperature is None:
            return self.temperature_decay
        ratio = self.final_temperature / self.initial_temperature
        # The dry run times a single joint epoch, which ends before the first decay.
        return float(ratio ** (1 / max(self.num_joint_epochs - 1, 1)))

    def objective_fields(self) -> dict[str, Any]:
        """The fields that the objective reads; those that are None have the objective's default."""
        read = {name: getattr(self, name, None) for name in parameters_of(self.objective)}
        return {
            name: default if read[name] is None else read[name]
            for name, default in parameters_of(self.objective).items()
        }

    @property
    def is_target_used(self) -> bool:
        """Whether the target steers the search; without, only the reported error depends on it."""
        return self.elasticity or depends_on_target(self.objective, self.objective_fields())

    def as_searched(self) -> Self:
        """With defaults for all fields that the method ignores, so that they cannot have an effect."""
        fields = type(self).model_fields
        ignored = METHODS[self.method].ignored_fields
        return self.model_copy(update={name: fields[name].default for name in ignored})

    def unused_fields(self) -> set[str]:
        """Fields that have no effect in this combination."""
        unused = {field for field in OBJECTIVE_FIELDS if field not in parameters_of(self.objective)}
        if not has_multiplier(self.objective):
            unused.add("latency_multiplier_lr")
        for name, field in type(self).model_fields.items():
            needs = note_of(field, Needs)
            if needs is not None and not needs.is_required and not needs.is_met(self):
                unused.add(name)
        if self.final_temperature is None:
            unused.add("final_temperature")
        return unused | METHODS[self.method].ignored_fields

    def ineffective_fields(self) -> list[str]:
        """Fields that are set and have no effect in this combination, for a warning.

        Not those that must be set.
        """
        unused = self.unused_fields() & self.model_fields_set
        return sorted(name for name in unused if not type(self).model_fields[name].is_required())


class TrainConfig(DataConfig):
    """Everything that determines the training of one network from scratch.

    Source: TF-NAS, retraining of derived networks; defaults are the published protocol.

    Raises:
        ValueError: an unknown field, a wrong type, an impossible value or combination.
    """

    architecture: str
    """Path of an architecture file, or a name.

    Names: `tf-nas-a`, the published network; and of torchvision `efficientnet_b0`, `mobilenet_v3_large`,
    `mobilenet_v2`, `mnasnet1_0`.
    """

    resolution: Annotated[Resolution | None, Unit("pixels")] = None
    """Height and width of the images, in pixels.

    None: for an architecture file, the resolution of its space; for a named network, that of the dataset's
    images (224 for image files).
    """

    seed: Seed = 0
    """Seeds the split, the initial weights, the batches, dropout and drop-connect."""

    num_epochs: Annotated[PositiveInt, Unit("epochs"), _RETRAINING] = 250
    """Number of epochs, warm-up included."""

    num_warmup_epochs: Annotated[NonNegativeInt, Unit("epochs"), _RETRAINING] = 5
    """Number of first epochs in which the learning rate rises linearly."""

    lr_schedule: Annotated[
        Literal["per_epoch", "per_step"],
        Origin("per_epoch: published implementation of TF-NAS; per_step: beyond the paper"),
    ] = "per_epoch"
    """When the learning rate changes.

    `per_epoch`, as published: a cosine over all epochs towards 0, in warm-up times epoch /
    `num_warmup_epochs`.
    `per_step`: it rises to `lr` over warm-up; a cosine over the remaining epochs takes it to 0.
    """

    batch_size: Annotated[PositiveInt, Unit("images"), _RETRAINING] = 512
    """Images per step, over all processes."""

    val_fraction: Annotated[Fraction, _BEYOND] = 0.1
    """Share of the training images held out to choose the best epoch, stratified by class.

    0, as published: nothing is held out, and the test images choose the best epoch. Test accuracies are
    then too high, and marked as selected on test images.
    """

    lr: Annotated[Positive, _RETRAINING] = 0.2
    """Highest learning rate of SGD; see `lr_schedule`."""

    momentum: Annotated[Fraction, _RETRAINING] = 0.9
    """Momentum of SGD."""

    weight_decay: Annotated[NonNegative, _RETRAINING] = 1e-5
    """L2 penalty on all parameters."""

    grad_clip_norm: Annotated[Positive, _RETRAINING] = 5.0
    """L2 norm to which gradients are clipped."""

    label_smoothing: Annotated[Fraction, _RETRAINING] = 0.1
    """Share of the target distribution spread evenly over all classes."""

    dropout: Annotated[Fraction, _RETRAINING] = 0.2
    """Probability of dropout before the classifier."""

    drop_connect: Annotated[Fraction, _RETRAINING] = 0.2
    """Probability of dropping the last residual branch; earlier ones linearly less."""

    ema_decay: Annotated[Fraction | None, _BEYOND] = None
    """Decay per step of a moving average of the weights, which is then evaluated and kept; None for none."""

    mixed_precision: bool = False
    """Whether forward and backward run under autocast to bfloat16."""

    device: DeviceName = "auto"
    """`auto` (CUDA if available), `cpu`, `cuda` or `cuda:N`."""

    num_threads: Annotated[Threads, Unit("threads")] = 1
    """CPU threads of a training. Results are equal to the bit for equal numbers of threads only."""

    @model_validator(mode="after")
    def _has_epochs_after_warmup(self) -> Self:
        if self.num_warmup_epochs >= self.num_epochs:
            raise ValueError(
                f"num_warmup_epochs: {self.num_warmup_epochs}; must be below num_epochs ({self.num_epochs})"
            )
        if self.num_warmup_epochs == 1 and self.lr_schedule == "per_epoch":
            raise ValueError(
                "num_warmup_epochs: 1; has no effect with lr_schedule per_epoch, whose last epoch of warm-up "
                "has the full rate; use 0, 2 or more, or lr_schedule per_step"
            )
        return self
