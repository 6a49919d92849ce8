"""Runs a command, sends it a signal when it is ready, and sees whether any process of it is left; not a test.

    python witness.py SIGNAL READY COMMAND ...

SIGNAL (a number, 0 for none) is sent once READY lines of the command's output hold the word "ready". Prints, as JSON,
the exit code, what was written, and whether anything was left. After SIGKILL, waits until nothing is.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile

PR_SET_CHILD_SUBREAPER = 36


def something_is_left(wait):
    """Whether the command has left a process, dead or alive, whose parent we are now; or wait until they have ended."""
    try:
        while wait:
            os.waitpid(-1, 0)
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def witness(number, ready, command):
    """Run the command."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Whoever runs the tests may have been told to ignore some, by nohup for instance: the command would inherit that.
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        lines = []
        while ready:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
            ready -= b"ready" in lines[-1]
        if number:
            process.send_signal(number)
        lines += process.stdout.readlines()
        code = process.wait()
        process.stdin.close()
        # One that is killed can't wait for the others. The time that they have is the test's.
        left = something_is_left(wait=number == signal.SIGKILL)
        errors.seek(0)
        out, err = b"".join(lines).decode("latin-1"), errors.read().decode("latin-1")
        return {"code": code, "out": out, "err": err, "left": left}


if __name__ == "__main__":
    print(json.dumps(witness(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])))
