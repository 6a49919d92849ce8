"""CSRIter: what it gives, of which memory, and how full passes read it; against loops over dense rows."""

import itertools
import types

import mxnet as mx
import numpy as np
import pytest
from models import nd
from scipy import sparse

from svrg_optimization import CSRIter, LockedBatches, SVRGModule, csr_iter, diagnose
from svrg_optimization.compute import data as data_of_pass
from svrg_optimization.schedules import EverySteps, Growing, Loopless
from svrg_optimization.svrg.numbered_draws import generator, uniform

ROWS, COLUMNS = 11, 7
HANDLINGS = ["pad", "discard", "ragged"]


def matrix(rows=ROWS, columns=COLUMNS, dtype="float64"):
    """Rows of 0 to 4 values; the first, the last and one in the middle are empty."""
    rng = np.random.default_rng(0)
    x = np.zeros((rows, columns), dtype)
    for row in set(range(1, rows - 1)) - {rows // 2}:
        chosen = rng.choice(columns, rng.integers(1, 5), replace=False)
        x[row, chosen] = rng.normal(size=len(chosen))
    return x


X = matrix()
# Labels tell rows apart.
Y = np.arange(100.0, 100 + ROWS)


def arrays_of(x):
    """As three arrays: values, columns, and where rows end."""
    given = sparse.csr_matrix(x)
    return given.data, given.indices, given.indptr


def holder(values, columns, indptr, shape, **others):
    return types.SimpleNamespace(data=values, indices=columns, indptr=indptr, shape=shape, **others)


def dense(csr):
    """What CSRArrays say, by a loop."""
    x = np.zeros(csr.shape, csr.values.dtype)
    assert csr.indptr[0] == 0 and csr.indptr[-1] == len(csr.values) == len(csr.columns)
    for row in range(csr.shape[0]):
        own = slice(csr.indptr[row], csr.indptr[row + 1])
        assert list(csr.columns[own]) == sorted(set(csr.columns[own]))
        for column, value in zip(csr.columns[own], csr.values[own]):
            x[row, column] += value
    return x


def expected(order, batch_size, handling):
    """The numbers of the rows of each batch, and its padding, by a loop over rows."""
    batches = []
    for start in range(0, len(order), batch_size):
        rows, pad = list(order[start : start + batch_size]), 0
        if len(rows) < batch_size and handling == "discard":
            continue
        while len(rows) < batch_size and handling == "pad":
            rows.append(order[pad % len(order)])
            pad += 1
        batches.append((rows, pad))
    return batches


def check_batches(batches, wanted, x=X, y=Y):
    """Compare with the rows of dense arrays, in each of the forms that a batch has."""
    assert [(batch.index.tolist(), batch.pad) for batch in batches] == wanted
    for batch, (rows, _) in zip(batches, wanted):
        assert batch.shapes == [(len(rows), x.shape[1])]
        np.testing.assert_array_equal(dense(batch.csr[0]), x[rows])
        assert batch.data[0].stype == "csr" and batch.data[0].dtype == x.dtype
        assert batch.shapes == [array.shape for array in batch.data]
        np.testing.assert_array_equal(batch.data[0].asnumpy(), x[rows])
        np.testing.assert_array_equal(batch.label[0].asnumpy(), y[rows])


def orders_of(data, epochs=3):
    """The rows of the next epochs, true ones only."""
    orders = []
    for _ in range(epochs):
        orders.append([row for batch in data for row in batch.index[: len(batch.index) - batch.pad].tolist()])
        data.reset()
    return orders


@pytest.mark.parametrize("handling", HANDLINGS)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 11, 12, 30])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_those_of_a_loop_over_dense_rows(shuffle, batch_size, handling):
    if handling == "discard" and batch_size > ROWS:
        return
    data = CSRIter(sparse.csr_matrix(X), Y, batch_size, shuffle, 3, handling)
    orders = []
    for number in range(3):
        assert data.epoch == number
        batches = list(data)
        with pytest.raises(StopIteration):
            next(data)
        order = data._in_order().index.tolist()
        assert sorted(order) == list(range(ROWS)) and (shuffle or order == sorted(order))
        assert len(data) == len(batches)
        check_batches(batches, expected(order, batch_size, handling))
        orders.append(order)
        data.reset()
    assert not shuffle or orders[0] != orders[1] != orders[2]


