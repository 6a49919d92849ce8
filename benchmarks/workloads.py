"""The networks that are timed, and data for them made from a seed."""

from typing import Any, Callable, Dict, NamedTuple, Tuple

import mxnet as mx
import numpy as np

SEED = 0


class Workload(NamedTuple):
    """A network with data of the right shape; the labels are random, for time doesn't depend on them.

    `slow_batches` is the number of batches of an epoch for a contender that needs seconds a step.
    """

    title: str
    symbol: Callable[[], Any]
    samples: Callable[[np.random.Generator, int], Tuple[np.ndarray, np.ndarray]]
    batch_size: int
    batches: int
    slow_batches: int
    metric: str = "acc"
    learning_rate: float = 0.01

    def data(self, batches: int) -> Tuple[Any, Any]:
        """The data and labels of so many batches, as NDArrays."""
        x, y = self.samples(np.random.default_rng(SEED), batches * self.batch_size)
        return mx.nd.array(x, dtype=x.dtype), mx.nd.array(y, dtype=y.dtype)

    def iterator(self, data: Tuple[Any, Any]) -> Any:
        """An iterator of its own over `data`."""
        return mx.io.NDArrayIter(*data, batch_size=self.batch_size)


# ------------------------------------------------------------------------------------------------------------ data


def _real(rng: np.random.Generator, shape: Tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _classes(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 10, n).astype(np.float32)


def _regression(rng: np.random.Generator, n: int) -> Tuple[np.ndarray, np.ndarray]:
    x = _real(rng, (n, 90))
    return x, x @ _real(rng, (90, 1)) + _real(rng, (n, 1))


def _images(*shape: int) -> Callable[[np.random.Generator, int], Tuple[np.ndarray, np.ndarray]]:
    return lambda rng, n: (_real(rng, (n,) + shape), _classes(rng, n))


VOCABULARY, TOKENS, WIDTH = 100_000, 20, 32


def _token_rows(rng: np.random.Generator, n: int) -> Tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, VOCABULARY, (n, TOKENS)).astype(np.float32), _classes(rng, n)


# -------------------------------------------------------------------------------------------------------- networks


def _data() -> Any:
    return mx.sym.Variable("data")


def _activation(data: Any, kind: str = "relu") -> Any:
    # Not mx.sym.relu and mx.sym.tanh: with those, the ResNet takes three times the memory.
    return mx.sym.Activation(data, act_type=kind)


def _classifier(features: Any) -> Any:
    scores = mx.sym.FullyConnected(features, num_hidden=10, name="scores")
    return mx.sym.SoftmaxOutput(scores, mx.sym.Variable("softmax_label"), name="softmax")


def linear() -> Any:
    output = mx.sym.FullyConnected(_data(), num_hidden=1, name="fc")
    return mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label"), name="output")


def softmax() -> Any:
    return _classifier(_data())


def mlp() -> Any:
    hidden = _data()
    for layer, width in enumerate((256, 128), 1):
        hidden = _activation(mx.sym.FullyConnected(hidden, num_hidden=width, name="fc%d" % layer))
    return _classifier(hidden)


def lenet() -> Any:
    hidden = _data()
    for layer, filters in enumerate((20, 50), 1):
        hidden = _activation(
            mx.sym.Convolution(hidden, kernel=(5, 5), num_filter=filters, name="conv%d" % layer), "tanh"
        )
        hidden = mx.sym.Pooling(hidden, pool_type="max", kernel=(2, 2), stride=(2, 2))
    return _classifier(_activation(mx.sym.FullyConnected(hidden, num_hidden=500, name="fc1"), "tanh"))


def _convolution(data: Any, filters: int, name: str, kernel: int = 3, stride: int = 1) -> Any:
    output = mx.sym.Convolution(data, kernel=(kernel, kernel), stride=(stride, stride), pad=(kernel // 2, kernel // 2),
                                num_filter=filters, no_bias=True, name=name + "_conv")  # fmt: skip
    return mx.sym.BatchNorm(output, fix_gamma=False, name=name + "_bn")


def resnet20() -> Any:
    """He et al. (2016) for CIFAR: three stages of three blocks of two convolutions, 16, 32 and 64 filters."""
    hidden = _activation(_convolution(_data(), 16, "first"))
    for stage, filters in enumerate((16, 32, 64), 1):
        for block in (1, 2, 3):
            name, stride = "stage%d_block%d" % (stage, block), 2 if stage > 1 and block == 1 else 1
            residual = _activation(_convolution(hidden, filters, name + "_a", stride=stride))
            residual = _convolution(residual, filters, name + "_b")
            shortcut = hidden if stride == 1 else _convolution(hidden, filters, name + "_s", kernel=1, stride=2)
            hidden = _activation(residual + shortcut)
    return _classifier(mx.sym.Pooling(hidden, global_pool=True, pool_type="avg", kernel=(1, 1)))


def embedding() -> Any:
    """A dense embedding, averaged over the tokens of a row."""
    rows = mx.sym.Embedding(_data(), input_dim=VOCABULARY, output_dim=WIDTH, name="embedding")
    return _classifier(mx.sym.mean(rows, axis=1))


WORKLOADS: Dict[str, Workload] = {
    "linear": Workload("linear 90 features, batch 100, 5k rows", linear, _regression, 100, 50, 50, "mse"),
    "softmax": Workload("softmax 784x10, batch 128", softmax, _images(784), 128, 50, 25),
    "mlp": Workload("MLP 784-256-128-10, batch 128", mlp, _images(784), 128, 40, 5),
    "lenet": Workload("LeNet 28x28, batch 64", lenet, _images(1, 28, 28), 64, 20, 5),
    "resnet20": Workload("ResNet-20 32x32, batch 32", resnet20, _images(3, 32, 32), 32, 10, 4),
    "embedding": Workload("dense embedding 100k x 32, batch 128", embedding, _token_rows, 128, 40, 1),
}

# Memory alone is measured for these too: a batch whose activations, not its weights, fill the memory.
MEMORY_ONLY: Dict[str, Workload] = {
    "resnet20-256": WORKLOADS["resnet20"]._replace(title="ResNet-20 32x32, batch 256", batch_size=256, batches=2),
}
CONVNETS = ("lenet", "resnet20", "resnet20-256")
