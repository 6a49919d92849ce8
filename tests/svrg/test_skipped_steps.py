"""Steps that are done later, against the loop of steps."""

import numpy as np
import pytest

from svrg_optimization.svrg import skipped_steps
from svrg_optimization.svrg.skipped_steps import SkippedSteps

ROWS = 7


def arguments(rng, count, decays, has_moves):
    """The rate, decay, momentum and pull of each step, all different."""
    return list(zip(
        rng.uniform(0, 0.25, count), rng.uniform(0, 0.5, count) * decays, rng.uniform(0.25, 0.75, count) * has_moves,
        rng.uniform(-2, 2, count),
    ))  # fmt: skip


def in_a_loop(weight, move, mu, steps):
    for rate, decay, momentum, pull in steps:
        move = momentum * move - rate * (pull * mu + decay * weight)
        weight = weight + move
    return weight, move


@pytest.mark.parametrize("has_moves", [False, True], ids=["", "momentum"])
@pytest.mark.parametrize("decays", [False, True], ids=["", "decay"])
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1), (ROWS, 2, 3)], ids=str)
def test_they_are_those_of_the_loop(shape, decays, has_moves, rng):
    steps, skipped = arguments(rng, 20, decays, has_moves), SkippedSteps(has_moves)
    for each in steps:
        skipped.add(*each)
    weights, moves, mu = (rng.normal(size=shape) for _ in range(3))
    since = np.array([0, 1, 5, 5, 19, 20, 0])
    expected = [
        in_a_loop(w, m if has_moves else 0 * m, g, steps[first:]) for w, m, g, first in zip(weights, moves, mu, since)
    ]
    skipped.catch_up(weights, moves if has_moves else None, mu, since)
    np.testing.assert_allclose(weights, [w for w, _ in expected], rtol=1e-13, atol=1e-14)
    if has_moves:
        np.testing.assert_allclose(moves, [m for _, m in expected], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("decay", [2.0**-20, 2.0**-34])
def test_many_steps_of_a_small_decay_lose_no_digits(decay):
    # (1 - r^T) / (1 - r) would: the sum is kept, not computed from that.
    skipped = SkippedSteps()
    for _ in range(skipped_steps.MOST):
        skipped.add(0.25, decay, 0.0, 1.0)
    weights = np.zeros(1)
    skipped.catch_up(weights, None, np.ones(1), np.zeros(1, int))
    rate = np.log1p(-0.25 * decay)
    assert weights[0] == pytest.approx(np.expm1(skipped_steps.MOST * rate) / decay, rel=1e-13)


@pytest.mark.parametrize("has_moves", [False, True])
def test_there_is_room_for_so_many(has_moves, rng):
    skipped = SkippedSteps(has_moves)
    for count, each in enumerate(arguments(rng, skipped_steps.MOST, True, has_moves)):
        assert skipped.count == count and not skipped.are_too_many
        skipped.add(*each)
    assert skipped.are_too_many
    skipped.clear()
    assert skipped.count == 0 and not skipped.are_too_many
    skipped.add(0.5, 0.0, 0.0, 2.0)
    weights, moves, mu = np.ones(1), np.ones(1), np.ones(1)
    skipped.catch_up(weights, moves if has_moves else None, mu, np.zeros(1, int))
    assert weights[0] == 0.0 and (not has_moves or moves[0] == -1.0)


def test_the_type_is_that_of_the_weights():
    skipped = SkippedSteps()
    skipped.add(0.5, 0.25, 0.0, 2.0)
    weights = np.ones(2, np.float32)
    skipped.catch_up(weights, None, np.ones(2, np.float32), np.zeros(2, np.int32))
    assert weights.dtype == np.float32 and weights.tolist() == [-0.125, -0.125]
