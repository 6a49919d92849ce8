"""How much more a step does to a row that is touched rarely."""

import numpy as np

from svrg_optimization.svrg.reweighting import TouchCounts


def test_over_the_batches_it_adds_up_to_one_for_each_sample(rng):
    counts, batches = TouchCounts(30), []
    for rows in (8, 8, 8, 3):
        batches.append((np.flatnonzero(rng.random(30) < 0.3), rows))
        counts.add(*batches[-1])
    added = np.zeros(30)
    for touched, rows in batches:
        added[touched] += counts.reweighting()[touched] * rows
    touched = counts.touches > 0
    assert 10 < touched.sum() < 30
    np.testing.assert_allclose(added[touched], 27, rtol=1e-14)
    assert set(counts.reweighting()[~touched]) == {1.0}
