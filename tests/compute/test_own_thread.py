"""The thread in which an overlapped snapshot is bound."""

import queue
import threading

import pytest

from svrg_optimization.compute import own_thread


def test_a_function_called_apart_runs_in_one_lasting_thread():
    threads = []
    for _ in range(2):
        own_thread.call(lambda: threads.append(threading.current_thread()))
    assert threads[0] is threads[1] is not threading.current_thread()
    assert threads[0].is_alive() and threads[0].daemon


def test_what_is_raised_apart_is_raised_here():
    def fail():
        raise ValueError("apart")

    for _ in range(2):
        with pytest.raises(ValueError, match="apart"):
            own_thread.call(fail)


def test_an_interrupted_call_leaves_its_answer_to_nobody():
    """Ctrl-C comes while the caller waits: what the function raises later isn't the answer of the next call."""
    begin, done = threading.Event(), threading.Event()

    def fail_late():
        begin.wait()
        done.set()
        raise ValueError("late")

    class Interrupted(queue.SimpleQueue):
        def get(self):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_thread.queue, "SimpleQueue", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            own_thread.call(fail_late)
    begin.set()
    answers = []
    own_thread.call(lambda: answers.append(done.is_set()))
    assert answers == [True]
