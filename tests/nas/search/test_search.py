"""A whole search: what each step and epoch changes, repeatability, resuming, and what it refuses."""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas.config import SearchConfig
from nas.foundation.errors import DivergedError, InputWarning, UserError
from nas.search.records import (
    FINAL_METRIC_NAMES,
    METRIC_NAMES,
    STEP_METRIC_NAMES,
    SUPERNET_FINAL_METRIC_NAMES,
    SUPERNET_METRIC_NAMES,
    EpochRecord,
    Trajectory,
)
from nas.search.search import Search, run_search
from nas.space.architecture import Architecture
from nas.supernet.sampling import SAMPLINGS, sample_first_path
from nas.supernet.steps import SearchSteps
from tests.support.tiny import (
    NUM_CLASSES,
    SKIP,
    TINY,
    assert_identical,
    make_config,
    make_dense_table,
    make_images,
    make_supernet,
)

TABLE = make_dense_table(TINY)
ALL_METRIC_NAMES = {
    *(*METRIC_NAMES, *SUPERNET_METRIC_NAMES, *STEP_METRIC_NAMES),
    *(*FINAL_METRIC_NAMES, *SUPERNET_FINAL_METRIC_NAMES),
}

NUM_STEPS = 4
"""Weight steps in an epoch of `make_config`."""


def search(config: SearchConfig, folder: Path | None = None) -> list[EpochRecord]:
    return list(run_search(config, table=TABLE, checkpoint_dir=folder))


# Steps


