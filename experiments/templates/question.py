"""The questions that a new file can ask: what is compared, the claims about it, and what is expected."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Question:
    """A question that a grid of searches answers.

    Attributes:
        text: the question.
        factors: the fields to compare, with their values.
        fixed: fields that all searches share because of the question.
        claims: names of the paper's claims that the grid asks.
        expected: what a reader should expect.
        is_about_accuracy: whether the answer needs the networks trained from scratch.
    """

    text: str
    factors: dict[str, list[Any]]
    expected: str
    fixed: dict[str, Any] = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    is_about_accuracy: bool = False


QUESTIONS = {
    "targets": Question(
        "what does latency buy? Networks for six latency targets, found by the whole method.",
        {"target_latency_ms": ["15%", "20%", "25%", "30%", "40%", "50%"]},
        "derived latencies just below their targets; accuracy that rises with the target and levels off.",
        {"sampling": "bi_random", "depth": "sink"},
    ),
    "sampling": Question(
        "does a second, random path keep layers from locking onto an operator early (operator collapse)?",
        {"sampling": ["single", "bi_random", "bi_gumbel"]},
        "single-path sampling collapses most, bi_random (the method's choice) least. bi_gumbel takes two "
        "paths as well: it separates the effect of a second path from that of a random one.",
        {"depth": "sink"},
        ("a",),
    ),
    "depth": Question(
        "does the sink space keep the derived depth steady where skips make it fluctuate?",
        {"depth": ["skip", "sink"]},
        "if skip is just another candidate, the depth keeps jumping. With sink-connecting, it changes by one "
        "layer at a time. Claim (b) did not look like it on micro, see tune_configs/ablation_depth.yaml.",
        {"sampling": "bi_random"},
        ("b",),
    ),
    "width": Question(
        "does elasticity-scaling meet the latency target that the loss term alone misses?",
        {"elasticity": [False, True]},
        "without it, the error is many percent and depends on the weight of the loss term. With it, the "
        "network is just below the target.",
        {"sampling": "bi_random", "depth": "sink"},
        ("d",),
    ),
    "methods": Question(
        "with equal numbers of weight steps, is a differentiable search better than random search? Is "
        "GP-NAS?",
        {"method": ["tf_nas", "random", "gp_nas"]},
        "on micro all three ended with networks of about the same accuracy, see "
        "tune_configs/search_methods.yaml. The test accuracies come from the file of trainings beside this.",
        claims=("f", "g"),
        is_about_accuracy=True,
    ),
}
"""The questions by name, as `tfnas init --question` takes them."""
