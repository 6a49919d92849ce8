"""Numbers of their own for rows, and room for them."""

import numpy as np
import pytest

from svrg_optimization.compute.renumbering import Renumbering
from svrg_optimization.compute.small_network import CSR, with_room


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_one_after_the_other_they_are_the_distinct_numbers(dtype, rng):
    # The second array has numbers that the first one had, too; the third one is longer than all before.
    renumbering = Renumbering(50)
    for length in (20, 20, 300, 1, 0, 7):
        named = rng.integers(0, 50, length).astype(dtype)
        rows, local = renumbering(named)
        assert sorted(rows) == sorted(set(named.tolist()))
        np.testing.assert_array_equal(rows[local], named)


def test_room_is_enough_and_not_much_more():
    for count in range(1, 5000):
        room = with_room(count)
        assert count <= room <= max(16, count * 1.25 + 4)
    assert len({with_room(count) for count in range(1, 5000)}) < 40


def test_rows_of_csr_data(rng):
    dense = rng.random((6, 4)) * (rng.random((6, 4)) < 0.5)
    rows, columns = np.nonzero(dense)
    whole = CSR(dense[rows, columns], columns, np.searchsorted(rows, np.arange(7)))
    for start in range(7):
        for stop in range(start, 7):
            part, found = whole.rows(slice(start, stop)), np.zeros((stop - start, 4))
            for row, (first, end) in enumerate(zip(part.starts, part.starts[1:])):
                found[row, part.columns[first:end]] = part.values[first:end]
            np.testing.assert_array_equal(found, dense[start:stop])