def test_an_order_depends_on_seed_and_epoch_only():
    def made(seed=5):
        return CSRIter(sparse.csr_matrix(X), batch_size=2, shuffle=True, seed=seed)

    orders = orders_of(made(), 4)
    assert orders != orders_of(made(6), 4)
    data = made()
    np.random.seed(1)
    next(data)
    data.reset()
    list(data)
    next(data, None)
    data.hard_reset()
    assert orders_of(data, 2) == orders[2:]
    next(data)
    data.epoch = 1
    assert orders_of(data, 3) == orders[1:]
    # A schedule of the same seed draws other permutations.
    assert orders[1] != generator(5, 1).permutation(ROWS).tolist()


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_slices_of_the_memory(shuffle):
    values, columns, indptr = arrays_of(X)
    data = CSRIter(holder(values, columns, indptr, X.shape), Y, 4, shuffle, last_batch_handle="ragged")
    epochs = []
    for _ in range(2):
        batches = list(data)
        of_epoch = data._in_order().csr
        for batch in batches:
            # The third of its arrays begins at 0 in each batch.
            for array, whole in zip(batch.csr[0][:2], of_epoch if shuffle else (values, columns)):
                assert np.shares_memory(array, whole)
                assert not array.flags.writeable
        epochs.append((batches, [dense(batch.csr[0]) for batch in batches]))
        data.reset()
    for batches, before in epochs:
        # A later epoch isn't written over an earlier one.
        for batch, x in zip(batches, before):
            np.testing.assert_array_equal(dense(batch.csr[0]), x)
    assert values.flags.writeable and columns.flags.writeable


def test_an_array_is_made_when_it_is_asked_for():
    batch = next(CSRIter(sparse.csr_matrix(X), Y, 4))
    assert batch._data is None and batch.shapes == [(4, COLUMNS)]
    assert batch.data is batch.data
    other = [mx.nd.ones((2, 3))]
    batch.data = other
    assert batch.data is other and batch.csr is None and batch.shapes == [(2, 3)]


@pytest.mark.parametrize("at_once", [1, 5, 1 << 20])
def test_rows_are_moved_in_parts(at_once, monkeypatch):
    monkeypatch.setattr(csr_iter, "MOVED_AT_ONCE", at_once)
    data = CSRIter(sparse.csr_matrix(X), Y, 4, shuffle=True)
    check_batches(list(data), expected(data._in_order().index.tolist(), 4, "pad"))


@pytest.mark.parametrize("batch_size", [4, 12])
def test_rows_without_values(batch_size):
    x = np.zeros((6, 3), np.float32)
    data = CSRIter(sparse.csr_matrix(x), batch_size=batch_size, shuffle=True)
    for batch in data:
        assert batch.label == [] and data.provide_label == []
        np.testing.assert_array_equal(batch.data[0].asnumpy(), np.zeros((batch_size, 3)))


# ----------------------------------------------------------------------------------------------------- what is given


def given_forms():
    values, columns, indptr = arrays_of(X)
    rest = np.full(3, 9)
    return {
        "scipy's matrix": sparse.csr_matrix(X),
        "scipy's array": sparse.csr_array(X),
        "MXNet's": nd(X).tostype("csr"),
        "wide numbers": holder(values, columns.astype("int64"), indptr.astype("int64"), X.shape),
        "small numbers": holder(values, columns.astype("uint8"), indptr.astype("uint8"), X.shape),
        "lists": holder(list(values), list(columns), list(indptr), list(X.shape)),
        "more memory than values": holder(np.append(values, rest), np.append(columns, rest), indptr, X.shape),
        "strided": holder(np.repeat(values, 2)[::2], np.repeat(columns, 2)[::2], indptr, X.shape),
        "another byte order": holder(values.astype(">f8"), columns.astype(">i4"), indptr, X.shape),
    }


@pytest.mark.parametrize("form", given_forms())
def test_forms_of_csr(form):
    data = CSRIter(given_forms()[form], Y, 4)
    (described,) = data.provide_data
    assert (described.name, described.shape, described.dtype, described.layout) == (
        "data", (4, COLUMNS), np.float64, "NC")  # fmt: skip
    check_batches(list(data), expected(range(ROWS), 4, "pad"))


