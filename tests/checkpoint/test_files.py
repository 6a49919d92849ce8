"""A kill at any moment leaves one checkpoint whole; readers see it so, and write nothing; damage is found."""

import fcntl
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading

import mxnet as mx
import numpy as np
import pytest
from checkpoint_runs import fit, new_module
from models import assert_same, weights_of

from svrg_optimization import SVRGModule
from svrg_optimization.checkpoint import files, svrg_file


class Killed(BaseException):
    """What stands for SIGKILL: nothing of ours may catch it."""


def kill_at(monkeypatch, moment):
    """Make the `moment`th thing that a save does to the disk the last one; return a counter."""
    count = [0]

    def watched(function):
        def wrapper(*args, **kwargs):
            count[0] += 1
            if count[0] == moment:
                # A kill in the middle of writing a file leaves half of it.
                if function is files._write:
                    with open(args[0] + ".new", "wb") as half:
                        half.write(b"half")
                raise Killed
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(files, "_write", watched(files._write))
    monkeypatch.setattr(files, "_sync_directory", watched(files._sync_directory))
    monkeypatch.setattr(os, "replace", watched(os.replace))
    return count


def state_of(prefix, epoch):
    """Everything that a checkpoint gives back."""
    module = SVRGModule.load(prefix, epoch, load_optimizer_states=True)
    sections = module._restoring.sections
    parts = dict(module.get_params()[0])
    for group in ("full_gradient", "weights"):
        parts.update((group + ":" + name, array) for name, array in sections["snapshot"][group].items())
    result = {name: array.asnumpy() for name, array in parts.items()}
    result.update(("state of {}".format(key), array.asnumpy()) for key, array in module._restoring.states.items())
    result["counts"] = np.array(list(sections["optimizer"]["counts"].values()))
    return result


MOMENTS = range(1, 12)


