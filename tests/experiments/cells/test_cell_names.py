"""Names of cells: what sets them apart comes first, and earlier names are known again."""

from experiments.cells.cell_names import join_names, same_parts


def parts(sampling: str, seed: int, **others: str) -> dict[str, str]:
    return {"sampling": sampling, "depth": "sink", **others, "seed": f"s{seed}"}


def test_parts_that_all_share_come_last() -> None:
    grid = [parts(sampling, seed) for sampling in ("single", "bi_random") for seed in (0, 1)]
    assert join_names(grid) == ["single-s0-sink", "single-s1-sink", "bi_random-s0-sink", "bi_random-s1-sink"]


def test_a_single_cell_is_named_in_reading_order() -> None:
    assert join_names([parts("single", 0)]) == ["single-sink-s0"]


def test_short_parts_come_first_where_long_ones_would_hide_them() -> None:
    grid = [parts("bi_random", seed, weight=f"latency_weight={w}") for seed in (0, 1) for w in (0.1, 0.2)]
    names = join_names(grid)
    assert names[0] == "s0-latency_weight=0.1-bi_random-sink"
    assert names[2][:16] != names[0][:16]


def test_a_field_that_marks_the_kind_is_always_first() -> None:
    grid = [{"seed": "t0", "architecture": name} for name in ("a", "b")]
    assert join_names(grid, first="seed") == ["t0-a", "t0-b"]


def test_names_of_earlier_versions_are_known_again() -> None:
    assert same_parts("single-sink-T4.34-s0", "single-s0-sink-T4.34")
    assert same_parts("train-single-sink-T4.34-s0-s1", "t1-single-s0-sink-T4.34")
    assert not same_parts("single-sink-T4.34-s0", "single-sink-T4.34-s1")
    assert not same_parts("train-single-sink-s0-s1", "t0-single-s1-sink")
