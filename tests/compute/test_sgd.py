"""The prepared update by SGD, behind our optimizer, against mxnet's own, bit for bit, at every step."""

import pickle

import mxnet as mx
import numpy as np
import pytest

from svrg_optimization import _SVRGOptimizer
from svrg_optimization.compute.sgd import LARGE, PreparedSGD
from svrg_optimization.compute.updater import Updater

SHAPES = [(3, 4), (LARGE,), (5,), (2, LARGE), (1,), (7, 2)]
NAMES = {0: "a_weight", 1: "b_weight", 2: "b_bias", 3: "c_weight", 4: "c_bias", 5: "d_weight"}


def updater_of_ours(optimizer):
    """As SVRGModule installs it."""
    wrapper = _SVRGOptimizer(optimizer)
    wrapper.prepared = PreparedSGD()
    return Updater(wrapper)


MAKERS = (mx.optimizer.Updater, updater_of_ours)


class Twins:
    """The same weights, one set updated by mxnet's SGD and one by ours."""

    def __init__(self, optimizer=mx.optimizer.SGD, dtype="float32", seed=0, **settings):
        self.random, self.dtype = np.random.RandomState(seed), dtype
        settings = {"learning_rate": 0.3, "param_idx2name": NAMES, "rescale_grad": 1 / 96, **settings}
        self.updaters = [make(optimizer(**settings)) for make in MAKERS]
        values = self.draw()
        self.weights = [self.arrays(values), self.arrays(values)]
        self.gradients = [self.arrays(values), self.arrays(values)]

    def draw(self):
        return [self.random.randn(*shape) for shape in SHAPES]

    def arrays(self, values):
        return [mx.nd.array(value, dtype=self.dtype) for value in values]

    def each(self, change):
        for updater in self.updaters:
            change(updater)

    def step(self, which=range(len(SHAPES))):
        """One update of some of the weights, with new gradients; afterwards all is equal."""
        values = self.draw()
        for updater, weights, gradients in zip(self.updaters, self.weights, self.gradients):
            for gradient, value in zip(gradients, values):
                gradient[:] = value
            # Module hands over tuples.
            updater(tuple(which), tuple(gradients[i] for i in which), tuple(weights[i] for i in which))
        self.check()

    def check(self):
        theirs, ours = self.updaters
        for expected, weight in zip(*self.weights):
            np.testing.assert_array_equal(weight.asnumpy(), expected.asnumpy())
        assert ours.states.keys() == theirs.states.keys()
        for key, expected in theirs.states.items():
            for one, other in zip(flat(ours.states[key]), flat(expected)):
                np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())
        assert ours.states_synced == theirs.states_synced
        for name in ("num_update", "_index_update_count", "lr", "learning_rate"):
            assert getattr(ours.optimizer, name) == getattr(theirs.optimizer, name)


def flat(state):
    parts = state if isinstance(state, tuple) else (state,)
    return [part for part in parts if part is not None]


@pytest.fixture
def updates_by_mxnet(monkeypatch):
    """How many weights SGD itself has been asked to update."""
    asked = []
    original = mx.optimizer.SGD.update_multi_precision

    def update(self, index, *arrays):
        asked.extend(index if isinstance(index, (list, tuple)) else [index])
        original(self, index, *arrays)

    monkeypatch.setattr(mx.optimizer.SGD, "update_multi_precision", update)
    return asked


