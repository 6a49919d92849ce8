"""SVRG against SGD on linear regression, with the high-level API: `fit`, an evaluation metric and validation data.

    python linear_regression.py [--data YearPredictionMSD]

Without --data it trains on scikit-learn's diabetes data, in seconds. YearPredictionMSD (463715 songs, 90 features of
their timbre, the year they were released) is a file in libsvm's format that you get from its collection of data sets;
it may be compressed (.bz2). It takes a minute or so, and mxnet's Speedometer shows how fast the steps and the full
gradients go.

SVRG chooses its steps itself; SGD's is constant, 1 / the smoothness of a batch's loss. With --lr both take that step.

You should see SVRG's training error close in on that of the least squares solution, while SGD's stays above it. Below
the table is what that is worth, from the numbers: the error on validation data is soon that of the solution, and with
few features a full-batch solver has the solution much sooner.
"""

import argparse
import logging
import sys
import time

import _common
import mxnet as mx
import numpy as np
from sklearn.datasets import load_diabetes, load_svmlight_file

from svrg_optimization import SVRGModule


def load(path, batch_size):
    """Return standardised (features, labels) for training and, the last tenth or so, for validation."""
    if path:
        print("reading {} ...".format(path), flush=True)
        x, y = load_svmlight_file(path)
        x = x.toarray()
    else:
        x, y = load_diabetes(return_X_y=True)
    # Whole batches: a metric would count the rows with which a last one is filled up.
    train = len(y) - max(len(y) // 10 // batch_size, 1) * batch_size
    x = (x - x[:train].mean(axis=0)) / x[:train].std(axis=0)
    y = (y - y[:train].mean()) / y[:train].std()
    y = y.reshape(-1, 1)
    return (x[:train], y[:train]), (x[train:], y[train:])


class LeastSquares:
    """The exact solution; its parts are small matrices, however many samples there are."""

    def __init__(self, x, y):
        started = time.perf_counter()
        rows = _common.with_bias(x)
        self.moments = rows.T @ rows / len(rows)
        self.solution = np.linalg.lstsq(self.moments, rows.T @ y / len(rows), rcond=None)[0].ravel()
        self.seconds = time.perf_counter() - started

    def above_minimum(self, params):
        """Return by how much a module's mean squared error on the training data is above the least one."""
        weights = np.append(params["fc_weight"].asnumpy(), params["fc_bias"].asnumpy()).astype(np.float64)
        away = weights - self.solution
        return away @ self.moments @ away


def network():
    """Return the symbol of a linear model with a squared loss."""
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    return mx.sym.LinearRegressionOutput(output, mx.sym.Variable("label"))


def train(module, data, validation, epochs, lr, args, least_squares):
    """Train by `fit`; return for each epoch (training error above the least, validation error), and the seconds."""
    np.random.seed(0)  # of NDArrayIter's shuffling
    training_errors, validation_errors = [], []
    progress = {"batch_end_callback": mx.callback.Speedometer(args.batch_size, 200)}
    if isinstance(module, SVRGModule):
        progress["full_grads_batch_end_callback"] = mx.callback.Speedometer(args.batch_size, 200)
    started = time.perf_counter()
    module.fit(
        mx.io.NDArrayIter(*data, args.batch_size, shuffle=True, label_name="label"),
        eval_data=mx.io.NDArrayIter(*validation, args.batch_size, label_name="label"),
        eval_metric="mse",
        num_epoch=epochs,
        optimizer="sgd",
        optimizer_params={"learning_rate": lr},
        initializer=mx.init.Zero(),
        epoch_end_callback=lambda epoch, symbol, arg_params, aux_params: training_errors.append(
            least_squares.above_minimum(arg_params)
        ),
        eval_end_callback=lambda param: validation_errors.append(param.eval_metric.get()[1]),
        **progress,
    )
    return list(zip(training_errors, validation_errors)), time.perf_counter() - started


def first_within(errors, target):
    """Return the number of the first error from which on all are within 1 % of the target, or None."""
    first = None
    for number, error in enumerate(errors):
        if abs(error - target) > 0.01 * target:
            first = None
        elif first is None:
            first = number
    return first


def print_conclusion(sgd, svrg, passes, exact, seconds, solver_seconds):
    """Print what the numbers say: where SVRG is better, and where it isn't worth its passes."""
    best = min(training for training, _ in sgd)
    last = svrg[-1][0]
    print("\nTraining: SVRG ended {:.1e} above the least squares solution, SGD {:.1e}, and at its best {:.1e}.".format(
        last, sgd[-1][0], best))  # fmt: skip
    print("SVRG came {} than SGD ever did.".format("{:.2g} times closer".format(best / last) if last < best else
                                                  "no closer"))  # fmt: skip
    errors = [validation for _, validation in svrg]
    first = first_within(errors, exact)
    print("\nValidation: that of least squares is {:.4f}, SVRG's {:.4f}, SGD's {:.4f}, and at its best {:.4f}.".format(
        exact, errors[-1], sgd[-1][1], min(validation for _, validation in sgd)))  # fmt: skip
    if first is None:
        print("SVRG's isn't within 1 % of least squares' yet: more passes may help.")
    else:
        print("SVRG's is within 1 % of it from pass {} on. Further passes are of no use to predictions, but to\n"
              "whoever wants the solution itself.".format(passes[first]))  # fmt: skip
    print("\nTime: SVRG trained {:.2g} s; NumPy has solved the normal equations in {:.2g} s. {}".format(
        seconds, solver_seconds, "With so few features a full-batch solver is\nthe quicker way to the solution."
        if solver_seconds < seconds else "Here SVRG is quicker."))  # fmt: skip


def main():
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="PATH", help="YearPredictionMSD's libsvm file (default: diabetes)")
    parser.add_argument("--passes", type=int, help="gradient evaluations per sample (default: 60, or 10 with --data)")
    parser.add_argument("--batch-size", type=int, help="(default: 8, or 256 with --data)")
    parser.add_argument("--update-freq", type=int, default=2, help="epochs between snapshots (default: 2)")
    parser.add_argument("--lr", type=float, help="constant step of both (default: 'auto' for SVRG, 1 / smoothness of a "
                        "batch's loss for SGD)")  # fmt: skip
    args = parser.parse_args()
    args.passes = args.passes or (10 if args.data else 60)
    args.batch_size = args.batch_size or (256 if args.data else 8)
    if args.passes < 3:
        parser.error("--passes must be at least 3: the first epoch of SVRG costs as many")
    # What Module and Speedometer have to say is for long runs.
    logging.basicConfig(level=logging.INFO if args.data else logging.WARNING, stream=sys.stdout, format="%(message)s")

    data, validation = load(args.data, args.batch_size)
    (x, y), (x_validation, y_validation) = data, validation
    # A squared loss is curved alike everywhere, so that the longest sample must not be stepped over.
    constant = args.lr or _common.step_size(x, args.batch_size, curvature=1, of_samples=np.max)
    chosen = args.lr or "auto"
    print("{} samples, {} features, batches of {}; SGD's step {:.3g}, SVRG's {}".format(
        *x.shape, args.batch_size, constant, chosen if chosen == "auto" else "the same"), flush=True)  # fmt: skip
    least_squares = LeastSquares(x, y)

    module = mx.mod.Module(network(), label_names=["label"])
    sgd, _ = train(module, data, validation, args.passes, constant, args, least_squares)
    module = SVRGModule(network(), label_names=["label"], update_freq=args.update_freq)
    epochs = _common.epochs_within(args.passes, args.update_freq)
    svrg, seconds = train(module, data, validation, epochs, chosen, args, least_squares)

    print("\nMean squared errors (1 is that of the mean label), after so many passes over the data:\n")
    print("           training, above the least      validation")
    print("passes            SGD        SVRG         SGD    SVRG")
    passes = [_common.passes_after(epoch, args.update_freq) for epoch in range(1, epochs + 1)]
    for after, (training, validation_error) in zip(passes, svrg):
        print("{:6}{:15.2e}{:12.2e}{:12.4f}{:8.4f}".format(
            after, sgd[after - 1][0], training, sgd[after - 1][1], validation_error))  # fmt: skip
    exact = np.mean((_common.with_bias(x_validation) @ least_squares.solution - y_validation.ravel()) ** 2)
    print_conclusion(sgd, svrg, passes, exact, seconds, least_squares.seconds)


if __name__ == "__main__":
    main()
