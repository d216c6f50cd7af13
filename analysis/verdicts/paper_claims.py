"""The claims of the paper, and one that sets its width level against a rival, as records.

They were fixed before any result was seen and are explained in docs/claims.md. Claim (c), that the
sink-connecting space has no redundant encodings, is a property of the space and not a matter of statistics:
see `analysis.verdicts.redundant_encodings`.

Source: TF-NAS, the three search freedoms and their remedies; the rival is LightNAS (Luo et al., DAC 2022).
"""

from analysis.verdicts.claim import Claim

_SCALING_AT_THE_END = (
    "With `derivation: in_reach`, elasticity-scaling also chooses among depths and operators at the end of a "
    "search; with `argmax`, it scales the most probable network alone, and misses targets that lie outside "
    "the reach of that network's widths."
)

REDUCES_COLLAPSE = Claim(
    statement="Bi-sampling reduces operator collapse.",
    measure="locked_early_share",
    second_measure="locked_share_of_epochs",
    baseline={"sampling": "single"},
    treated={"sampling": "bi_random"},
    within={"depth": "sink"},
    direction="less",
    smallest_effect=0.10,
    beside=["final_alpha_entropy", "train_gini"],
    note="Bi-sampling takes two gradients per step. bi_gumbel does so, too, with a second path that is "
    "sampled like the first: bi_gumbel − single shows what a second path does, and bi_random − bi_gumbel "
    "what its being random does.",
)

REDUCES_FLUCTUATION = Claim(
    statement="Sink-connecting reduces depth fluctuation.",
    measure="depth_fluctuation",
    second_measure="depth_fluctuation_without_drift",
    baseline={"depth": "skip"},
    treated={"depth": "sink"},
    direction="less",
    smallest_effect=0.10,
    beside=["derived_depth", "depth_range", "collapsed_to_floor"],
    note="A search that falls to the smallest depth and stays there does not fluctuate any more; the "
    "numbers beside the verdict show whether that happened.",
)

MEETS_TARGETS = Claim(
    statement="Elasticity-scaling meets latency targets that are missed without it, whatever the objective "
    "and its weight.",
    measure="target_missed",
    second_measure="abs_latency_error_percent",
    baseline={"elasticity": False},
    treated={"elasticity": True},
    direction="less",
    smallest_effect=0.5,
    beside=["abs_latency_error_percent", "target_missed"],
    note="Each seed counts with the mean over all objectives and weights; the table of effects shows each of "
    f"them. {_SCALING_AT_THE_END}",
)

MEETS_TARGETS_OF_RIVAL = Claim(
    statement="Elasticity-scaling meets latency targets that a learned multiplier alone misses.",
    measure="target_missed",
    second_measure="abs_latency_error_percent",
    baseline={"elasticity": False},
    treated={"elasticity": True},
    within={"objective": "lagrangian"},
    direction="less",
    smallest_effect=0.5,
    beside=["abs_latency_error_percent", "target_missed"],
    note="Both sides learn the multiplier, which brings the expected latency to the target; without "
    "elasticity-scaling, the derived network is made of the most probable layers, whatever their latency. "
    f"{_SCALING_AT_THE_END}",
)

IS_AS_ACCURATE = Claim(
    statement="At equal latency, the whole method is at least as accurate as single-path sampling in the "
    "skip space without elasticity-scaling.",
    measure="test_accuracy",
    second_measure="val_accuracy",
    baseline={"sampling": "single", "depth": "skip", "elasticity": False},
    treated={"sampling": "bi_random", "depth": "sink", "elasticity": True},
    direction="greater",
    smallest_effect=-0.005,
    match="latency",
    beside=["derived_latency_ms"],
)

IS_AS_ACCURATE_AS_RANDOM = Claim(
    statement="With equal targets and equal numbers of weight steps, TF-NAS finds networks at least as "
    "accurate as random search.",
    measure="test_accuracy",
    baseline={"method": "random"},
    treated={"method": "tf_nas"},
    within={"elasticity": True},
    direction="greater",
    smallest_effect=-0.005,
    beside=["derived_latency_ms"],
    note="With elasticity-scaling all methods meet their targets, so networks are compared at equal latency. "
    "A weight step of bi-sampling trains two paths, TF-NAS takes architecture steps, and random search "
    "evaluates networks: the table of budgets has the seconds of both.",
)

GP_NAS_IS_AS_ACCURATE_AS_RANDOM = Claim(
    statement="With equal targets and equal numbers of weight steps and evaluations, GP-NAS finds networks "
    "at least as accurate as random search.",
    measure="test_accuracy",
    second_measure="val_accuracy",
    baseline={"method": "random"},
    treated={"method": "gp_nas"},
    within={"elasticity": True},
    direction="greater",
    smallest_effect=-0.005,
    beside=["derived_latency_ms", "predictor_tau"],
)
