"""Calls that are made once are those of mxnet."""

import numpy as np
from models import nd

from svrg_optimization.mxnet_api import prepared


def test_operations_prepared_once_are_those_of_mxnet(rng):
    target, first, second = (nd(rng.normal(size=(3, 2)), np.float32) for _ in range(3))
    copy = prepared.copy_into(target)
    add = prepared.operation("add_n", [first, second], [second], num_args=2)
    for source in (first, nd(rng.normal(size=(3, 2)), np.float64), second):
        copy(source)
        np.testing.assert_array_equal(target.asnumpy(), source.asnumpy().astype(np.float32))
        expected = first.asnumpy() + second.asnumpy()
        add()
        np.testing.assert_array_equal(second.asnumpy(), expected)
