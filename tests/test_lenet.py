"""examples/lenet.py: MNIST's files, good and damaged, the digits, and SVRG against Module."""

import argparse
import gzip
import os
import pathlib
import re
import runpy
import struct
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

LENET = pathlib.Path(__file__).resolve().parent.parent / "examples" / "lenet.py"
TRAINING, TRAINING_LABELS, TEST, TEST_LABELS = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
)  # fmt: skip
WHERE = "MNIST's files are at https://"


def idx(array):
    """The bytes of an idx file."""
    return struct.pack(">HBB{}I".format(array.ndim), 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def images_and_labels(rng, number):
    """Images of a bright square, whose place is the label."""
    labels = np.arange(number) % 10
    images = rng.integers(0, 60, size=(number, 28, 28))
    for image, label in zip(images, labels):
        row, column = divmod(label, 4)
        image[2 + 8 * row : 9 + 8 * row, 6 * column : 6 * column + 6] += 180
    return images, labels


@pytest.fixture
def mnist(tmp_path, rng):
    """The four files, two of them packed: 60 images for training and 30 for testing."""
    directory = tmp_path / "mnist"
    directory.mkdir()
    for images_name, labels_name, number in ((TRAINING, TRAINING_LABELS, 60), (TEST, TEST_LABELS, 30)):
        images, labels = images_and_labels(rng, number)
        (directory / images_name).write_bytes(idx(images))
        (directory / (labels_name + ".gz")).write_bytes(gzip.compress(idx(labels)))
    return directory


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(*arguments, directory):
    """What the example prints, run as a user does."""
    ended = subprocess.run(
        [sys.executable, str(LENET), *map(str, arguments)], cwd=str(directory), env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def refused(*arguments, directory):
    """The error with which the example ends at once, before it has imported mxnet."""
    code = (
        "import runpy, sys\n"
        "sys.argv = {!r}\n"
        "sys.path.insert(0, {!r})\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    assert not {{'mxnet', 'sklearn', 'matplotlib'}} & set(sys.modules), 'imported early'\n"
    ).format([str(LENET), *map(str, arguments)], str(LENET.parent))
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=str(directory), env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60, check=False,
    )  # fmt: skip
    assert "imported early" not in ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stdout + ended.stderr


def table(printed):
    """The rows by (name, epochs): passes, seconds, training loss, training and test accuracy in percent."""
    rows = re.findall(r"(?m)^(Module|SVRGModule) +(\d+) +([-+.e\d% ]+)$", printed)
    return {(name, int(epochs)): [float(cell) for cell in rest.replace("%", "").split()] for name, epochs, rest in rows}


def test_the_digits(tmp_path):
    printed = run("--epochs", 2, directory=tmp_path)
    assert "digits: 1437 images for training, 360 for testing; batches of 64" in printed
    rows = table(printed)
    assert list(rows) == [("Module", 2), ("Module", 5), ("SVRGModule", 2)]
    assert [passes for passes, *_ in rows.values()] == [2, 5, 5]
    losses = [loss for _, _, loss, *_ in rows.values()]
    assert max(losses) < 0.3
    for _, seconds, _, *accuracies in rows.values():
        assert seconds > 0
        assert min(accuracies) > 90
    # What the log has of it: the lines of both modules, and one snapshot for two epochs.
    assert len(re.findall(r"(?m)^Module     Epoch\[\d\] Train-accuracy=", printed)) == 5
    assert len(re.findall(r"(?m)^SVRGModule Epoch\[\d\] Train-accuracy=", printed)) == 2
    assert re.findall(r"(\S+) +Epoch\[(\d)\] Full gradient: samples=(\d+) ", printed) == [("SVRGModule", "0", "1437")]
    # The conclusion is that of the numbers.
    said = re.search(r"after 2 epochs SVRG's is (\S+) times Module's, and has cost 2.5 times the gradient\n"
                     r"evaluations. After as many evaluations it is (\S+) times Module's.", printed)  # fmt: skip
    assert float(said.group(1)) == pytest.approx(losses[2] / losses[0], rel=0.02)
    assert float(said.group(2)) == pytest.approx(losses[2] / losses[1], rel=0.02)
    svrg, module = map(int, re.search(r"wrong, of 360: (\d+) by SVRG, (\d+) by Module", printed).groups())
    accuracies = [100 - 100 * wrong / 360 for wrong in (module, svrg)]
    assert accuracies == pytest.approx([rows["Module", 5][4], rows["SVRGModule", 2][4]], abs=0.006)
    from matplotlib.image import imread

    pixels = imread(str(tmp_path / "svrg_lenet.png"))
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


@pytest.fixture
def run_here(monkeypatch, tmp_path, capsys):
    """Run the example in this process, which has mxnet already; return what it printed."""

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["lenet.py", *map(str, arguments)])
        runpy.run_path(str(LENET), run_name="__main__")
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(LENET.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # What _common.py would set for good.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MXNET_SUBGRAPH_VERBOSE", "0")
    yield run_here
    sys.modules.pop("_common", None)


def test_one_batch_of_all_data_makes_svrg_plain_descent(mnist, run_here):
    # Then each step's gradient is the full one, so that SVRG, from the same weights, is Module.
    printed = run_here("--data", mnist, "--batch-size", 60, "--epochs", 3, "--update-freq", 2)
    assert "60 images for training, 30 for testing; batches of 60" in printed
    rows = table(printed)
    module, svrg = rows["Module", 3], rows["SVRGModule", 3]
    assert svrg[0] == 2 * 3 + 2
    assert svrg[2] == pytest.approx(module[2], rel=1e-2), "three digits are printed"
    assert svrg[3:] == module[3:]
    assert rows["Module", 8][2] < module[2]


def test_both_modules_get_the_same_orders_and_weights(rng, run_here):
    train = runpy.run_path(str(LENET))["train"]
    seen = []

    class Module:
        """Takes note of what `fit` gets, in the place of training."""

        def fit(self, data, num_epoch, initializer, **settings):
            weight = mx.nd.zeros((4, 3))
            initializer(mx.init.InitDesc("fc_weight"), weight)
            batches = []
            for _ in range(num_epoch):
                batches += [batch.label[0].asnumpy().tolist() for batch in data]
                data.reset()
            seen.append((weight.asnumpy().tolist(), batches))

    class SVRGModule(Module):
        """Another type."""

    images, labels = images_and_labels(rng, 20)
    data = (images[:, None].astype("float32"), labels.astype("float32"))
    for seed in (0, 1):
        args = argparse.Namespace(seed=seed, batch_size=5, lr=1.0, momentum=0.0, wd=0.0)
        for module in (Module(), SVRGModule()):
            assert train(module, data, data, 2, args) == []
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert seen[0][0] != seen[2][0]
    assert seen[0][1] != seen[2][1]
    assert seen[0][1][:4] != seen[0][1][4:], "each epoch has an order of its own"


def losses_of(settings, directory):
    """The training losses of plain Module after an epoch with each of some lists of arguments.

    All run in one process of their own: in one with other tests, the same arguments gave two losses now and then.
    """
    code = (
        "import runpy, sys\n"
        "for arguments in {!r}:\n"
        "    sys.argv = ['lenet.py', *arguments]\n"
        "    runpy.run_path({!r}, run_name='__main__')\n"
    ).format([list(map(str, each)) for each in settings], str(LENET))
    environment_of_examples = {**environment(), "PYTHONPATH": os.pathsep.join([str(LENET.parent), *sys.path])}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=str(directory), env=environment_of_examples,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = [float(loss) for loss in re.findall(r"(?m)^Module +1 +\S+ +\S+ +(\S+)", ended.stdout)]
    assert len(found) == len(settings)
    return found


def test_seeds_and_settings_reach_the_training(mnist):
    usual = ("--data", mnist, "--epochs", 1, "--method", "module", "--batch-size", 20)
    others = [("--seed", 1), ("--lr", 0.01), ("--momentum", 0), ("--wd", 1), ("--batch-size", 30)]
    # MXNet's learning rate is the default with --data.
    alike = [usual, usual, (*usual, "--lr", 0.05)]
    found = losses_of([*alike, *((*usual, *other) for other in others)], mnist)
    assert found[1] == found[0] and found[2] == found[0]
    assert found[0] not in found[3:]


def test_mnist_is_learnt_whatever_is_packed(mnist, run_here):
    printed = run_here("--data", mnist, "--method", "svrg", "--epochs", 10, "--batch-size", 16, "--update-freq", 5,
                       "--output", "named.png")  # fmt: skip
    assert list(table(printed)) == [("SVRGModule", 10)]
    passes, _, loss, training, test = table(printed)["SVRGModule", 10]
    assert passes == 22
    assert loss < 0.1
    assert (training, test) == (100, 100)
    assert "times Module's" not in printed
    assert pathlib.Path("named.png").exists()
    for path in list(mnist.iterdir()):
        content = path.read_bytes()
        path.unlink()
        if path.suffix == ".gz":
            path.with_suffix("").write_bytes(gzip.decompress(content))
        else:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    again = run_here("--data", mnist, "--method", "svrg", "--epochs", 10, "--batch-size", 16, "--update-freq", 5)
    assert table(again)["SVRGModule", 10][2:] == [loss, training, test]


@pytest.mark.parametrize("name", [TRAINING, TRAINING_LABELS, TEST, TEST_LABELS])
def test_a_missing_file_is_named(name, mnist):
    for path in mnist.glob(name + "*"):
        path.unlink()
    code, printed = refused("--data", mnist, directory=mnist)
    assert code == 2
    assert "{} has neither {} nor {}.gz. {}".format(mnist, name, name, WHERE) in printed


PACKED = TRAINING_LABELS + ".gz"
DAMAGES = {
    "cut off": (TRAINING, lambda content: content[:-1],
                TRAINING + r" is damaged: it has \d+ bytes, and \d+ are announced. " + WHERE),
    "too long": (TRAINING, lambda content: content + b"x", TRAINING + " is damaged: it has"),
    "header only": (TRAINING, lambda content: content[:10], TRAINING + " is no idx file of bytes in 3 dimensions. "),
    "empty": (TEST, lambda content: b"", TEST + " is no idx file of bytes in 3 dimensions. " + WHERE),
    "labels for images": (TRAINING, lambda content: idx(np.zeros(60)), TRAINING + " is no idx file"),
    "images for labels": (PACKED, lambda content: gzip.compress(idx(np.zeros((60, 2, 2)))),
                          PACKED + " is no idx file of bytes in 1 dimension. "),
    "floats": (TRAINING, lambda content: content[:2] + b"\x0d" + content[3:], TRAINING + " is no idx file"),
    "packing cut off": (PACKED, lambda content: content[:-9], PACKED + r" is damaged \(.*\). " + WHERE),
    "not packed": (PACKED, lambda content: gzip.decompress(content), PACKED + r" is damaged \(.*\). " + WHERE),
    "packing overwritten": (PACKED, lambda content: content[:10] + b"\xff" * 10 + content[20:],
                            PACKED + r" is damaged \(.*\). " + WHERE),
    "other sizes": (TEST, lambda content: idx(np.zeros((30, 32, 32))),
                    TEST + " has images of 32 x 32 pixels; LeNet takes 28 x 28"),
    "fewer labels": (PACKED, lambda content: gzip.compress(idx(np.zeros(59))),
                     TRAINING + " has 60 images, and .*" + PACKED + " has 59 labels"),
    "eleven classes": (PACKED, lambda content: gzip.compress(idx(np.full(60, 10))),
                       PACKED + " has the label 10; LeNet tells 10 classes apart"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(damage, mnist):
    name, change, message = DAMAGES[damage]
    (mnist / name).write_bytes(change((mnist / name).read_bytes()))
    code, printed = refused("--data", mnist, directory=mnist)
    assert code == 2
    assert re.search(message, printed)


def test_no_images_at_all(mnist):
    (mnist / TEST).write_bytes(idx(np.zeros((0, 28, 28))))
    (mnist / (TEST_LABELS + ".gz")).write_bytes(gzip.compress(idx(np.zeros(0))))
    code, printed = refused("--data", mnist, directory=mnist)
    assert code == 2
    assert TEST + " has 0 images" in printed


@pytest.mark.parametrize("arguments, message", [
    (["--data", "nowhere"], "nowhere is no directory"),
    (["--epochs", 0], "--epochs: must be at least 1"),
    (["--update-freq", 0], "--update-freq: must be at least 1"),
    (["--batch-size", 0], "--batch-size: must be at least 1"),
    (["--output", "nowhere/picture.png"], "--output: there is no directory nowhere"),
    (["--method", "adam"], "invalid choice: 'adam'"),
])  # fmt: skip
def test_wrong_arguments(arguments, message, tmp_path):
    code, printed = refused(*arguments, directory=tmp_path)
    assert code == 2
    assert message in printed
    assert not list(tmp_path.iterdir())


def test_help(tmp_path):
    code, printed = refused("--help", directory=tmp_path)
    assert code == 0
    assert "You should see" in printed
    assert "python lenet.py --data DIRECTORY" in printed
    assert not list(tmp_path.iterdir())