@pytest.mark.parametrize("again", [False, True], ids=["new epoch", "same epoch"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_while_saving_leaves_the_old_or_the_new_checkpoint_whole(moment, again, tmp_path):
    prefix = str(tmp_path / "model")
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    old = state_of(prefix, 2)
    fit(module, 2, 4)
    reference = str(tmp_path / "reference")
    module.save_checkpoint(reference, 2, save_optimizer_states=True)
    new = state_of(reference, 2)
    epoch = 2 if again else 4
    with pytest.MonkeyPatch.context() as patch:
        count = kill_at(patch, moment)
        with pytest.raises(Killed):
            module.save_checkpoint(prefix, epoch, save_optimizer_states=True)
    assert count[0] == moment
    if again:
        found = state_of(prefix, 2)
        assert_same(found, new if np.array_equal(found["fc_weight"], new["fc_weight"]) else old)
    else:
        assert_same(state_of(prefix, 2), old)
        try:
            found = state_of(prefix, 4)
        except FileNotFoundError:
            pass
        else:
            assert_same(found, new)
    # What the kill left behind doesn't disturb the next save.
    module.save_checkpoint(prefix, epoch, save_optimizer_states=True)
    assert_same(state_of(prefix, epoch), new)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


def test_two_kills_in_a_row(tmp_path):
    """The first behind its commit, the second before it: the first one's checkpoint is the one that counts."""
    prefix = str(tmp_path / "model")
    module = new_module()
    fit(module, 0, 1)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    for begin, moment in ((1, 8), (2, 5)):
        fit(module, begin, begin + 1)
        if moment == 8:
            module.save_checkpoint(str(tmp_path / "reference"), 2, save_optimizer_states=True)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, moment)
            with pytest.raises(Killed):
                module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    assert_same(state_of(prefix, 2), state_of(str(tmp_path / "reference"), 2))


def test_another_network_under_the_same_name(tmp_path):
    prefix = str(tmp_path / "model")
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    old = state_of(prefix, 2)
    other = new_module(dropout=True)
    fit(other, 0, 2)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            other.save_checkpoint(prefix, 2, save_optimizer_states=True)
    assert_same(state_of(prefix, 2), old)
    assert "Dropout" not in mx.sym.load(prefix + "-symbol.json").tojson()


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_svrg_file(content, tmp_path):
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    (tmp_path / "model-0002.svrg").write_bytes(content)
    with pytest.raises(ValueError, match="model-0002.svrg can't be read.*load_optimizer_states=False"):
        SVRGModule.load(tmp_path / "model", 2, load_optimizer_states=True)
    assert SVRGModule.load(tmp_path / "model", 2).params_initialized


def test_the_moments_are_all_there_are(tmp_path, monkeypatch):
    module = new_module()
    fit(module, 0, 2)
    count = kill_at(monkeypatch, 0)
    module.save_checkpoint(str(tmp_path / "model"), 2, save_optimizer_states=True)
    assert count[0] == len(MOMENTS)


def test_files_of_different_saves_are_not_mixed(tmp_path):
    prefix = str(tmp_path / "model")
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    module.save_checkpoint(prefix, 3, save_optimizer_states=True)
    fit(module, 2, 4)
    module.save_checkpoint(prefix, 2)
    with pytest.raises(ValueError, match="model-0002.params .* wasn.t saved with .*load_optimizer_states=False"):
        SVRGModule.load(prefix, 2, load_optimizer_states=True)
    loaded, _ = SVRGModule.load(prefix, 2).get_params()
    assert_same({name: value.asnumpy() for name, value in loaded.items()}, weights_of(module))
    shutil.copy(prefix + "-0002.params", prefix + "-0003.svrg")
    with pytest.raises(ValueError, match="can't be read .not a .svrg file"):
        SVRGModule.load(prefix, 3, load_optimizer_states=True)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint of epoch 1: .*model-symbol.json does not exist"):
        SVRGModule.load(str(tmp_path / "model"), 1)


# ------------------------------------------------------------------------------------ readers beside a writer


@pytest.fixture(scope="module")
def trained():
    """Two modules, one trained for longer, and what their checkpoints hold."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MXNET_UPDATE_ON_KVSTORE", "1")
        for epochs in (2, 4):
            module = new_module()
            fit(module, 0, epochs)
            made.append(module)
    return made


def files_in(directory):
    return {name: files._identity(os.path.join(directory, name)) for name in os.listdir(directory)}


def assert_whole(found, saved):
    """A checkpoint is one of those that were saved, as they were read when nobody wrote."""
    assert_same(found, next(each for each in saved if np.array_equal(each["fc_weight"], found["fc_weight"])))


def saved_alone(module, epoch, directory):
    module.save_checkpoint(os.path.join(directory, "alone"), epoch, save_optimizer_states=True)
    return state_of(os.path.join(directory, "alone"), epoch)


def at_each_step(monkeypatch, names, act):
    """Call `act` before each call of these functions of `files`."""
    busy = []

    def watched(function):
        def wrapper(*args, **kwargs):
            if not busy:
                busy.append(1)
                act()
                busy.clear()
            return function(*args, **kwargs)

        return wrapper

    for name in names:
        monkeypatch.setattr(files, name, watched(getattr(files, name)))


@pytest.mark.parametrize("epoch", [2, 4], ids=["same epoch", "new epoch"])
def test_a_reader_at_each_step_of_a_save(epoch, trained, tmp_path):
    """The reader finds a whole checkpoint, writes nothing, and the save succeeds."""
    prefix = str(tmp_path / "model")
    old, new = (saved_alone(module, 2, tmp_path) for module in trained)
    trained[0].save_checkpoint(prefix, 2, save_optimizer_states=True)
    seen = []

    def read():
        before = files_in(tmp_path)
        assert SVRGModule.last_checkpoint(prefix) in (2, epoch)
        assert_whole(state_of(prefix, 2), [old, new] if epoch == 2 else [old])
        if SVRGModule.last_checkpoint(prefix) == epoch:
            assert_whole(state_of(prefix, epoch), [old, new])
        seen.append(state_of(prefix, SVRGModule.last_checkpoint(prefix))["fc_weight"][0, 0])
        assert files_in(tmp_path) == before

    with pytest.MonkeyPatch.context() as patch:
        at_each_step(patch, ["_write", "_sync_directory"], read)
        replace = os.replace
        patch.setattr(os, "replace", lambda *paths: (read(), replace(*paths)))
        trained[1].save_checkpoint(prefix, epoch, save_optimizer_states=True)
    assert set(seen) == {old["fc_weight"][0, 0], new["fc_weight"][0, 0]}
    assert_same(state_of(prefix, epoch), new)


def killed_save(module, prefix, moment):
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, moment)
        with pytest.raises(Killed):
            module.save_checkpoint(prefix, 2, save_optimizer_states=True)


def read_at_each_step_of(prepare, act, prefix):
    """For each step of a reader: prepare, read, let `act` come at this step; yield what was read."""
    step, count = 0, 0

    def act_at_step():
        nonlocal count
        count += 1
        if count == step:
            act()

    while step <= count:
        prepare()
        step, count = step + 1, 0
        with pytest.MonkeyPatch.context() as patch:
            at_each_step(patch, ["_identity", "checksum", "_decoded"], act_at_step)
            found = state_of(prefix, 2)
        yield found
    assert step > 10


@pytest.mark.parametrize("moment", [*MOMENTS, None], ids=lambda at: "killed at {}".format(at) if at else "whole")
def test_a_save_at_each_step_of_a_reader(moment, trained, tmp_path):
    """A save of the same epoch comes between two looks of a reader; whole, or killed."""
    prefix = str(tmp_path / "model")
    old, new = (saved_alone(module, 2, tmp_path) for module in trained)

    def save():
        if moment:
            killed_save(trained[1], prefix, moment)
        else:
            trained[1].save_checkpoint(prefix, 2, save_optimizer_states=True)

    for found in read_at_each_step_of(
        lambda: trained[0].save_checkpoint(prefix, 2, save_optimizer_states=True), save, prefix
    ):
        assert_whole(found, [old, new])


@pytest.mark.parametrize("before", ["nothing", "weights alone"])
def test_the_first_save_of_an_epoch_at_each_step_of_a_reader(before, trained, tmp_path):
    """The reader finds what was there before, or all of what was saved; never some of both."""
    prefix = str(tmp_path / "model")
    new = saved_alone(trained[1], 2, tmp_path)
    other = new_module(dropout=True)
    fit(other, 0, 1)

    def prepare():
        for name in os.listdir(tmp_path):
            if name.startswith("model"):
                os.remove(tmp_path / name)
        if before != "nothing":
            mx.mod.Module.save_checkpoint(other, prefix, 2, save_optimizer_states=True)

    step, count = 0, 0

    def save_at_step():
        nonlocal count
        count += 1
        if count == step:
            trained[1].save_checkpoint(prefix, 2, save_optimizer_states=True)

    while step <= count:
        prepare()
        step, count = step + 1, 0
        with pytest.MonkeyPatch.context() as patch:
            at_each_step(patch, ["_identity", "checksum", "_decoded"], save_at_step)
            try:
                found = SVRGModule.load(prefix, 2, load_optimizer_states=True)
            except FileNotFoundError:
                assert before == "nothing"
                continue
        if found._restoring.sections is None:
            assert before != "nothing" and "Dropout" in found.symbol.tojson()
            assert_same({k: v.asnumpy() for k, v in found.get_params()[0].items()}, weights_of(other))
        else:
            assert "Dropout" not in found.symbol.tojson()
            assert_same({k: v.asnumpy() for k, v in found.get_params()[0].items()}, weights_of(trained[1]))
            assert_same(state_of(prefix, 2), new)
    assert step > 4


@pytest.mark.parametrize("moment", range(7, 12))
def test_the_last_renames_at_each_step_of_a_reader(moment, trained, tmp_path):
    """The reader comes behind the commit; between two of its looks the new files lose the end of their names."""
    prefix = str(tmp_path / "model")
    new = saved_alone(trained[1], 2, tmp_path)

    def save_to_commit():
        trained[0].save_checkpoint(prefix, 2, save_optimizer_states=True)
        killed_save(trained[1], prefix, moment)

    for found in read_at_each_step_of(save_to_commit, lambda: files._clear(prefix), prefix):
        assert_same(found, new)


def test_two_threads_save_one_after_the_other(trained, tmp_path, monkeypatch):
    """The second comes when the first has begun, and waits for it."""
    prefix = str(tmp_path / "model")
    new = saved_alone(trained[1], 2, tmp_path)
    waits, order, turn = threading.Event(), [], files._of_process.turn

    def save_second():
        trained[1].save_checkpoint(prefix, 2, save_optimizer_states=True)
        order.append("second")

    second = threading.Thread(target=save_second)

    class Turn:
        def __enter__(self):
            if threading.current_thread() is second:
                waits.set()
            turn.acquire()

        def __exit__(self, *_):
            turn.release()

    def start_second():
        if not order and not second.is_alive():
            second.start()
            assert waits.wait(60)

    monkeypatch.setattr(files._of_process, "turn", Turn())
    with pytest.MonkeyPatch.context() as patch:
        at_each_step(patch, ["_write"], start_second)
        trained[0].save_checkpoint(prefix, 2, save_optimizer_states=True)
        order.append("first")
        second.join()
    assert order == ["first", "second"]
    assert_same(state_of(prefix, 2), new)
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".new", "lock"))]


HOLDS = """
import fcntl, os, sys
with open(sys.argv[1], 'wb') as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print('ready', flush=True)
    sys.stdin.read()
    os.rename(sys.argv[1], sys.argv[1] + ' was held')
"""


def test_a_save_waits_for_another_process_and_says_so(trained, tmp_path, caplog):
    """When that has ended, the lock file is gone, and a third process may have made another."""
    lock = str(tmp_path / "model.svrg-lock")
    with subprocess.Popen([sys.executable, "-c", HOLDS, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"

        class Handler(logging.Handler):
            def emit(self, record):
                other.stdin.close()

        logger, handler = logging.getLogger(files.__name__), Handler()
        logger.addHandler(handler)
        held = []
        try:
            with pytest.MonkeyPatch.context() as patch:
                at_each_step(patch, ["_write"], lambda: held.append(not os.path.exists(lock + " was held")))
                trained[0].save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
        finally:
            logger.removeHandler(handler)
    assert held == [False] * 4
    assert "waiting for another process, which holds {}".format(lock) in caplog.text
    assert SVRGModule.last_checkpoint(tmp_path / "model") == 2
    assert not os.path.exists(lock)


def test_a_lock_that_was_given_up_is_not_enough(trained, tmp_path, monkeypatch):
    """While it waited, the other writer has removed the lock file, and a third has made a new one."""
    lockf, locked = fcntl.lockf, []

    def lock(file, how):
        lockf(file, how)
        locked.append(file.name)
        if len(locked) == 1:
            os.remove(file.name)

    monkeypatch.setattr(fcntl, "lockf", lock)
    trained[0].save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    assert len(locked) == 2
    assert SVRGModule.last_checkpoint(tmp_path / "model") == 2


def test_a_file_system_without_locks(trained, tmp_path, monkeypatch):
    def lock(*args):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "lockf", lock)
    trained[0].save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    assert SVRGModule.last_checkpoint(tmp_path / "model") == 2


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_handler_saves_in_the_middle_of_a_save(moment, trained, tmp_path):
    """It doesn't wait for its own thread; the save that it has interrupted begins anew."""
    prefix = str(tmp_path / "model")
    both = [saved_alone(module, 2, tmp_path) for module in trained]
    count = [0]

    def at_moment(function):
        def wrapper(*args):
            count[0] += 1
            if count[0] == moment:
                trained[1].save_checkpoint(prefix, 2, save_optimizer_states=True)
                assert SVRGModule.last_checkpoint(prefix) == 2
            return function(*args)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((files, "_write"), (files, "_sync_directory"), (os, "replace")):
            patch.setattr(module, name, at_moment(getattr(module, name)))
        trained[0].save_checkpoint(prefix, 2, save_optimizer_states=True)
    assert count[0] > len(MOMENTS) - 1
    # The last step of a save renames nothing any more.
    assert_same(state_of(prefix, 2), both[moment == MOMENTS[-1]])
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".new", "lock"))]


