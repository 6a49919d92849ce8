"""How iterators are read."""

import mxnet as mx
import numpy as np
import pytest
from models import nd

from svrg_optimization import SVRGModule
from svrg_optimization.compute import data as data_of_pass


class OwnIterator(mx.io.NDArrayIter):
    """May do anything with its data on the way."""


def _with_own_next(data):
    data.next = lambda: data.__class__.next(data)
    return data


@pytest.mark.parametrize(
    "data",
    [
        mx.io.NDArrayIter(mx.nd.zeros((4, 6)), batch_size=2, layout="TN"),
        OwnIterator(mx.nd.zeros((6, 4)), batch_size=2),
        mx.io.ResizeIter(mx.io.NDArrayIter(mx.nd.zeros((6, 4)), batch_size=2), 2),
        mx.io.NDArrayIter(mx.nd.zeros((6, 4)).tostype("csr"), batch_size=2, last_batch_handle="discard"),
        mx.io.NDArrayIter(mx.nd.zeros((6, 4)), mx.nd.zeros((6, 4)).tostype("csr"), 2, last_batch_handle="discard"),
        _with_own_next(mx.io.NDArrayIter(mx.nd.zeros((6, 4)), batch_size=2)),
    ],
    ids=["other layout", "subclass", "resized", "sparse", "sparse labels", "a method of its own"],
)
def test_other_iterators_are_left_alone(data):
    assert not data_of_pass.can_view(data)


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("n", [3, 4, 8, 10])
@pytest.mark.parametrize("handling", ["pad", "discard", "roll_over"])
def test_views_are_the_batches_that_the_iterator_gives(handling, n, shuffle, labels):
    def given(iterate):
        np.random.seed(0)
        x = nd(np.arange(3.0 * n).reshape(n, 3))
        data = mx.io.NDArrayIter(x, nd(np.arange(n)) if labels else None, 4, shuffle, handling)
        seen = []
        for _ in range(4):
            for batch in iterate(data):
                arrays = [[array.asnumpy().tolist() for array in arrays] for arrays in (batch.data, batch.label)]
                seen.append((arrays, batch.pad, batch.index, data.cursor))
            data.reset()
        return seen

    assert given(data_of_pass.views) == given(iter)


@pytest.mark.parametrize("at_once", [10**6, 48])
@pytest.mark.parametrize("count", [None, 1, 3])
@pytest.mark.parametrize("rows", [[2], [0, 3, 4], [1, 2, 5, 6, 8, 9, 10], list(range(11))], ids=len)
def test_a_part_of_the_rows_is_read_once(rows, count, at_once, monkeypatch):
    monkeypatch.setattr(data_of_pass, "COPIED_AT_ONCE", at_once)
    x = nd(np.arange(22.0).reshape(11, 2))
    data = mx.io.NDArrayIter(x, nd(np.arange(11)), 4)
    next(data)
    with data_of_pass.whole(data, in_place=True, count=count, rows=rows) as batches:
        batches = [(batch, batch.label[0].asnumpy().astype(int).tolist()) for batch in batches]
    true_rows = [row for batch, labels in batches for row in labels[: len(labels) - batch.pad]]
    assert true_rows == rows
    sizes = [len(labels) for _, labels in batches]
    if count is None:
        assert sizes == [4] * -(-len(rows) // 4)
        assert [batch.pad for batch, _ in batches] == [0] * (len(sizes) - 1) + [-len(rows) % 4]
    else:
        # A row has 24 bytes. All rows would come in `count` batches.
        assert max(sizes) <= min(-(-11 // count), max(1, at_once // 24))
        assert {batch.pad for batch, _ in batches} == {0}
    for batch, labels in batches:
        assert set(labels) <= set(rows)
        np.testing.assert_array_equal(batch.data[0].asnumpy(), x.asnumpy()[labels])
    assert data.cursor == 0, "the iterator stays where it is"


class Own(mx.io.DataIter):
    """Nobody knows where its data lie."""

    def __init__(self, data):
        super().__init__(data.batch_size)
        self._data, self.provide_data, self.provide_label = data, data.provide_data, data.provide_label

    def reset(self):
        self._data.reset()

    def next(self):
        return self._data.next()


@pytest.mark.parametrize("wrapped", [False, True])
def test_fit_on_a_used_up_iterator(wrapped):
    rows = nd(np.arange(24.0).reshape(8, 3), "float32")
    train = mx.io.NDArrayIter(rows, nd(np.zeros((8, 1)), "float32"), 4, label_name="label")
    train = Own(train) if wrapped else train
    list(train)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("label")), label_names=["label"])
    module.fit(train, num_epoch=2, eval_metric="mse", optimizer_params={"learning_rate": 0.0})
    assert module._snapshot.samples == 8 and module._clock.steps == 4
