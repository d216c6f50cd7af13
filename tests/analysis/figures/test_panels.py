"""Which settings are shown where there is no room for all."""

import itertools

from analysis.figures.ink.panels import WHOLE_METHOD, choose_settings
from analysis.reading.shown import Shown
from nas.config import SearchConfig
from tests.support.hand_made import experiment_of, run

SAMPLINGS, DEPTHS = ("single", "bi_random", "bi_gumbel"), ("skip", "sink")
RUNS = [
    run(sampling=sampling, depth=depth, seed=0) for sampling, depth in itertools.product(SAMPLINGS, DEPTHS)
]


def chosen(num: int, order: tuple[str, ...] = ()) -> list[str]:
    experiment = experiment_of(RUNS).showing(Shown(order=order))
    settings = choose_settings(experiment, experiment.by_setting(), num)
    return [experiment.label(runs[0]) for runs in settings]


def test_the_whole_method_comes_first_then_what_differs_from_it_in_one_factor():
    assert chosen(1) == ["bi_random, sink"]
    assert chosen(4) == ["single, sink", "bi_random, skip", "bi_random, sink", "bi_gumbel, sink"]
    assert len(chosen(6)) == 6


def test_with_an_order_the_first_settings_of_it_are_shown():
    assert chosen(2, ("skip", "bi_gumbel")) == chosen(6, ("skip", "bi_gumbel"))[:2]


def test_the_whole_method_is_the_default_of_a_search():
    defaults = {name: SearchConfig.model_fields[name].default for name in WHOLE_METHOD}
    assert defaults == WHOLE_METHOD
