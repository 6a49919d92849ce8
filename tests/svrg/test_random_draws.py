"""No operator of mxnet that draws random numbers is unknown to random_draws."""

import mxnet as mx
import numpy as np
import pytest
from mxnet.operator import get_all_registered_operators

from svrg_optimization.svrg.random_draws import _is_random, draws_random_numbers

SUSPECTS = [
    name for name in get_all_registered_operators()
    if any(word in name.lower() for word in ("random", "sample_", "shuffle", "dropout", "bernoulli"))
    and "backward" not in name and "_pdf_" not in name and not name.startswith(("_contrib_dgl", "_random_pdf"))
]  # fmt: skip
# One representative of each of mxnet's imperative families, so that the names above are what a symbol's JSON says.
DRAWN = {
    "Dropout": lambda x: mx.sym.Dropout(x),
    "normal": lambda x: mx.sym.random.normal(shape=(2,)) + x,
    "uniform": lambda x: mx.sym.random.uniform(shape=(2,)) + x,
    "normal_like": lambda x: mx.sym.random.normal_like(x),
    "randint": lambda x: mx.sym.random.randint(0, 5, shape=(2,)),
    "sample": lambda x: mx.sym.sample_normal(x, x),
    "multinomial": lambda x: mx.sym.sample_multinomial(x),
    "shuffle": lambda x: mx.sym.shuffle(x),
    "rrelu": lambda x: mx.sym.LeakyReLU(x, act_type="rrelu"),
    "RNN": lambda x: mx.sym.RNN(x, state_size=2, num_layers=2, p=0.5, mode="rnn_tanh"),
}


def test_there_are_suspects():
    assert len(SUSPECTS) > 50


@pytest.mark.parametrize("operator", SUSPECTS)
def test_every_operator_that_sounds_random_is_known(operator):
    assert _is_random(operator, {})


@pytest.mark.parametrize("operator", DRAWN)
def test_random_symbols_are_recognised(operator):
    assert draws_random_numbers(DRAWN[operator](mx.sym.Variable("x")))


@pytest.mark.parametrize("build", [mx.sym.relu, lambda x: mx.sym.LeakyReLU(x, act_type="leaky"),
                                   lambda x: mx.sym.RNN(x, state_size=2, num_layers=2, mode="rnn_tanh"),
                                   lambda x: mx.sym.random_pdf_uniform(x, x, x), mx.sym.gammaln])  # fmt: skip
def test_other_symbols_do_not_pay_for_seeding(build):
    assert not draws_random_numbers(build(mx.sym.Variable("x")))


def test_a_stream_can_be_repeated_and_continued():
    from svrg_optimization.svrg.random_draws import DrawStream

    stream = DrawStream(active=True)
    stream.advance()
    first = mx.nd.random.uniform(shape=9).asnumpy()
    stream.repeat()
    assert np.array_equal(first, mx.nd.random.uniform(shape=9).asnumpy())
    other = DrawStream(active=True)
    other.position = list(stream.position)
    draws = []
    for continued in (stream, other):
        continued.advance()
        draws.append(mx.nd.random.uniform(shape=9).asnumpy())
    assert np.array_equal(*draws) and not np.array_equal(first, draws[0])
