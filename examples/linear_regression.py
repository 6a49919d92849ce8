"""SVRG against SGD on linear regression, by `fit`, with a metric and validation data.

    python linear_regression.py
    python linear_regression.py --data YearPredictionMSD.bz2

Without --data it trains on scikit-learn's diabetes data (442 patients, 10
features), in seconds. YearPredictionMSD (463715 songs, 90 features of their
timbre; the label is the year of release) is a file in libsvm's format that you
get from LIBSVM's collection of data sets; it may be compressed. It takes a
minute or so, and the log shows how fast the steps and the full gradients go.

SVRG chooses its steps itself. SGD's step is constant, 1 / the smoothness of a
batch's loss. With --lr both take that step.

You should see SVRG's training error close in on that of the least squares
solution, while SGD's stays above it. The lines below the table say what this is
worth: the error on validation data is soon that of the solution, and with few
features a full-batch solver has the solution much sooner. The picture,
svrg_linear_regression.png, has both errors.
"""

import argparse
import logging
import sys
import time

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="PATH", type=_common.existing_file,
                        help="YearPredictionMSD's libsvm file (default: diabetes)")  # fmt: skip
    parser.add_argument("--passes", type=_common.whole_number(3),
                        help="gradient evaluations per sample; SVRG's first epoch takes 3 (default: 60, or 10 with "
                        "--data)")  # fmt: skip
    parser.add_argument("--batch-size", type=_common.whole_number(), help="(default: 8, or 256 with --data)")
    parser.add_argument("--update-freq", type=_common.whole_number(), default=2,
                        help="epochs between snapshots (default: 2)")  # fmt: skip
    parser.add_argument("--lr", type=_common.positive_number,
                        help="constant step of both (default: 'auto' for SVRG, 1 / smoothness of a batch's loss for "
                        "SGD)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_linear_regression.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true",
                        help="show the log: each full gradient and each epoch (--data shows it, too)")  # fmt: skip
    args = parser.parse_args()
    args.passes = args.passes or (10 if args.data else 60)
    args.batch_size = args.batch_size or (256 if args.data else 8)

import mxnet as mx
import numpy as np
from sklearn.datasets import load_diabetes, load_svmlight_file

from svrg_optimization import SVRGModule