@pytest.mark.parametrize("shuffled_columns", [False, True])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool", "float16"])
def test_columns_are_sorted_and_added_up(dtype, twice, shuffled_columns):
    rng = np.random.default_rng(0)
    values, columns, indptr, x = [], [], [0], np.zeros(X.shape)
    for row, of_row in enumerate(X):
        chosen = np.flatnonzero(of_row).tolist()
        chosen += chosen[:1] * twice
        if shuffled_columns:
            chosen = rng.permutation(chosen).astype(int).tolist()
        else:
            chosen.sort()
        for column in chosen:
            value = np.array(rng.integers(1, 4)).astype(dtype)
            values.append(value)
            columns.append(column)
            x[row, column] += value
        indptr.append(len(values))
    arrays = np.array(values), np.array(columns), np.array(indptr)
    before = [array.copy() for array in arrays]
    data = CSRIter(holder(*arrays, X.shape), Y, 4)
    kept = np.float64 if dtype == "float64" else np.float32
    assert data.provide_data[0].dtype is kept
    check_batches(list(data), expected(range(ROWS), 4, "pad"), x.astype(kept))
    for array, copied in zip(arrays, before):
        np.testing.assert_array_equal(array, copied)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_labels_of_any_shape_and_type(shuffle, shape, dtype):
    label = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 9, (ROWS, *shape)).astype(dtype)
    before, kept = label.copy(), np.float64 if dtype == "float64" else np.float32
    for given in (label, mx.nd.array(label, dtype=label.dtype)):
        data = CSRIter(sparse.csr_matrix(X), given, 4, shuffle, label_name="label")
        (described,) = data.provide_label
        assert (described.name, described.shape, described.dtype) == ("label", (4, *shape), kept)
        for batch in data:
            assert batch.label[0].dtype is kept
            np.testing.assert_array_equal(batch.label[0].asnumpy(), label[batch.index].astype(kept))
            batch.label[0][:] = -1
    np.testing.assert_array_equal(label, before)


@pytest.mark.parametrize("most", [2**31 - 1, 20])
@pytest.mark.parametrize("shuffle", [False, True])
def test_several_labels(shuffle, most, monkeypatch):
    """Those that are too large for an array of MXNet are cut by NumPy."""
    monkeypatch.setattr(csr_iter, "MOST_ELEMENTS", most)
    labels = {"b": Y, "a": np.arange(2.0 * ROWS).reshape(ROWS, 2)}
    data = CSRIter(sparse.csr_matrix(X), labels, 4, shuffle)
    assert [(each.name, each.shape) for each in data.provide_label] == [("b", (4,)), ("a", (4, 2))]
    for batch in [*data, *data.batches_of_all([3, 1, 4, 2, 9])]:
        for array, whole in zip(batch.label, labels.values()):
            np.testing.assert_array_equal(array.asnumpy(), whole[batch.index])
            assert array.dtype is np.float64
    kinds = {type(label) for label in data._in_order().sliced_labels}
    assert kinds == ({mx.nd.NDArray} if most > 22 else {mx.nd.NDArray, np.ndarray})


class Large:
    """A matrix of more elements than an array of MXNet may have."""

    shape = (4, 2**30)
    data, indices, indptr = np.arange(1.0, 5), np.array([0, 2**30 - 1, 5, 6]), np.array([0, 2, 2, 3, 4])


@pytest.mark.parametrize("shuffle", [False, True])
def test_matrices_of_more_than_two_to_the_31_elements(shuffle):
    data = CSRIter(Large, [1, 2, 3, 4], 1, shuffle)
    seen = {}
    for batch in data:
        found = batch.data[0]
        seen[int(batch.index[0])] = found.indices.asnumpy().tolist(), found.data.asnumpy().tolist()
    assert seen == {0: ([0, 2**30 - 1], [1, 2]), 1: ([], []), 2: ([5], [3]), 3: ([6], [4])}


def broken(**changed):
    values, columns, indptr = arrays_of(X)
    return holder(**{**dict(values=values, columns=columns, indptr=indptr, shape=X.shape), **changed})


