"""The multiplier that `lagrangian` learns: where its ascent leads in a problem that can be solved by hand.

The problem: the cross-entropy is (x - best)^2 and the latency 2 x + 1 ms, so that a target T asks for
x = (T - 1) / 2. There the slope of the loss, 2 (x - best) + 2 lambda / T, is 0 at lambda = T (best - x).
"""

import pytest
import torch

from nas.supernet.objectives import OBJECTIVES
from nas.supernet.steps import ascend

TARGET_MS = 3.0
RATE, MULTIPLIER_RATE = 0.1, 0.5

Course = list[tuple[float, float]]
"""x and lambda after each step."""


def run(best: float, num_steps: int) -> Course:
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    multiplier = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=RATE)
    course = []
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss = OBJECTIVES["lagrangian"](
            (x - best) ** 2, 2 * x + 1, target_latency_ms=TARGET_MS, latency_multiplier=multiplier
        )
        loss.backward()
        optimizer.step()
        ascend(multiplier, MULTIPLIER_RATE)
        course.append((float(x.detach()), float(multiplier.detach())))
    return course


def run_by_hand(best: float, num_steps: int) -> Course:
    x, multiplier = 0.5, 0.0
    course = []
    for _ in range(num_steps):
        excess = (2 * x + 1) / TARGET_MS - 1
        x -= RATE * (2 * (x - best) + multiplier * 2 / TARGET_MS)
        multiplier += MULTIPLIER_RATE * excess
        course.append((x, multiplier))
    return course


@pytest.mark.parametrize("best", [-1.0, 1.0, 2.5])
def test_every_step_is_that_of_descent_and_ascent_by_hand(best: float) -> None:
    assert run(best, 50) == [pytest.approx(step, rel=1e-12, abs=1e-12) for step in run_by_hand(best, 50)]


@pytest.mark.parametrize(
    ("best", "multiplier"),
    [
        # The best network would be too slow, as fast as the target, too fast.
        (2.5, 4.5),
        (1.0, 0.0),
        (-1.0, -6.0),
    ],
)
def test_the_multiplier_settles_where_the_constraint_holds(best: float, multiplier: float) -> None:
    x, found = run(best, 400)[-1]
    assert 2 * x + 1 == pytest.approx(TARGET_MS, abs=1e-9)
    assert found == pytest.approx(multiplier, abs=1e-9)


def test_the_multiplier_rises_while_the_latency_is_above_its_target_and_falls_below() -> None:
    for latency_ms, step in ((6.0, 0.5), (3.0, 0.0), (1.5, -0.25)):
        multiplier = torch.tensor(0.25, requires_grad=True)
        loss = OBJECTIVES["lagrangian"](
            torch.tensor(1.0),
            torch.tensor(latency_ms),
            target_latency_ms=TARGET_MS,
            latency_multiplier=multiplier,
        )
        loss.backward()
        ascend(multiplier, MULTIPLIER_RATE)
        assert float(multiplier.detach()) == 0.25 + step
        assert multiplier.grad is None
