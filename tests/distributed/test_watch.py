"""The watch of a job, as far as one process can show it: who is missing, who has died, who has left too early."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import svrg_optimization
from svrg_optimization.distributed import exit_code, liveness, watch_client, watch_service
from svrg_optimization.distributed.attendance import Attendance, Member
from svrg_optimization.distributed.lines import Lines, read

LIMIT = 20  # seconds; whatever these tests wait for comes at once

# ---------------------------------------------------------------------------------------------------- who is there


def worker(name, operations=0, **how):
    return Member("worker", name, operations, **how)


def attendance(*members, workers=2):
    """A job of which these processes have come, each under its place in the list."""
    found = Attendance(workers, 1)
    for key, member in enumerate(members):
        found.hear(key, member)
    return found


def test_who_has_not_come_is_waited_for():
    job = attendance()
    assert job.missing() == ""
    job.hear("a", worker("worker 1"))
    assert job.missing() == "waiting for 1 of 1 servers, and for 1 of 2 workers; here: worker 1"
    job.hear("b", Member("server", "server 0", 0))
    assert job.missing() == "waiting for 1 of 2 workers; here: worker 1"
    job.hear("c", worker("worker 0"))
    assert job.missing() == ""
    with pytest.raises(ValueError, match="the job has all its workers"):
        job.hear("d", worker("worker 2"))


def test_whose_connection_ends_is_dead_unless_it_has_left():
    job = attendance(worker("worker 0"), worker("worker 1"))
    assert job.lose("a stranger") == ""
    assert job.lose(0) == "worker 0 has ended"
    job.hear(1, worker("worker 1", gone=True))
    assert job.lose(1) == "" and not job.is_over


@pytest.mark.parametrize("operations, early", [
    ((5, 5), None), ((5, 6), 0), ((5, 4), None), ((0, 1), 0), ((0, 0), None),
])  # fmt: skip
def test_a_worker_leaves_too_early_if_another_one_has_begun_more(operations, early):
    first, second = operations
    job = attendance(worker("worker 0", first, leaves=True), worker("worker 1", second))
    assert job.who_left_too_early() == early
    assert job.let_go() == []


def test_workers_that_have_done_the_same_leave_together():
    job = attendance(worker("worker 0", 5, leaves=True), worker("worker 1", 4, leaves=True))
    assert job.who_left_too_early() == 1 and job.let_go() == []
    job.hear(1, worker("worker 1", 5, leaves=True))
    assert job.who_left_too_early() is None and job.let_go() == [0, 1]
    # Until it says that it has left, it can still die.
    assert job.lose(0) == "worker 0 has ended"
    job.hear(1, worker("worker 1", 5, gone=True))
    assert job.is_over


def test_the_barrier_of_workers_that_have_been_let_go_is_no_operation_that_another_one_misses():
    """The scheduler may hear of the first worker's barrier before it hears of the second one's, or of their end."""
    job = attendance(worker("worker 0", 5, leaves=True), worker("worker 1", 5, leaves=True))
    assert job.let_go() == [0, 1]
    job.hear(0, worker("worker 0", 6, leaves=True))
    assert job.who_left_too_early() is None
    for key in (0, 1):
        job.hear(key, worker("worker {}".format(key), 6, gone=True))
    assert job.is_over


def test_workers_that_have_begun_nothing_may_come_back():
    job = attendance(worker("worker 0", leaves=True), worker("worker 1", leaves=True))
    assert job.let_go() == [0, 1]
    for key in (0, 1):
        job.hear(key, worker("worker {}".format(key), gone=True))
    assert not job.is_over
    job.hear("a", worker("worker 0", 1))
    assert job.missing().endswith("for 1 of 2 workers; here: worker 0")


@pytest.mark.parametrize("operations, goes", [(0, False), (1, False), (2, True)])
def test_nobody_waits_for_a_worker_that_trains_but_is_not_watched(operations, goes):
    job = attendance(worker("worker 0", operations, leaves=True))
    assert bool(job.let_go()) is goes


# -------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"\xff\x00", b"[1]", b"[" * 4000, b"3", b'"', b""])
def test_what_is_no_message_is_refused(line):
    with pytest.raises(ValueError):  # noqa: PT011 - json's
        read(line)


@pytest.mark.parametrize("message", [
    {}, {"role": "scheduler", "name": "x", "operations": 0}, {"role": "worker", "name": 3, "operations": 0},
    {"role": "worker", "name": "x", "operations": "3"}, {"role": "worker", "name": "x", "operations": True},
    {"role": "worker", "name": "x" * 201, "operations": 0}, {"role": "worker", "name": "a\nb", "operations": 0},
])  # fmt: skip
def test_what_no_process_of_a_job_says_is_refused(message):
    with pytest.raises(ValueError, match=r"no member of a job says|the name"):
        watch_service.read_member(message)


def test_lines_come_whole_and_not_too_long():
    here, there = socket.socketpair()
    with here, there:
        lines = Lines(here)
        assert lines.receive() == []
        there.sendall(b'{"a": 1}\n{"b"')
        assert lines.receive() == [{"a": 1}]
        there.sendall(b": 2}\n")
        assert lines.receive() == [{"b": 2}]
        there.sendall(b"x" * 5000)
        with pytest.raises(ValueError, match="too long"):
            lines.receive()


# --------------------------------------------------------------------------------------------------------- the service


@pytest.fixture
def environment():
    """Of a job with one worker and one server, whose watch has a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "DMLC_ROLE": "worker", "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "9", "DMLC_NUM_WORKER": "1",
        "DMLC_NUM_SERVER": "1", "SVRG_WATCH_PORT": str(port), "PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "2",
        "PYTHONPATH": str(Path(svrg_optimization.__file__).parent.parent),
    }  # fmt: skip