INDPTR = arrays_of(X)[2]
FALLING = INDPTR.copy()
FALLING[3] = 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([X], TypeError, "data is a ndarray, and must be a csr matrix .*tostype"),
        ([mx.nd.array(X)], TypeError, "data is a NDArray, and must be a csr matrix"),
        ([sparse.csc_matrix(X)], TypeError, "data is a csc_matrix, and must be a csr matrix of scipy.sparse or MXNet"),
        ([sparse.coo_matrix(X)], TypeError, "data is a coo_matrix, and must be a csr matrix of scipy.sparse or MXNet"),
        ([broken(shape=(ROWS, 3))], ValueError, r"data of shape \(11, 3\) is no csr matrix: indices are 0 to 6; make"),
        ([broken(columns=arrays_of(X)[1] - 1)], ValueError, "is no csr matrix: indices are -1 to 5"),
        ([broken(shape=(ROWS + 1, COLUMNS))], ValueError, r"no csr matrix: indptr has the shape \(12,\), data .*and"),
        ([broken(values=X)], ValueError, r"no csr matrix: indptr has the shape \(12,\), data \(11, 7\) and indices"),
        ([broken(columns=X)], ValueError, r"no csr matrix: indptr has the shape .* indices \(11, 7\); make it anew"),
        ([broken(indptr=INDPTR + 1)], ValueError, "no csr matrix: indptr must rise from 0 to the number of values"),
        ([broken(indptr=FALLING)], ValueError, "no csr matrix: indptr must rise from 0"),
        ([broken(values=arrays_of(X)[0][:-1])], ValueError, "no csr matrix: indptr must rise from 0"),
        ([broken(columns=arrays_of(X)[1][:-1])], ValueError, "no csr matrix: indptr must rise from 0"),
        ([sparse.csr_matrix((0, 3))], ValueError, r"of shape \(0, 3\) is no csr matrix: it needs rows and columns"),
        ([broken(shape=(ROWS,))], ValueError, "no csr matrix: it needs rows and columns"),
        ([sparse.csr_matrix(X), Y[1:]], ValueError, r"'softmax_label' has the shape \(10,\), and data has 11 rows"),
        ([sparse.csr_matrix(X), {"a": 3}], ValueError, r"label 'a' has the shape \(\), and data has 11 rows; give a"),
        ([sparse.csr_matrix(X), Y, 0], ValueError, "batch_size=0 must be at least 1"),
        ([sparse.csr_matrix(X), Y, 2.0], TypeError, "batch_size=2.0 must be an integer"),
        ([sparse.csr_matrix(X), Y, 2, True, -1], ValueError, "seed=-1 must be at least 0"),
        ([sparse.csr_matrix(X), Y, 2, True, 0, "roll_over"], ValueError, "='roll_over' must be 'pad', 'discard' or"),
        ([sparse.csr_matrix(X), Y, 12, True, 0, "discard"], ValueError, "no batch: batch_size=12 and data has 11 rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_given(arguments, error, message):
    with pytest.raises(error, match=message):
        CSRIter(*arguments)


def test_an_epoch_has_a_number():
    data = CSRIter(sparse.csr_matrix(X))
    with pytest.raises(ValueError, match="epoch=-1 must be at least 0"):
        data.epoch = -1


# ------------------------------------------------------------------------------------------------------- full passes


@pytest.mark.parametrize("handling", HANDLINGS)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("read", [0, 1, 3])
def test_a_pass_sees_each_row_once_and_leaves_the_epoch_alone(read, shuffle, handling):
    def made():
        return CSRIter(sparse.csr_matrix(X), Y, 4, shuffle, 1, handling)

    data, undisturbed = made(), made()
    order = data._in_order().index.tolist()
    for each in (data, undisturbed):
        for _ in range(min(read, len(each))):
            next(each)
    with data_of_pass.whole(data, in_place=True) as batches:
        check_batches(list(batches), expected(order, 4, "pad"))
    # Half of one, and the iterator moves on.
    with data_of_pass.whole(data, in_place=True) as batches:
        batches = iter(batches)
        first = next(batches)
        rest = [batch.index.tolist() for batch in data]
        check_batches([first, *batches], expected(order, 4, "pad"))
    assert rest == [batch.index.tolist() for batch in undisturbed]


def test_a_pass_that_outlasts_the_epoch():
    data = CSRIter(sparse.csr_matrix(X), Y, 4, shuffle=True)
    order = data._in_order().index.tolist()
    batches = data.batches_of_all()
    first = next(batches)
    data.reset()
    check_batches([first, *batches], expected(order, 4, "pad"))


@pytest.mark.parametrize("rows", [[2], [0, 3, 4], [1, 2, 5, 6, 8, 9, 10], list(range(ROWS))], ids=len)
def test_a_pass_over_a_part_of_the_rows(rows):
    data = CSRIter(sparse.csr_matrix(X), Y, 4, shuffle=True)
    with data_of_pass.whole(data, in_place=True, rows=rows) as batches:
        check_batches(list(batches), expected(rows, 4, "pad"))
    assert data.cursor == -4


@pytest.mark.parametrize("handling", ["pad", "discard"])
@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("read", [0, 1, 9])
def test_where_a_pass_leaves_the_iterator(read, at_start, handling):
    """As an NDArrayIter: at its start, and in the middle if that is taken for the start."""
    data = CSRIter(sparse.csr_matrix(X), Y, 4, last_batch_handle=handling)
    dense_data = mx.io.NDArrayIter(nd(X), nd(Y), 4, last_batch_handle=handling)
    for each in (data, dense_data):
        for _ in range(read):
            next(each, None)
        with data_of_pass.whole(each, at_start) as batches:
            assert len(list(batches)) == 3
    assert data.cursor == dense_data.cursor
    assert data.epoch == (0 if read == 0 or (at_start and read == 1) else 1)


class Derived(CSRIter):
    """May do anything; counts its batches."""

    asked = 0

    def next(self):
        self.asked += 1
        return super().next()


@pytest.mark.parametrize("handling", HANDLINGS)
def test_a_derived_class_is_read_itself(handling):
    data = Derived(sparse.csr_matrix(X), Y, 4, last_batch_handle=handling)
    assert not data_of_pass.can_stay(data) and data_of_pass.can_stay(CSRIter(sparse.csr_matrix(X)))
    next(data)
    with data_of_pass.whole(data) as batches:
        check_batches(list(batches), expected(range(ROWS), 4, "pad"))
    assert data.last_batch_handle == handling and data.cursor == -4
    # From the middle, without reading to the end.
    next(data)
    asked = data.asked
    data_of_pass.restart(data, at_end=False)
    assert (data.epoch, data.cursor, data.asked) == (3, -4, asked)


def test_the_same_data():
    made = CSRIter(sparse.csr_matrix(X), Y, 4, shuffle=True)
    identity = data_of_pass.Identity(made)
    made.reset()
    next(made)
    assert identity(made) and not identity(CSRIter(sparse.csr_matrix(X), Y, 4))
    assert data_of_pass.known_samples(made) == ROWS
    assert data_of_pass.count_batches(made) == 3


# ---------------------------------------------------------------------------------------------------------- training

RATE, EXACT = 0.25, dict(rtol=0, atol=1e-12)
W = np.random.default_rng(1).normal(size=(COLUMNS, 1))
TARGETS = np.random.default_rng(2).normal(size=(ROWS, 1))


def network():
    output = mx.sym.dot(mx.sym.Variable("data", stype="csr"), mx.sym.Variable("w", shape=(COLUMNS, 1)))
    return mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label"))


def gradient(w, rows):
    """Summed over these rows."""
    return sum((X[row] @ w - TARGETS[row]) * X[row][:, None] for row in rows)


def trained(data, epochs=3, **kwargs):
    """The weights after each step of `fit`, and the module."""
    module, steps = SVRGModule(network(), **kwargs), []
    module.fit(
        data, num_epoch=epochs, eval_metric="mse", arg_params={"w": nd(W)}, initializer=None, kvstore=None,
        optimizer_params={"learning_rate": RATE},
        batch_end_callback=lambda param: steps.append(param.locals["self"].get_params()[0]["w"].asnumpy()),
    )  # fmt: skip
    return steps, module


def svrg(batches_of_epochs, snapshot_is_due):
    """The weights after each step; the full gradient is the mean over all rows."""
    w, steps, snapshot, mu = W.copy(), [], None, None
    for batches in batches_of_epochs:
        for batch in batches:
            if snapshot_is_due(len(steps)):
                snapshot, mu = w.copy(), gradient(w, range(ROWS)) / ROWS
            g = gradient(w, batch) - gradient(snapshot, batch) + len(batch) * mu
            w = w - RATE * g / 4
            steps.append(w.copy())
    return steps


def batches_of_epochs(handling, shuffle, epochs=3):
    orders = orders_of(CSRIter(sparse.csr_matrix(X), batch_size=1, shuffle=shuffle, seed=4), epochs)
    return [[rows for rows, _ in expected(order, 4, handling)] for order in orders]


def train_data(handling="pad", shuffle=False):
    return CSRIter(sparse.csr_matrix(X), TARGETS, 4, shuffle, 4, handling)


@pytest.mark.parametrize("handling", ["pad", "discard"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("schedule", [None, EverySteps(2), Loopless(0.5, seed=1)], ids=str)
def test_training_is_svrg_on_dense_rows(schedule, shuffle, handling):
    kwargs = dict(update_freq=2) if schedule is None else dict(snapshots=schedule)
    steps, _ = trained(train_data(handling, shuffle), **kwargs)
    batches = batches_of_epochs(handling, shuffle)
    if isinstance(schedule, Loopless):
        wanted = svrg(batches, lambda step: step == 0 or uniform(1, step) < 0.5)
    else:
        every = 2 if schedule else 2 * len(batches[0])
        wanted = svrg(batches, lambda step: step % every == 0)
    assert len(steps) == len(wanted) == 3 * len(batches[0])
    np.testing.assert_allclose(steps, wanted, **EXACT)


@pytest.mark.parametrize("handling", HANDLINGS)
@pytest.mark.parametrize("read", [0, 2, 3])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_full_gradient_counts_each_row_once(devices, read, handling):
    data = train_data(handling, shuffle=True)
    module = SVRGModule(network(), context=[mx.cpu(device) for device in range(devices)])
    module.bind(data.provide_data, data.provide_label)
    module.init_params(arg_params={"w": nd(W)}, initializer=None)
    module.init_optimizer(kvstore=None)
    for _ in range(min(read, len(data))):
        next(data)
    module.update_full_grads(data)
    np.testing.assert_allclose(module.full_gradient["w"].asnumpy(), gradient(W, range(ROWS)) / ROWS, **EXACT)
    assert data.cursor == -4


def test_full_gradients_of_a_growing_part():
    drawn = generator(3, 0).permutation(ROWS)[:4]
    _, module = trained(train_data(shuffle=True), epochs=1, snapshots=Growing(4, 2.0, seed=3))
    np.testing.assert_allclose(module.full_gradient["w"].asnumpy(), gradient(W, drawn) / 4, **EXACT)


def test_in_a_loop_of_ones_own_a_snapshot_within_an_epoch():
    data = train_data(shuffle=True)
    module, steps = SVRGModule(network(), snapshots=EverySteps(2)), []
    module.bind(data.provide_data, data.provide_label)
    module.init_params(arg_params={"w": nd(W)}, initializer=None)
    module.init_optimizer(kvstore=None, optimizer_params={"learning_rate": RATE})
    for epoch in range(2):
        if module.snapshot_is_due(epoch):
            module.update_full_grads(data, epoch=epoch)
        # No more than one too many, were the iterator reset again and again.
        for batch in itertools.islice(data, 4):
            module.forward_backward(batch)
            module.update()
            steps.append(module.get_params()[0]["w"].asnumpy())
            if module.snapshot_is_due():
                module.update_full_grads(data)
        data.reset()
    wanted = svrg(batches_of_epochs("pad", True, 2), lambda step: step % 2 == 0)
    np.testing.assert_allclose(steps, wanted, **EXACT)


def test_locked_batches_of_it():
    locked = LockedBatches(train_data(shuffle=True))
    steps, _ = trained(locked, update_freq=2)
    orders = batches_of_epochs("pad", True, 4)
    # A full pass reads the first order, or what comes after a redraw; two epochs have it.
    wanted = svrg([orders[0], orders[0], orders[1]], lambda step: step % 6 == 0)
    np.testing.assert_allclose(steps, wanted, **EXACT)


def test_diagnose_takes_it():
    _, module = trained(train_data(shuffle=True), epochs=1)
    assert diagnose(module, train_data(shuffle=True)) is not None
