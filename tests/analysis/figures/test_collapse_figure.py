"""Operator collapse: what the maps and the summary show, and that they can be read in a column of text."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from analysis.figures.collapse_figure import (
    LeaderBox,
    collapse_drawings,
    collapse_maps,
    leading_boxes,
    lock_in_courses,
    side_by_side,
)
from analysis.figures.ink.style import op_style
from analysis.measures.collapse import EARLY, locked_in_by_step, measure_collapse
from analysis.reading.experiment import Experiment
from tests.support.hand_made import alphas, experiment_of, run, trajectory


def numbers_of(experiment: Experiment):
    return {run.run_id: measure_collapse(run.trajectory) for run in experiment.searched if run.trajectory}


def test_a_map_is_of_one_seed_for_each_setting_and_the_summary_is_of_all(experiment: Experiment):
    settings, numbers = experiment.by_setting(), numbers_of(experiment)
    maps = collapse_maps(experiment, settings, numbers)
    assert [one.title for one in maps] == [f"{experiment.label(runs[0])}, seed 0" for runs in settings]
    courses = lock_in_courses(experiment, settings, numbers)
    assert [len(course.early_N) for course in courses] == [2, 2, 2, 2]
    (drawing,) = collapse_drawings(experiment)
    assert {run.run_id for run in drawing.runs} == {run.run_id for run in experiment.runs}


def test_settings_that_differ_in_sampling_only_stand_side_by_side(experiment: Experiment):
    settings = side_by_side(experiment, experiment.runs)
    assert [experiment.label(runs[0]) for runs in settings] == [
        "single, skip",
        "bi_random, skip",
        "single, sink",
        "bi_random, sink",
    ]


def test_maps_show_the_seed_that_most_settings_have(experiment: Experiment):
    first, *others = experiment.by_setting()
    maps = collapse_maps(experiment, [first[:1], *(runs[1:] for runs in others)], numbers_of(experiment))
    assert [one.run.seed for one in maps] == [0, 1, 1, 1]


def test_a_row_is_thick_from_the_lock_in_on_and_split_where_the_leader_changes():
    course = trajectory(6, num_warmup=2, alpha_ELO=alphas([None, None, 1, 2, 4, 4]))
    boxes = leading_boxes(course.epoch_E, measure_collapse(course))
    first_row = {op: [box for box in of_op if not box.row] for op, of_op in boxes.items()}
    assert first_row == {
        1: [LeaderBox(0, 3, 3, False)],
        2: [LeaderBox(0, 4, 4, False)],
        4: [LeaderBox(0, 5, 6, True)],
    }
    heights = {op: np.ptp([y for _, y in box.corners]) for op, [box] in first_row.items()}
    assert heights[1] == heights[2] < heights[4] / 2


def test_where_identity_leads_a_locked_in_layer_its_operator_is_shown_hatched():
    real_ELO = alphas([1, 2, 4, 4])
    # Identity leads in the last epoch, though the operators have not changed since the one before.
    identity_EL1 = np.full((4, 18, 1), -9.0)
    identity_EL1[-1] = 9.0
    alpha_ELO = np.concatenate([real_ELO, identity_EL1], axis=-1).astype(np.float32)
    course = trajectory(4, depth="skip", alpha_ELO=alpha_ELO)
    experiment = experiment_of([replace(run(space="paper", depth="skip", seed=0), trajectory=course)])
    figure = collapse_drawings(experiment)[0].draw()
    names = experiment.runs[0].space.candidate_names
    looks = {
        (to_hex(boxes.get_facecolor()[0]), boxes.get_hatch() or "")
        for boxes in figure.axes[0].collections
        if len(boxes.get_paths()) == 18
    }
    locked = op_style(names[4]).color
    assert {color for color, hatch in looks if hatch} == {locked}
    assert {color for color, hatch in looks if not hatch} == {op_style(names[op]).color for op in (1, 2, 4)}


def test_a_layer_that_does_not_count_has_no_thick_row():
    derived_EL = np.zeros((4, 18), np.int64)
    derived_EL[-1, 1] = -1
    course = trajectory(4, alpha_ELO=alphas([1, 2, 4, 4]), derived_op_EL=derived_EL)
    boxes = leading_boxes(course.epoch_E, measure_collapse(course))[4]
    assert [box.is_locked_in for box in boxes if box.row < 3] == [True, False, True]


def test_the_summary_passes_at_a_quarter_through_what_the_claim_compares(experiment: Experiment):
    for course in lock_in_courses(experiment, experiment.by_setting(), numbers_of(experiment)):
        num_joint = course.locked_NT.shape[1] - 1
        assert course.locked_NT[:, int(EARLY * num_joint)] == pytest.approx(course.early_N)
        assert (course.locked_NT[:, 0] == 0).all()
        assert (course.locked_NT[:, -1] == 1).all()


def test_layers_are_locked_in_step_by_step():
    course = trajectory(6, num_warmup=2, alpha_ELO=alphas([None, None, 1, 2, 4, 4]))
    assert locked_in_by_step(course, measure_collapse(course)).tolist() == [0, 0, 0, 1, 1]


def test_in_a_column_of_lncs_no_text_is_smaller_than_six_points(experiment: Experiment):
    figure = collapse_drawings(experiment)[0].draw()
    assert figure.get_size_inches()[0] == pytest.approx(4.8)
    assert figure.get_size_inches()[1] < 7.6
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6


def test_the_warm_up_is_a_narrow_strip(experiment: Experiment):
    axes = collapse_drawings(experiment)[0].draw().axes[0]
    left, right = axes.get_xlim()
    assert (right, left) == (16.5, pytest.approx(3.5 - 0.05 * 13))
    assert min(axes.get_xticks()) > 3