class Told(Exception):
    """What would have ended the process."""


@pytest.fixture
def service(environment, monkeypatch):
    """A service whose seconds the test counts; the end of its process is an exception."""

    def end(code):
        raise Told(code)

    monkeypatch.setattr(watch_service.os, "_exit", end)
    found = watch_service.WatchService(environment)
    found._thread = type("Thread", (), {"join": staticmethod(lambda: None)})
    yield found
    found.stop()


def connect(environment):
    """A connection to the service, and a file of what it says."""
    connection = socket.create_connection(liveness.address_of_watch(environment), timeout=LIMIT)
    return connection, connection.makefile("rb")


def turn(service, connection=None, **message):
    """Say something, and let the service hear it."""
    if connection is not None:
        connection.sendall(json.dumps(message).encode() + b"\n")
    service._take(LIMIT)


def test_the_service_says_who_is_waited_for_and_who_says_nothing(service, environment, capsys):
    connection, heard = connect(environment)
    with connection, heard:
        turn(service)
        turn(service, connection, **worker("worker 0")._asdict())
        for _ in range(watch_service.PATIENCE + 2):
            service.each_second()
        assert capsys.readouterr().err.splitlines() == [
            "scheduler: waiting for worker 0: no word from it for 10 s, it is stopped or busy",
            "scheduler: waiting for 1 of 1 servers",
        ]


def test_the_service_names_the_dead_to_all(service, environment, capsys):
    first, heard = connect(environment)
    second, other = connect(environment)
    with first, heard, other:
        for _ in range(2):
            turn(service)
        turn(service, first, **Member("server", "server 0", 0)._asdict())
        turn(service, second, **worker("worker 0")._asdict())
        second.shutdown(socket.SHUT_RDWR)
        second.close()
        with pytest.raises(Told, match="70"):
            turn(service)
        assert json.loads(heard.readline()) == {"service": watch_service.GREETING, "job": "9", "watches": False}
        assert json.loads(heard.readline()) == {"wrong": "worker 0 has ended"}
    assert "scheduler: worker 0 has ended. The job is over" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 9000, b"[" * 4000 + b"\n", b'{"role": "worker"}\n']
)
def test_a_stranger_is_sent_away_and_does_no_harm(service, environment, said):
    stranger, heard = connect(environment)
    with stranger, heard:
        turn(service)
        stranger.sendall(said)
        turn(service)
        assert [json.loads(line) for line in heard][-1] == {"bye": True}
    # And so is one that says nothing.
    stranger, heard = connect(environment)
    with stranger, heard:
        turn(service)
        for _ in range(watch_service.PATIENCE):
            service.each_second()
        assert b"watches" in heard.read()


