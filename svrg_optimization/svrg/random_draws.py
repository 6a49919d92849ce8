"""Random operators (Dropout and the like) must draw the same numbers at the snapshot as at the current weights.

The control variate is correlated with the gradient only if both saw the same masks. mxnet's generators can't be
saved and set back, but they can be seeded: a `DrawStream` numbers the draws, so that one draw can be made twice,
and so that training goes on from a checkpoint with the very draws of the uninterrupted run.
"""

import re
from typing import Any, Dict, List

import mxnet as mx

from .networks import operators

_ALWAYS_RANDOM = re.compile(
    r"(_npx_)?(d|D)ropout$"
    r"|_?shuffle$|_npi_shuffle$"
    r"|_?(random|sample)_(?!pdf_)"
    r"|(normal|uniform)$"
    r"|_npi_(bernoulli|choice|exponential|gamma|gumbel|logistic|multinomial|normal|normal_n|pareto|random_randint"
    r"|rayleigh|uniform|uniform_n|weibull)$"
    r"|_(image|npx__image)_random_"
)


def draws_random_numbers(symbol: Any) -> bool:
    """Whether an operator of `symbol` draws random numbers when training.

    >>> data = mx.sym.Variable('data')
    >>> draws_random_numbers(mx.sym.Dropout(data, p=0.5)), draws_random_numbers(mx.sym.relu(data))
    (True, False)
    """
    return any(_is_random(name, attributes) for name, attributes in operators(symbol))


def draws_by_itself(symbol: Any) -> bool:
    """Whether an operator of `symbol` is written in Python, and may draw random numbers that can't be repeated."""
    return any(name == "Custom" for name, _ in operators(symbol))


def _is_random(operator: str, attributes: Any) -> bool:
    if operator in ("RNN", "_npx_rnn"):
        return float(attributes.get("p", 0)) > 0
    if operator in ("LeakyReLU", "_npx_leaky_relu"):
        return attributes.get("act_type") == "rrelu"
    return _ALWAYS_RANDOM.match(operator) is not None


class DrawStream:
    """A sequence of draws of mxnet's generators, each of which can be repeated.

    It is `active` if anything draws: the network, or an optimizer like SGLD, from `activate` on. Seeding costs about
    1.5 ms, and a run without random draws never pays it.

    >>> stream = DrawStream(active=True)
    >>> stream.advance(); first = mx.nd.random.uniform(shape=3).asnumpy()
    >>> stream.repeat(); (mx.nd.random.uniform(shape=3).asnumpy() == first).all()
    True
    >>> stream.advance(); (mx.nd.random.uniform(shape=3).asnumpy() == first).any()
    False
    """

    def __init__(self, active: bool) -> None:
        self.active = active
        # Where the stream is: [base, number of draws]. The base comes from mxnet's own generator at the first
        # draw, so that mx.random.seed governs the whole run.
        self.position: List[int] = []

    def activate(self) -> None:
        """Draw from now on, for something else that draws."""
        self.active = True

    def follow(self, other: "DrawStream") -> None:
        """Be wherever `other` is, from now on."""
        self.position = other.position

    def advance(self) -> None:
        """Seed mxnet's generators for the next draw."""
        self.next()
        self.repeat()

    def next(self) -> None:
        """Go to the next draw; `repeat` seeds mxnet's generators for it."""
        if not self.active:
            return
        if not self.position:
            self.position += [int(mx.nd.random.randint(0, 2**31 - 1, shape=1).asscalar()), 0]
        self.position[1] += 1

    def repeat(self) -> None:
        """Seed mxnet's generators for the same draw again."""
        if self.active:
            mx.random.seed(_mixed(*self.position))

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return {"position": list(self.position)}

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state."""
        self.position[:] = state["position"]


def _mixed(base: int, number: int) -> int:
    """A seed of 31 bits for draw `number`: neighbours differ, by SplitMix64 (Steele, Lea & Flood, 2014).

    >>> _mixed(1, 1) != _mixed(1, 2)
    True
    """
    z = (base + number * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return (z ^ (z >> 31)) >> 33
