from pathlib import Path

import numpy as np
from PIL import Image

from analysis.figures.regret_figure import regret_courses, save_regrets

# Two seeds of four evaluations would not tell quartiles from the range.
POINTS_SV = np.array([[4.0, 2.0, 2.0], [3.0, 3.0, 0.0], [1.0, 1.0, 1.0], [2.0, 0.5, 0.5], [9.0, 0.0, 0.0]])


def test_line_and_band_are_median_and_quartiles_over_seeds() -> None:
    (course,) = regret_courses({"random": POINTS_SV})
    # Of five values in order, the second, third and fourth.
    low, median, high = np.sort(POINTS_SV, axis=0)[1:4]
    np.testing.assert_array_equal(course.low_V, low)
    np.testing.assert_array_equal(course.median_V, median)
    np.testing.assert_array_equal(course.high_V, high)


def test_the_figure_is_written_for_screen_print_and_web_one_column_wide(tmp_path: Path) -> None:
    courses = regret_courses({"random": POINTS_SV, "gp_nas": POINTS_SV / 10})
    paths = save_regrets(courses, {"relaxation": 0.05}, "a table", tmp_path)
    assert [path.name for path in paths] == [f"regret-by-evaluations.{end}" for end in ("png", "pdf", "svg")]
    with Image.open(paths[0]) as image:
        assert image.width == 3.5 * 300
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert b"<svg" in paths[2].read_bytes()
