"""GP-NAS: what it evaluates in which round."""

from pathlib import Path

import numpy as np

from nas.config import SearchConfig
from nas.search.candidate_pool import draw_pool
from nas.search.methods.gp_nas import encode
from nas.search.predictor import AccuracyPredictor, choose_informative, make_kernel
from nas.search.records import EpochRecord, Evaluation
from nas.search.search import run_search
from nas.space.architecture import Architecture
from tests.support.tiny import TINY, make_config, make_dense_table

TABLE = make_dense_table(TINY)


def config_of(**fields: object) -> SearchConfig:
    return make_config(**{"method": "gp_nas", "num_epochs": 3, "num_evaluations": 40} | fields)


def search(config: SearchConfig, warmups: Path | None = None) -> list[EpochRecord]:
    return list(run_search(config, table=TABLE, warmups_dir=warmups))


def evaluations_of(records: list[EpochRecord]) -> list[Evaluation]:
    return [each for record in records for each in record.evaluations]


def networks_of(records: list[EpochRecord]) -> list[Architecture]:
    return [each.architecture for each in evaluations_of(records)]


def codes_of(pool: list[Architecture]) -> np.ndarray:
    codes_NF = np.array([encode(architecture) for architecture in pool])
    return codes_NF[:, codes_NF.std(axis=0) > 0]


def test_the_last_round_evaluates_the_ten_networks_that_are_predicted_best() -> None:
    config = config_of()
    evaluations, pool = evaluations_of(search(config)), draw_pool(config, TABLE)
    known = [pool.index(each.architecture) for each in evaluations[:30]]
    accuracies_N = np.array([each.val_accuracy for each in evaluations[:30]])
    scores_N = AccuracyPredictor().fit(codes_of(pool)[known], accuracies_N).predict(codes_of(pool))
    others = [index for index in np.argsort(-scores_N, kind="stable") if index not in known]
    assert [each.architecture for each in evaluations[30:]] == [pool[index] for index in others[:10]]
    assert [each.predicted_score for each in evaluations[30:]] == [scores_N[index] for index in others[:10]]


def test_until_then_it_evaluates_what_tells_most_about_the_others() -> None:
    config = config_of()
    pool = draw_pool(config, TABLE)
    codes_NF = codes_of(pool)[:250]
    chosen = choose_informative(codes_NF, 30, make_kernel())
    assert networks_of(search(config))[:30] == [pool[index] for index in chosen]


def test_a_random_sample_is_what_random_search_evaluates() -> None:
    sampled = networks_of(search(config_of(evaluation_sample="random")))
    drawn = networks_of(search(config_of(method="random")))
    assert sampled[:30] == drawn[:30]
    assert sampled[30:] != drawn[30:]


def test_the_rank_correlation_of_the_predictor_is_logged_from_the_second_round_on() -> None:
    records = search(config_of())
    has_tau = ["predictor_tau" in record.metrics for record in records]
    assert has_tau == [False] * 4 + [True] * 3
    for record in records[4:]:
        low, tau, high = (record.metrics[f"predictor_tau{end}"] for end in ("_low", "", "_high"))
        assert -1 <= low <= tau <= high <= 1


def test_networks_that_differ_in_an_operator_or_a_depth_have_other_codes_whatever_their_widths() -> None:
    pool = draw_pool(config_of(), TABLE)
    assert len({tuple(encode(architecture)) for architecture in pool}) == len(pool)
    _, op, width = pool[0].layers[0]
    low, high = op.width_interval(pool[0].layers[0][0].in_channels)
    widths = [other for _, _, other in pool[0].layers]
    changed = pool[0].with_widths([low if width == high else high, *widths[1:]])
    assert encode(changed) == encode(pool[0])


def test_it_shares_all_its_training_with_random_search(tmp_path: Path) -> None:
    search(config_of(method="random"), tmp_path)
    records = search(config_of(), tmp_path)
    assert [record.is_shared for record in records] == [True] * 3 + [False] * 4