def copies(parameters: list[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def are_equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def labelled_images(seed: int) -> tuple[Tensor, Tensor]:
    return make_images(TINY, seed=seed), torch.arange(8) % NUM_CLASSES


@pytest.fixture(params=["sink", "skip"])
def steps(request: pytest.FixtureRequest) -> SearchSteps:
    return SearchSteps(make_supernet(TINY, request.param), make_config(depth=request.param), TABLE)


def test_weight_steps_leave_alpha_and_beta_untouched(steps: SearchSteps) -> None:
    supernet, generator = steps.supernet, torch.Generator().manual_seed(0)
    arch_before = copies(supernet.arch_parameters())
    weights_before = copies(supernet.weight_parameters())
    for seed in range(3):
        log_alpha_LO = supernet.log_alpha().detach()
        first_L = sample_first_path(log_alpha_LO, generator)
        second_L = SAMPLINGS["bi_random"](log_alpha_LO, first_L, generator)
        assert second_L is not None
        steps.weight_step(*labelled_images(seed), [first_L.tolist(), second_L.tolist()])
    assert are_equal(copies(supernet.arch_parameters()), arch_before)
    assert not are_equal(copies(supernet.weight_parameters()), weights_before)


def test_architecture_steps_leave_weights_untouched(steps: SearchSteps) -> None:
    supernet, generator = steps.supernet, torch.Generator().manual_seed(0)
    arch_before = copies(supernet.arch_parameters())
    weights_before = copies(supernet.weight_parameters())
    for seed in range(3):
        steps.arch_step(*labelled_images(seed), 5.0, generator)
    assert are_equal(copies(supernet.weight_parameters()), weights_before)
    for before, after in zip(arch_before, copies(supernet.arch_parameters()), strict=True):
        assert not torch.equal(before, after)


def test_an_architecture_step_between_does_not_change_a_weight_step(steps: SearchSteps) -> None:
    """Neither kind of step leaves gradients behind for the other."""
    other = SearchSteps(
        make_supernet(TINY, steps.supernet.depth), make_config(depth=steps.supernet.depth), TABLE
    )
    path = [layer % 8 for layer in range(len(TINY.layers))]
    steps.arch_step(*labelled_images(1), 5.0, torch.Generator())
    with torch.no_grad():
        for after, before in zip(
            steps.supernet.arch_parameters(), other.supernet.arch_parameters(), strict=True
        ):
            after.copy_(before)
    for each in (steps, other):
        each.weight_step(*labelled_images(2), [path])
    assert are_equal(steps.supernet.weight_parameters(), other.supernet.weight_parameters())


def test_the_arch_lr_falls_by_a_cosine_over_the_joint_epochs_alone() -> None:
    fields = {"num_epochs": 6, "num_warmup_epochs": 2, "arch_lr": 0.1}
    for schedule, expected in (
        ("constant", [0.1] * 6),
        ("cosine", [0.1, 0.1, 0.1, 0.1 * (2 + 2**0.5) / 4, 0.05, 0.1 * (2 - 2**0.5) / 4]),
    ):
        steps = SearchSteps(
            make_supernet(TINY, "sink"), make_config(**fields, arch_lr_schedule=schedule), TABLE
        )
        assert [steps.set_arch_lr(epoch) for epoch in range(1, 7)] == pytest.approx(expected)
        assert steps.arch_optimizer.param_groups[0]["lr"] == pytest.approx(expected[-1])


@pytest.mark.parametrize("num_epochs", [3, 7])
def test_the_temperature_ends_where_the_config_says_however_many_epochs(num_epochs: int) -> None:
    fields = {"num_epochs": num_epochs, "num_warmup_epochs": 1, "initial_temperature": 4.0}
    temperatures = [
        record.metrics["temperature"] for record in search(make_config(**fields, final_temperature=0.5))
    ]
    assert temperatures[0] == 4.0
    assert temperatures[1:] == pytest.approx(np.geomspace(4.0, 0.5, num_epochs - 1))


# Epochs


def test_a_warm_up_epoch_trains_one_path_a_step_and_no_architecture_parameter() -> None:
    record = Search(make_config(), TABLE).run_epoch()
    assert record.phase == "warmup"
    assert "arch_loss" not in record.metrics
    assert (record.arrays["train_count_ELO"].sum(-1) == NUM_STEPS).all()
    assert np.allclose(np.exp(record.arrays["alpha_ELO"]), 1 / SKIP)


@pytest.mark.parametrize(("sampling", "num_paths"), [("single", 1), ("bi_random", 2)])
def test_a_joint_epoch_trains_the_paths_of_its_sampling(sampling: str, num_paths: int) -> None:
    record = search(make_config(num_epochs=1, num_warmup_epochs=0, sampling=sampling))[0]
    assert record.phase == "joint"
    assert set(record.metrics) == ALL_METRIC_NAMES
    assert (record.arrays["train_count_ELO"].sum(-1) == num_paths * NUM_STEPS).all()
    assert not np.allclose(np.exp(record.arrays["alpha_ELO"]), 1 / SKIP)


@pytest.mark.parametrize(
    ("weight_steps_per_arch_step", "order"), [(1, "wawawawa"), (2, "wwawwa"), (3, "wwwaw"), (4, "wwwwa")]
)
def test_an_architecture_step_follows_every_so_many_weight_steps(
    weight_steps_per_arch_step: int, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for name in ("weight_step", "arch_step"):
        step = getattr(SearchSteps, name)

        def note(self: SearchSteps, *args: object, step=step, letter=name[0]) -> object:  # type: ignore[no-untyped-def]
            seen.append(letter)
            return step(self, *args)

        monkeypatch.setattr(SearchSteps, name, note)
    config = make_config(weight_steps_per_arch_step=weight_steps_per_arch_step, num_warmup_epochs=0)
    Search(config, TABLE).run_epoch()
    assert "".join(seen) == order


def test_epochs_without_an_architecture_step_are_refused() -> None:
    with pytest.raises(UserError, match=r"weight_steps_per_arch_step: 5; an epoch has 4 weight steps, so"):
        Search(make_config(weight_steps_per_arch_step=5), TABLE)


def test_learning_rate_and_temperature_follow_the_protocol() -> None:
    records = search(make_config(num_epochs=5, num_warmup_epochs=2))
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
    for record in records:
        assert record.metrics["weight_lr"] == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        scheduler.step()
    temperatures = [record.metrics["temperature"] for record in records]
    assert temperatures == pytest.approx([5.0, 5.0, 5.0, 5.0 * 0.96, 5.0 * 0.96**2])


def test_alphas_and_betas_are_log_probabilities_in_every_record() -> None:
    for record in search(make_config()):
        for name in ("alpha_ELO", "beta_ESD"):
            sums = np.exp(record.arrays[name]).sum(-1)
            assert np.allclose(sums, 1, atol=1e-5)


def test_records_agree_with_their_table_and_among_themselves() -> None:
    for record in search(make_config()):
        latency_ms = TABLE.latency_ms(record.architecture)
        assert record.metrics["derived_latency_ms"] == pytest.approx(latency_ms)
        assert record.metrics["latency_error_percent"] == pytest.approx((latency_ms / 2.3 - 1) * 100)
        assert record.metrics["derived_depth"] == record.architecture.depth
        kept = record.arrays["derived_op_EL"] >= 0
        assert kept.sum() == record.architecture.depth
        widths_L = record.arrays["mid_channels_ELO"][kept, record.arrays["derived_op_EL"][kept]]
        assert widths_L.tolist() == [width for _, _, width in record.architecture.layers]


def test_a_joint_epoch_ends_with_the_derived_network_at_its_target() -> None:
    # Every network of the space can be that fast: the slowest takes 2.54 ms at its lowest widths.
    records = search(make_config(num_epochs=6, refine_widths=True, target_latency_ms=2.6))
    scaled = [record for record in records if record.phase == "joint"]
    for record in scaled:
        phases_ms = record.arrays["scaling_ms_EP"]
        assert phases_ms[np.isfinite(phases_ms)][-1] == pytest.approx(record.metrics["derived_latency_ms"])
        highest_ms = TABLE.latency_ms(_at_highest_widths(record.architecture))
        assert record.metrics["derived_latency_ms"] <= 2.6
        # Short of the target only where every width is at its bound.
        assert record.metrics["latency_error_percent"] > -2 or highest_ms < 2.6


def _at_highest_widths(architecture: Architecture) -> Architecture:
    return architecture.with_widths(
        [op.width_interval(layer.in_channels)[1] for layer, op, _ in architecture.layers]
    )


def test_only_the_derived_operators_widths_change() -> None:
    records = search(make_config())
    for before, after in itertools.pairwise(records):
        changed_LO = before.arrays["mid_channels_ELO"] != after.arrays["mid_channels_ELO"]
        derived_LO = np.zeros_like(changed_LO)
        kept = after.arrays["derived_op_EL"] >= 0
        derived_LO[kept, after.arrays["derived_op_EL"][kept]] = True
        assert not (changed_LO & ~derived_LO).any()
    assert (records[0].arrays["mid_channels_ELO"] != records[-1].arrays["mid_channels_ELO"]).any()


@pytest.mark.parametrize("depth", ["sink", "skip"])
def test_the_trajectory_of_a_search_is_read_as_it_was_written(depth: str, tmp_path: Path) -> None:
    trajectory = Trajectory.of(TINY.name, depth, search(make_config(depth=depth, num_epochs=2)))
    trajectory.save(tmp_path / "trajectory.npz")
    for name, array in vars(Trajectory.load(tmp_path / "trajectory.npz")).items():
        assert np.array_equal(array, getattr(trajectory, name), equal_nan=name == "scaling_ms_EP"), name


def test_an_encoding_is_redundant_where_the_skip_space_has_others_for_its_network() -> None:
    records = search(make_config(depth="skip", num_epochs=6, arch_lr=0.5, elasticity=False))
    trajectory = Trajectory.of(TINY.name, "skip", records)
    can_skip_L = np.array([layer.keeps_shape for layer in TINY.layers])
    stages_L = np.array([layer.stage for layer in TINY.layers])
    for ops_L, is_redundant in zip(trajectory.derived_op_EL, trajectory.redundant_E, strict=True):
        runs = [ops_L[can_skip_L & (stages_L == stage)] for stage in range(len(TINY.stages))]
        assert is_redundant == any(0 < (run == -1).sum() < len(run) for run in runs)
    assert not any(record.arrays["redundant_E"] for record in search(make_config()))


# Optimisers


def test_optimisers_are_built_anew_each_epoch_only_if_the_config_says_so() -> None:
    kept, rebuilt = (
        search(make_config(num_epochs=2, num_warmup_epochs=0, reset_optimizers_each_epoch=reset))
        for reset in (False, True)
    )
    assert_identical(kept[:1], rebuilt[:1])
    assert kept[1].arrays["alpha_ELO"].tobytes() != rebuilt[1].arrays["alpha_ELO"].tobytes()


def momenta(run: Search) -> list[torch.Tensor]:
    return [state["momentum_buffer"] for state in run.method._steps.weight_optimizer.state.values()]


def test_a_rebuilt_optimiser_has_no_momentum() -> None:
    run = Search(make_config(), TABLE)
    run.run_epoch()
    assert any(momentum.any() for momentum in momenta(run))
    run.method._steps.reset_optimizers()
    assert not any(momentum.any() for momentum in momenta(run))
    assert not run.method._steps.arch_optimizer.state


# Repeatability


@pytest.mark.parametrize("depth", ["sink", "skip"])
def test_the_same_seed_twice_gives_the_same_search_to_the_last_bit(depth: str) -> None:
    config = make_config(depth=depth)
    first, second = search(config), search(config)
    assert_identical(first, second)
    others = search(make_config(depth=depth, seed=1))
    assert first[-1].arrays["alpha_ELO"].tobytes() != others[-1].arrays["alpha_ELO"].tobytes()


def test_global_random_state_does_not_matter() -> None:
    torch.manual_seed(1)
    first = search(make_config())
    torch.manual_seed(2)
    assert_identical(first, search(make_config()))


@pytest.mark.parametrize("depth", ["sink", "skip"])
def test_a_search_resumed_after_any_epoch_ends_as_if_never_interrupted(depth: str, tmp_path: Path) -> None:
    config = make_config(depth=depth, num_epochs=3)
    whole = search(config)
    for num_done in range(1, config.num_epochs + 1):
        folder = tmp_path / str(num_done)
        interrupted: Iterator[EpochRecord] = run_search(config, table=TABLE, checkpoint_dir=folder)
        for _ in range(num_done):
            next(interrupted)
        assert_identical(search(config, folder), whole)


def test_cells_that_differ_in_sampling_see_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Tensor]] = {"single": [], "bi_max": []}
    weight_step = SearchSteps.weight_step
    for sampling, batches in seen.items():

        def record_batch(self: SearchSteps, images: Tensor, *rest: object, kept=batches) -> object:  # type: ignore[no-untyped-def]
            kept.append(images.clone())
            return weight_step(self, images, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(SearchSteps, "weight_step", record_batch)
        search(make_config(num_epochs=2, sampling=sampling))
    assert are_equal(seen["single"], seen["bi_max"])
    assert len(seen["single"]) == 2 * NUM_STEPS


# What is refused


def test_a_target_that_no_network_has_is_refused_before_anything_runs() -> None:
    with pytest.raises(
        UserError, match=r"target_latency_ms: 50 is out of reach: networks of 'tiny' take 2\."
    ):
        Search(make_config(target_latency_ms=50.0), TABLE)


def test_a_table_of_another_space_is_refused() -> None:
    table = TABLE.model_copy(update={"space": "micro"})
    with pytest.raises(UserError, match="is of space 'micro', the search of 'tiny'"):
        Search(make_config(), table)


@pytest.mark.parametrize("objective", ["fbnet", "proxyless_mul"])
def test_logarithms_of_latencies_below_1_ms_are_refused(objective: str) -> None:
    table = make_dense_table(TINY, base_ms=0.5)
    with pytest.raises(UserError, match=f"objective: '{objective}' is undefined at"):
        Search(make_config(objective=objective, target_latency_ms=0.8), table)
    Search(make_config(target_latency_ms=0.8), table)


def test_a_search_that_diverges_says_in_which_epoch_and_by_what() -> None:
    with pytest.raises(DivergedError, match=r"epoch \d: .* is (nan|inf)"):
        search(make_config(weight_lr=1e30, weight_decay=1.0))


def test_image_files_that_are_left_out_are_counted_each_epoch(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for label in range(2):
        folder = tmp_path / "train" / str(label)
        folder.mkdir(parents=True)
        for index in range(26):
            pixels = generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    (tmp_path / "train" / "0" / "broken.png").write_bytes(b"no image")
    records = search(
        make_config(
            dataset="image_folder",
            data_dir=tmp_path,
            max_train_images=None,
            skip_broken_images=True,
            num_epochs=2,
        )
    )
    assert [record.metrics["num_skipped_images"] for record in records] == [1, 1]


def test_a_field_without_an_effect_gives_a_warning(tmp_path: Path) -> None:
    TABLE.save(tmp_path / "table.json")
    given = {"latency_table": str(tmp_path / "table.json")}
    for fields, name in (
        ({"latency_weight": 0.3, "objective": "fbnet"}, "latency_weight"),
        ({"latency_weight": 0.3, "objective": "lagrangian"}, "latency_weight"),
        ({"latency_multiplier_lr": 0.3}, "latency_multiplier_lr"),
        ({"deterministic": True}, "deterministic"),
        ({"latency_batch_size": 3}, "latency_batch_size"),
    ):
        with pytest.warns(InputWarning, match=f"^{name}: has no effect on this search$"):
            next(run_search(make_config(**given | fields)))


def test_what_has_an_effect_or_must_be_set_gives_no_warning(tmp_path: Path) -> None:
    """Nor what a launch says already: it hands over the table that it measured."""
    TABLE.save(tmp_path / "table.json")
    given = {"latency_table": str(tmp_path / "table.json")}
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        next(run_search(make_config(**given, latency_weight=0.0)))
        next(run_search(make_config(**given, objective="fbnet", elasticity=False)))
        next(run_search(make_config(**given, objective="lagrangian", latency_multiplier_lr=0.3)))
        next(run_search(make_config(**given, latency_batch_size=3), table=TABLE))


@pytest.mark.parametrize(("target_ms", "sign"), [(2.2, 1), (2.5, -1)])
def test_a_learned_multiplier_brings_the_expected_latency_to_a_target_on_either_side(
    target_ms: float, sign: int
) -> None:
    config = make_config(
        objective="lagrangian",
        latency_multiplier_lr=0.5,
        target_latency_ms=target_ms,
        elasticity=False,
        seed=1,
        num_epochs=10,
        num_warmup_epochs=0,
        weight_steps_per_arch_step=1,
        arch_lr=0.1,
        max_train_images=100,
        augmentation="none",
    )
    records = search(config)
    excess = [record.metrics["expected_latency_ms"] / target_ms - 1 for record in records]
    assert sign * excess[0] > 0.04
    assert abs(excess[-1]) < 0.02
    assert sign * records[-1].metrics["latency_multiplier"] > 0.1


def test_a_multiplier_that_explodes_is_found_in_the_epoch_in_which_it_does() -> None:
    # In the only architecture step of the epoch, whose loss is still finite.
    fields = {"objective": "lagrangian", "latency_multiplier_lr": 1e300, "weight_steps_per_arch_step": 4}
    with pytest.raises(DivergedError, match=r"epoch 2: latency_multiplier is -?inf"):
        search(make_config(**fields, elasticity=False))


def test_a_target_that_nothing_reads_changes_no_alpha() -> None:
    """As said by `is_target_used`; and where it is used, alphas change."""
    for fields, is_used in (
        ({"objective": "fbnet", "elasticity": False}, False),
        ({"latency_weight": 0.0, "elasticity": False}, False),
        ({"latency_weight": 0.3, "elasticity": False}, True),
        ({"objective": "proxyless_mul", "elasticity": False}, True),
        ({"objective": "lagrangian", "elasticity": False}, True),
    ):
        configs = [make_config(num_epochs=2, target_latency_ms=target, **fields) for target in (2.3, 2.9)]
        alphas = [search(config)[-1].arrays["alpha_ELO"].tobytes() for config in configs]
        assert [config.is_target_used for config in configs] == [is_used] * 2
        assert (alphas[0] != alphas[1]) == is_used