def load(path, batch_size):
    """Return standardised (features, labels) for training and, the last tenth or so, for validation."""
    if path:
        print("Reading {} ...".format(path), flush=True)
        try:
            x, y = load_svmlight_file(path)
        except ValueError as error:
            sys.exit("{} isn't in libsvm's format: {}".format(path, error))
        x = x.toarray()
    else:
        x, y = load_diabetes(return_X_y=True)
    # Whole batches: a metric would count the rows with which a last one is filled up.
    train = len(y) - max(len(y) // 10 // batch_size, 1) * batch_size
    if train < batch_size:
        sys.exit("--batch-size must be at most {}, half of the samples, not {}".format(len(y) // 2, batch_size))
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


def train(name, module, data, validation, epochs, lr, least_squares):
    """Train by `fit`; return for each epoch (training error above the least, validation error), and the seconds."""
    print("{}: {} epochs ...".format(name, epochs), flush=True)
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
    seconds = time.perf_counter() - started
    print("{}: {:.1f} s".format(name, seconds), flush=True)
    return list(zip(training_errors, validation_errors)), seconds


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
    best, last = min(training for training, _ in sgd), svrg[-1][0]
    print("\nTraining error above that of the least squares solution:")
    print("  SVRG's is {:.1e} at the end; SGD's is {:.1e} at the end, and {:.1e} at its best.".format(
        last, sgd[-1][0], best))  # fmt: skip
    print("  SVRG came {} than SGD ever did.".format(
        "{:.2g} times closer".format(best / last) if last < best else "no closer"))  # fmt: skip

    errors = [validation for _, validation in svrg]
    first = first_within(errors, exact)
    print("\nValidation error:")
    print("  Least squares has {:.4f}; SVRG {:.4f} at the end; SGD {:.4f} at the end, {:.4f} at its best.".format(
        exact, errors[-1], sgd[-1][1], min(validation for _, validation in sgd)))  # fmt: skip
    if first is None:
        print("  SVRG's isn't within 1 % of least squares' yet: more passes may help.")
    else:
        print("  SVRG's is within 1 % of least squares' from pass {} on. Further passes make no".format(passes[first]))
        print("  better predictions. They are for whoever wants the solution itself.")

    print("\nTime:")
    print("  SVRG trained for {:.2g} s. NumPy solved the normal equations in {:.2g} s.".format(seconds, solver_seconds))
    print("  " + ("With so few features a full-batch solver is the quicker way to the solution."
                  if solver_seconds < seconds else "Here SVRG is quicker."))  # fmt: skip


def draw(sgd, svrg, passes, exact, path):
    """Draw the training errors above the least one, log scale, and below them the validation errors."""
    title = "Linear regression, mean squared errors: SGD and SVRG"
    figure, (training, validation) = _common.new_figure(title, [3.2, 2.4], sharex=True)
    for name, color, x, errors in (
        ("SGD, constant step", "#a0a0a0", range(1, len(sgd) + 1), sgd),
        ("SVRG, " + ("constant step" if args.lr else "'auto'"), "#103d7c", passes, svrg),
    ):
        training.semilogy(x, [error for error, _ in errors], color=color, label=name)
        validation.plot(x, [error for _, error in errors], color=color)
    validation.axhline(exact, color="#e07b00", linestyle="--", zorder=5, label="least squares")
    training.set_ylabel("training error, above the least")
    validation.set_ylabel("validation error")
    validation.set_xlabel("gradient evaluations / n  (passes)")
    training.legend(loc="lower left", frameon=False)
    validation.legend(loc="upper right")
    figure.savefig(path)


def main():
    """Run the example."""
    # The log is for long trainings. Without basicConfig, Python shows warnings only.
    level = logging.INFO if args.verbose or args.data else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stdout, format="    %(message)s")
    data, validation = load(args.data, args.batch_size)
    (x, y), (x_validation, y_validation) = data, validation
    # A squared loss is curved alike everywhere, so the step must not be too long for the longest sample.
    constant = args.lr or _common.step_size(x, args.batch_size, curvature=1, of_samples=np.max)
    chosen = args.lr or "auto"
    print("{} samples, {} features, batches of {}; SGD's step {:.3g}, SVRG's {}".format(
        *x.shape, args.batch_size, constant, chosen if chosen == "auto" else "the same"), flush=True)  # fmt: skip
    least_squares = LeastSquares(x, y)

    module = mx.mod.Module(network(), label_names=["label"])
    sgd, _ = train("SGD", module, data, validation, args.passes, constant, least_squares)
    module = SVRGModule(network(), label_names=["label"], update_freq=args.update_freq)
    epochs = _common.epochs_within(args.passes, args.update_freq)
    svrg, seconds = train("SVRG", module, data, validation, epochs, chosen, least_squares)

    print("\nMean squared errors (1 is that of the mean label), after so many passes over the data:\n")
    print("           training, above the least      validation")
    print("passes            SGD        SVRG         SGD    SVRG")
    passes = [_common.passes_after(epoch, args.update_freq) for epoch in range(1, epochs + 1)]
    for after, (training, validation_error) in zip(passes, svrg):
        print("{:6}{:15.2e}{:12.2e}{:12.4f}{:8.4f}".format(
            after, sgd[after - 1][0], training, sgd[after - 1][1], validation_error))  # fmt: skip
    exact = np.mean((_common.with_bias(x_validation) @ least_squares.solution - y_validation.ravel()) ** 2)
    print_conclusion(sgd, svrg, passes, exact, seconds, least_squares.seconds)
    draw(sgd, svrg, passes, exact, args.output)
    print("\nPicture: {}".format(args.output))


if __name__ == "__main__":
    main()