def test_strangers_are_not_without_number(service, environment, monkeypatch):
    monkeypatch.setattr(service, "_most_connections", 1)
    first, other = connect(environment)
    second, heard = connect(environment)
    with first, second, heard, other:
        turn(service)
        turn(service)
        assert heard.read() == b""


def test_a_scheduler_that_can_not_listen_says_what_to_do(environment):
    with socket.create_server(liveness.address_of_watch(environment)):
        done = subprocess.run(
            [sys.executable, "-m", "svrg_optimization.server"], env={**environment, "DMLC_ROLE": "scheduler"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "Address already in use; set SVRG_WATCH_PORT, for every process, to a port that is free" in done.stderr


# ---------------------------------------------------------------------------------------------------------- the client


@contextlib.contextmanager
def python(code, environment):
    """A Python that runs this code as a worker; it is killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", "import os, sys, svrg_optimization\n" + code], env={**environment, "SVRG_PROCESS": "me"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


class Scheduler:
    """Speaks with one client as the test wants."""

    def __init__(self, environment):
        self._listener = socket.create_server(liveness.address_of_watch(environment))
        self._listener.settimeout(LIMIT)
        self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        self.hang_up()

    def hang_up(self):
        """End the connection."""
        if self.connection is not None:
            self.heard.close()
            self.connection.close()

    def accept(self, *more, **greeting):
        """Greet the next one who comes, and say more in the same packet."""
        self.hang_up()
        self.connection, _ = self._listener.accept()
        self.connection.settimeout(LIMIT)
        self.heard = self.connection.makefile("rb")
        self.say({"service": watch_service.GREETING, "job": "9", **greeting}, *more)

    def nobody_else_came(self):
        """Whether nobody waits to be greeted."""
        self._listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            self._listener.accept()
        return True

    def say(self, *messages, **message):
        """Send messages in one packet: these, and one of these items."""
        whole = [*messages, message] if message else messages
        self.connection.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in whole))

    def hear(self):
        """The next message."""
        return json.loads(self.heard.readline())


WAITS = "sys.stdin.read()"
STATE = {"role": "worker", "name": "me", "operations": 0, "leaves": False, "gone": False}


def test_a_worker_is_watched_from_its_import_until_it_has_left(environment):
    with Scheduler(environment) as scheduler, python("sys.exit(3)", environment) as process:
        scheduler.accept()
        assert [scheduler.hear(), scheduler.hear()] == [STATE, {**STATE, "leaves": True}]
        scheduler.say(over=True)
        assert scheduler.hear() == {**STATE, "leaves": True, "gone": True}
        assert scheduler.heard.read() == b""
        assert process.wait(LIMIT) == 3
        assert process.stderr.read() == ""


@pytest.mark.parametrize("message, code, said", [
    ({"wrong": "worker 1 has ended"}, 70, "me: the scheduler says: worker 1 has ended. Start the job again from its"),
    (None, 70, "me: the scheduler has ended. Start the job again from its checkpoint."),
    ({"bye": True}, 0, ""),
])  # fmt: skip
def test_a_worker_does_what_the_scheduler_says(message, code, said, environment):
    with Scheduler(environment) as scheduler, python(WAITS, environment) as process:
        scheduler.accept()
        assert scheduler.hear() == STATE
        if message is None:
            scheduler.hang_up()
        else:
            scheduler.say(**message)
        if code == 0:
            process.stdin.close()
        assert process.wait(LIMIT) == code
        assert process.stderr.read().startswith(said)


@pytest.mark.parametrize("end, code", [
    ("", 1), ("sys.exit(0)", 1), ("sys.exit(3)", 3), ("sys.exit('text')", 1), ("raise SystemExit(3)", 1),
    ("import threading; threading.Thread(target=sys.exit, args=[3]).start()", 1),
])  # fmt: skip
def test_a_worker_that_leaves_too_early_ends_non_zero(end, code, environment):
    with Scheduler(environment) as scheduler, python(end, environment) as process:
        scheduler.accept()
        while not scheduler.hear()["leaves"]:
            pass
        scheduler.say(unfinished=True)
        assert process.wait(LIMIT) == code
        assert (
            "me ends: it leaves, and other workers wait for it: its fit or loop is unfinished." in process.stderr.read()
        )


def test_a_scheduler_that_stands_still_is_dead_once_it_watches(environment):
    with Scheduler(environment) as scheduler, python(WAITS, environment) as process:
        scheduler.accept(watches=True)
        assert process.wait(LIMIT) == 70
        assert process.stderr.read().startswith("me: no word from the scheduler for 4 s. Start the job again")


def test_what_comes_together_with_the_greeting_is_heard(environment):
    with Scheduler(environment) as scheduler, python(WAITS, environment) as process:
        scheduler.accept({"watches": True}, watches=False)
        assert process.wait(LIMIT) == 70
        assert process.stderr.read().startswith("me: no word from the scheduler for 4 s. Start the job again")


def test_whoever_else_listens_there_is_not_the_scheduler(environment):
    with Scheduler(environment) as scheduler, python(WAITS, environment) as process:
        for greeting in ({"service": "another"}, {"job": "10"}):
            scheduler.accept(**greeting)
            assert scheduler.heard.read() == b""
        scheduler.accept()
        assert scheduler.hear() == STATE
        process.kill()


CHILDREN = """
import multiprocessing, subprocess
for kind in ("fork", "spawn"):
    child = multiprocessing.get_context(kind).Process(target=sys.exit)
    child.start()
    child.join()
subprocess.run([sys.executable, "-c", "import svrg_optimization"], check=True)
pid = os.fork()
if not pid:
    print("forked", flush=True)
    while True:
        signal.pause()
sys.stdin.read()
"""


def test_the_children_of_a_worker_are_no_workers(environment, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, sys, svrg_optimization\nif __name__ == '__main__':\n    "
        + CHILDREN.strip().replace("\n", "\n    ")
    )
    command = [sys.executable, str(program)]
    with Scheduler(environment) as scheduler, subprocess.Popen(
        command, env={**environment, "SVRG_PROCESS": "me"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            scheduler.accept()
            assert scheduler.hear() == STATE
            assert process.stdout.readline() == b"forked\n"
            assert scheduler.nobody_else_came()
            # The one that is still there doesn't hold the connection.
            process.kill()
            assert scheduler.heard.read() == b""
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_worker_without_a_scheduler_says_so(monkeypatch, environment, capsys):
    client = watch_client.WatchClient.__new__(watch_client.WatchClient)
    monkeypatch.setattr(watch_client.threading.Thread, "start", lambda self: None)
    client.__init__("worker", {**environment, "SVRG_PROCESS": "me"})
    answers = iter([False] * 20 + [True])
    monkeypatch.setattr(client, "_try_to_connect", lambda: next(answers))
    monkeypatch.setattr(client._stopped, "wait", lambda seconds: None)
    client._connect()
    assert capsys.readouterr().err == (
        "me: waiting for the scheduler, python -m svrg_optimization.server, to answer at 127.0.0.1:{}. Until then "
        "nobody watches this job\n".format(environment["SVRG_WATCH_PORT"])
    )


def test_an_environment_that_names_no_port_is_left_to_mxnet():
    done = subprocess.run(
        [sys.executable, "-c", "import svrg_optimization"], capture_output=True, text=True, check=False,
        env={"DMLC_ROLE": "worker", "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "x"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_an_exit_code_is_never_zero_when_it_must_not_be(monkeypatch):
    for given, code in ((None, 1), (0, 1), (3, 3), (256, 1), ("text", 1)):
        monkeypatch.setattr(exit_code, "_given", given)
        assert exit_code.nonzero() == code
