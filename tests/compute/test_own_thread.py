"""The thread in which an overlapped snapshot is bound."""

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