@pytest.mark.filterwarnings("ignore:Accumulating with float16")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("clip_gradient", [None, 0.004])
@pytest.mark.parametrize("wd", [0.0, 0.01])
@pytest.mark.parametrize("momentum", [0.0, 0.9, -0.5])
def test_the_same_bits(momentum, wd, clip_gradient, dtype):
    twins = Twins(momentum=momentum, wd=wd, clip_gradient=clip_gradient, dtype=dtype)
    for _ in range(4):
        twins.step()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    "rates",
    [(1.111, 0.0), (1.703, 0.0001), (7.498279847852245e-05, 0.0), (3.6e-05, 0.01), (0.5, 2.9975208007006097e-05),
     (1e-40, 0.0), (0.5, 1e-46), (1, 0), (np.float32(0.1), 0.0), (0.12345678901234567, 0.0)],
    ids=str,
)  # fmt: skip
def test_rates_that_mxnet_reads_otherwise_in_a_list_than_alone(rates, momentum):
    learning_rate, wd = rates
    twins = Twins(learning_rate=learning_rate, wd=wd, momentum=momentum, rescale_grad=1.0)
    for _ in range(4):
        twins.step()


def test_a_thousand_rates_are_read_alike():
    random = np.random.RandomState(5)
    weights = [mx.nd.zeros(LARGE) for _ in range(2)]
    gradient = -mx.nd.ones(LARGE)
    theirs, ours = (make(mx.optimizer.SGD(learning_rate=1.0)) for make in MAKERS)
    for rate in 10 ** random.uniform(-9, 2, size=1000):
        for updater, weight in zip((theirs, ours), weights):
            updater.optimizer.set_learning_rate(rate)
            weight[:] = 0
            updater([0], [gradient], [weight])
        assert weights[0][0].asscalar() == weights[1][0].asscalar(), rate


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_states_that_are_gone_are_made_anew(momentum):
    twins = Twins()
    for _ in range(3):
        twins.step()
    for updater in twins.updaters:
        updater.set_states(type(updater)(updater.optimizer).get_states())
        updater.optimizer.momentum = momentum
    for _ in range(3):
        twins.step()


@pytest.mark.filterwarnings("ignore:Accumulating with float16")
@pytest.mark.parametrize("change", [{"momentum": 0.9}, {"multi_precision": True, "momentum": 0.5}], ids=str)
def test_states_that_no_longer_fit_are_the_errors_that_mxnet_raises(change):
    twins = Twins(dtype="float16", momentum=0.5 if "multi_precision" in change else 0.0)
    for _ in range(3):
        twins.step()
    errors = []
    for updater, weights, gradients in zip(twins.updaters, twins.weights, twins.gradients):
        for name, value in change.items():
            setattr(updater.optimizer, name, value)
        with pytest.raises(Exception) as raised:  # noqa: PT011, whatever it is, both raise it
            updater([*range(len(SHAPES))], gradients, weights)
        errors.append((raised.type, str(raised.value)))
    assert errors[0] == errors[1]


def test_an_updater_can_be_copied():
    twins = Twins(momentum=0.9)
    for _ in range(3):
        twins.step()
    copied = pickle.loads(pickle.dumps(twins.updaters[1]))
    np.testing.assert_array_equal(copied.states[0].asnumpy(), twins.updaters[1].states[0].asnumpy())


def test_names_as_bytes():
    results = []
    for make in MAKERS:
        weight = mx.nd.ones(2)
        updater = make(mx.optimizer.SGD(learning_rate=0.5, wd=0.1))
        for _ in range(4):
            updater([b"w"], [weight * 2], [weight])
        results.append((weight.asnumpy().tolist(), updater.optimizer._index_update_count))
    assert results[0] == results[1]


def test_sgd_is_asked_only_the_first_time(updates_by_mxnet):
    twins = Twins(momentum=0.9)
    twins.step()
    del updates_by_mxnet[:]
    for _ in range(3):
        twins.step()
    assert len(updates_by_mxnet) == 3 * len(SHAPES), "mxnet's Updater asks, ours doesn't"