def test_a_fork_does_not_keep_the_lock(trained, tmp_path):
    """A child that was forked during a save, of a data loader for instance, may save itself."""
    ended = []

    def fork():
        if not ended:
            child = os.fork()
            if not child:
                files._of_process.turn.acquire()
                os._exit(len(files._of_process.prefixes))
            ended.append(os.waitpid(child, 0)[1])

    with pytest.MonkeyPatch.context() as patch:
        at_each_step(patch, ["_write"], fork)
        trained[0].save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    assert ended == [0]


def test_a_failed_save_leaves_the_old_checkpoint_and_nothing_else(trained, tmp_path, monkeypatch):
    prefix = str(tmp_path / "model")
    trained[0].save_checkpoint(prefix, 2, save_optimizer_states=True)
    old, before = state_of(prefix, 2), set(os.listdir(tmp_path))

    def save_that_fails_at(moment):
        count, write = [0], files._write

        def fails(path, function):
            count[0] += 1
            write(path, function)
            if count[0] == moment:
                raise OSError("No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "_write", fails)
            trained[1].save_checkpoint(prefix, 2, save_optimizer_states=True)

    for moment in range(1, 5):
        with pytest.raises(OSError, match="No space left"):
            save_that_fails_at(moment)
        assert set(os.listdir(tmp_path)) == before
        assert_same(state_of(prefix, 2), old)


def test_a_directory_that_is_not_there(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="prefix='.*there is no directory .*no; make it first"):
        trained[0].save_checkpoint(tmp_path / "no" / "model", 2, save_optimizer_states=True)


# ------------------------------------------------------------------------------------------------------- damage


KINDS = ["symbol.json", "0003.params", "0003.states", "0003.svrg"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit(kind, trained, tmp_path):
    """Whatever bit of whatever file it is, the checkpoint is refused, and the one of before is found."""
    prefix = str(tmp_path / "model")
    for epoch in (2, 3):
        trained[0].save_checkpoint(prefix, epoch, save_optimizer_states=True)
    path = "{}-{}".format(prefix, kind)
    content = pathlib.Path(path).read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(content), 250, replace=False):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        pathlib.Path(path).write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(path)):
            SVRGModule.load(prefix, 3, load_optimizer_states=True)
        # The network is the same for all epochs.
        assert SVRGModule.last_checkpoint(prefix) == (None if kind == "symbol.json" else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_short(kind, trained, tmp_path):
    prefix = str(tmp_path / "model")
    trained[0].save_checkpoint(prefix, 3, save_optimizer_states=True)
    path = "{}-{}".format(prefix, kind)
    content = pathlib.Path(path).read_bytes()
    for length in [*range(0, len(content), 37), len(content) - 1]:
        pathlib.Path(path).write_bytes(content[:length])
        with pytest.raises(ValueError, match=re.escape(path)):
            SVRGModule.load(prefix, 3, load_optimizer_states=True)
        assert SVRGModule.last_checkpoint(prefix) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_read(kind, trained, tmp_path):
    prefix = str(tmp_path / "model")
    for epoch in (2, 3):
        trained[0].save_checkpoint(prefix, epoch, save_optimizer_states=True)
    os.remove("{}-{}".format(prefix, kind))
    os.mkdir("{}-{}".format(prefix, kind))
    assert SVRGModule.last_checkpoint(prefix) == (None if kind == "symbol.json" else 2)


def test_weights_alone_beside_a_damaged_svrg_file(trained, tmp_path, caplog):
    trained[0].save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    (tmp_path / "model-0002.svrg").write_bytes(b"half a file")
    weights, _ = SVRGModule.load(tmp_path / "model", 2).get_params()
    assert_same({name: value.asnumpy() for name, value in weights.items()}, weights_of(trained[0]))
    assert "loaded as they are, though" in caplog.text and "model-0002.svrg can't be read" in caplog.text


# ------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("epochs, last", [([9998, 9999, 10000, 10001], 10001), ([10000], 10000), ([0], 0), ([], None)])
def test_the_last_epoch(epochs, last, trained, tmp_path):
    for epoch in epochs:
        trained[0].save_checkpoint(tmp_path / "model", epoch, save_optimizer_states=True)
    assert SVRGModule.last_checkpoint(tmp_path / "model") == last
    if epochs:
        assert SVRGModule.load(tmp_path / "model", last, load_optimizer_states=True)._restoring.sections


@pytest.mark.parametrize("name", [
    "./model", ".//model", "sub//model", "sub/../model", "mo*el", "mo[d]el", "model.x-0001", "mod\nel", "modèle",
    "-model", " model ",
])  # fmt: skip
def test_odd_prefixes(name, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("sub")
    for prefix in (name, str(tmp_path) + "//" + name, pathlib.Path(name)):
        for epoch in (2, 3):
            trained[0].save_checkpoint(prefix, epoch, save_optimizer_states=True)
        assert SVRGModule.last_checkpoint(prefix) == 3
        # A kill behind the commit, and another one before the next commit.
        for moment in (8, 5):
            killed_save(trained[1], prefix, moment)
        np.testing.assert_array_equal(state_of(prefix, 2)["fc_weight"], weights_of(trained[1])["fc_weight"])


def test_files_of_others_are_left_alone(trained, tmp_path):
    names = ("model.lock", "model-0002.params.new.txt", "model-x.new", "model2-0001.params.new")
    for name in names:
        (tmp_path / name).write_text("mine")
    trained[0].save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_prefixes_from_a_generator(trained, tmp_path):
    for epoch in (1, 2):
        trained[0].save_checkpoint(tmp_path / "model", epoch, save_optimizer_states=True)
    (tmp_path / "model-0002.states").write_bytes(b"half")
    assert SVRGModule.last_checkpoint(prefix for prefix in [tmp_path / "model"]) == 1


def test_no_prefix():
    with pytest.raises(ValueError, match=r"prefix=\[\]: give the prefix of a checkpoint"):
        SVRGModule.last_checkpoint([])


def test_the_home_directory(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    trained[0].save_checkpoint("~/model", 2, save_optimizer_states=True)
    assert SVRGModule.last_checkpoint("~/model") == 2
    assert SVRGModule.load("~/model", 2, load_optimizer_states=True).update_freq == 3
    assert (tmp_path / "model-0002.svrg").exists()


# ------------------------------------------------------------------------------------------------- older versions


def as_format(number, path):
    """Write a .svrg file as an older version did."""
    sections, checksums = svrg_file.read(path)
    position = sections["optimizer"]
    names = list(position["counts"])
    position["counts"] = [[0, key, position["counts"][name]] for key, name in enumerate(names)]
    for name in ("class", "devices", "schedule"):
        del position[name]
    del sections["devices"], sections["devices of the snapshot"]
    arrays = svrg_file.encode(sections, checksums)
    arrays["format"] = mx.nd.array([number], dtype="int64")
    mx.nd.save(path, arrays)


def test_a_file_of_format_2(tmp_path):
    """No checksum of its own, and counts by key."""
    whole, prefix = new_module(), str(tmp_path / "model")

    def save(epoch, *_):
        if epoch == 1:
            whole.save_checkpoint(prefix, 2, save_optimizer_states=True)

    fit(whole, 0, 4, optimizer="adam", callback=save)
    as_format(2, prefix + "-0002.svrg")
    resumed = SVRGModule.load(prefix, 2, load_optimizer_states=True)
    fit(resumed, 2, 4, optimizer="adam")
    assert_same(weights_of(resumed), weights_of(whole))


def test_a_file_of_this_format_whose_checksum_is_gone(trained, tmp_path):
    trained[0].save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    as_format(3, str(tmp_path / "model-0002.svrg"))
    with pytest.raises(ValueError, match="model-0002.svrg can't be read .*not a .svrg file of format 1 to 3"):
        SVRGModule.load(tmp_path / "model", 2, load_optimizer_states=True)