CHANGES = {
    "learning rate": lambda updater: updater.optimizer.set_learning_rate(0.05),
    "lr_mult": lambda updater: updater.optimizer.set_lr_mult({"a_weight": 0.5, "c_weight": 0.25}),
    "wd_mult": lambda updater: updater.optimizer.set_wd_mult({"b_weight": 3.0, "c_bias": 2.0}),
    "wd": lambda updater: setattr(updater.optimizer, "wd", 0.5),
    "momentum": lambda updater: setattr(updater.optimizer, "momentum", 0.25),
    "no momentum": lambda updater: setattr(updater.optimizer, "momentum", 0.0),
    "rescale_grad": lambda updater: setattr(updater.optimizer, "rescale_grad", 0.5),
    "clip_gradient": lambda updater: setattr(updater.optimizer, "clip_gradient", 0.001),
    "states": lambda updater: updater.set_states(updater.get_states()),
    "states and optimizer": lambda updater: updater.set_states(updater.get_states(dump_optimizer=True)),
    "another optimizer": lambda updater: setattr(updater, "optimizer", mx.optimizer.SGD(momentum=0.5, wd=0.1)),
    "another device": lambda updater: updater.optimizer._set_current_context(1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_changed_counts_from_the_next_step_on(change):
    twins = Twins(momentum=0.9, wd=0.01)
    for _ in range(3):
        twins.step()
    twins.each(change)
    for _ in range(3):
        twins.step()


def test_a_schedule():
    twins = Twins(lr_scheduler=mx.lr_scheduler.FactorScheduler(step=2, factor=0.5))
    for _ in range(7):
        twins.step()


def test_weights_that_come_in_turn_have_counts_of_their_own():
    schedule = mx.lr_scheduler.PolyScheduler(max_update=20)
    twins = Twins(momentum=0.5, lr_scheduler=schedule)
    for which in 3 * [(0, 1, 2, 3, 4, 5), (0, 1), (0, 1), (4, 5), (0, 1, 2, 3, 4, 5)]:
        twins.step(which)


def test_new_arrays_of_the_same_number():
    twins = Twins(momentum=0.9)
    for _ in range(3):
        twins.step()
    for k in (0, 1):
        twins.weights[k] = [weight.copy() for weight in twins.weights[k]]
        twins.step()
        twins.gradients[k] = [gradient.copy() for gradient in twins.gradients[k]]
        twins.step()


@pytest.mark.parametrize("aggregation", ["0", "1", "3", "60"])
def test_any_number_of_weights_at_once(monkeypatch, aggregation):
    monkeypatch.setenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", aggregation)
    twins = Twins(momentum=0.5, lr_scheduler=mx.lr_scheduler.PolyScheduler(max_update=20))
    for _ in range(4):
        twins.step()


class Half(mx.optimizer.SGD):
    """SGD at half the rate."""

    def update_multi_precision(self, index, weight, grad, state):
        super().update_multi_precision(index, weight, [0.5 * each for each in grad], state)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": Half},
        {"optimizer": mx.optimizer.Adam},
        {"dtype": "float16", "multi_precision": True, "momentum": 0.9},
    ],
    ids=["subclass of SGD", "Adam", "multi_precision"],
)
def test_other_optimizers_are_left_to_mxnet(settings):
    twins = Twins(**settings)
    for _ in range(4):
        twins.step()


def test_sparse_gradients_and_mixed_types_are_left_to_mxnet():
    for dtype, stype in (("float64", "default"), ("float32", "row_sparse")):
        results = []
        for make in MAKERS:
            updater = make(mx.optimizer.SGD(learning_rate=0.5, momentum=0.5, wd=0.25))
            weights = [mx.nd.ones((3, 2)), mx.nd.ones((3, 2), dtype=dtype)]
            gradients = [weights[0] * 2, mx.nd.array([[0, 0], [1, 2], [0, 0]], dtype=dtype).tostype(stype)]
            for _ in range(4):
                updater([0, 1], gradients, weights)
            results.append([weight.asnumpy() for weight in weights])
        np.testing.assert_array_equal(*results)


def test_an_array_alone():
    updater = updater_of_ours(mx.optimizer.SGD(learning_rate=0.5))
    weight = mx.nd.array([4.0])
    for _ in range(3):
        updater(0, mx.nd.array([2.0]), weight)
    assert weight.asscalar() == 1.0
