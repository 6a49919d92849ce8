"""The launcher: what it starts, what it prints, how it ends, and that nothing is left of a job."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import svrg_optimization
from svrg_optimization.launch import __main__ as launch
from svrg_optimization.launch import job_plan
from svrg_optimization.launch.job_plan import Host

WITNESS = str(Path(__file__).with_name("witness.py"))
CLEAN_UP = [sys.executable, "-m", "svrg_optimization.launch.run_and_clean_up"]
LAUNCH = [sys.executable, "-m", "svrg_optimization.launch"]
# The launcher with other servers than mxnet's: these end when there are as many files in the directory as workers.
QUICK = """
import sys
from svrg_optimization.launch import __main__, job_plan, processes
job_plan.SERVER[:] = ["sh", "-c", {server!r}]
processes.LEAVING = {leaving}
sys.exit(__main__.main())
"""
WAITING, ENDING = "exec sleep 1000", "exit 0"
# A process that has started others: one in a session of its own, one that is stopped.
FAMILY = "setsid sleep 1000 & sh -c 'kill -STOP $$' & echo ready; sleep 1000"


class Ended:
    """What a launcher has done."""

    def __init__(self, code, out, err, left=False):
        self.code, self.left = code, left
        self.out, self.err = out.splitlines(), err.splitlines()

    @property
    def last(self):
        """The last thing that the launcher itself has said."""
        return ([line for line in self.err if line.startswith("launch | ")] or self.err)[-1]


def quick(server=ENDING, leaving=100):
    """The command of a launcher whose servers are cheap."""
    return [sys.executable, "-c", QUICK.format(server=server, leaving=leaving)]


def ended(*command, number=0, ready=0, limit=300, cwd=None, **environment):
    """Run a command under the eyes of a witness."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(job_plan.PASSED_ON)}
    env.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, WITNESS, str(int(number)), str(ready), *map(str, command)], env={**env, **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False, cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Ended(**json.loads(done.stdout))


def said(job, *arguments):
    """What a launcher prints that starts nothing."""
    return ended(*LAUNCH, *arguments, "--dry-run", "--", "python", "train.py", **job)


# ------------------------------------------------------------------------------------------------------------- output


def test_each_line_comes_after_the_name_of_its_process():
    job = ended(*quick("echo serving"), "-n", "2", "-s", "2", "--", "sh", "-c", "echo one; echo two; echo three >&2")
    assert (job.code, job.left) == (0, False)
    assert sorted(job.out) == [
        "scheduler | serving", "server 0 | serving", "server 1 | serving",
        "worker 0 | one", "worker 0 | two", "worker 1 | one", "worker 1 | two",
    ]  # fmt: skip
    assert [line for line in job.out if line.startswith("worker 1")] == ["worker 1 | one", "worker 1 | two"]
    assert sorted(job.err)[1:] == ["worker 0 | three", "worker 1 | three"]
    assert job.err[0].startswith("launch | 2 workers, 2 servers; scheduler at 127.0.0.1:")


@pytest.mark.parametrize("printed, lines", [
    (r"a\n\nb\n", ["a", "", "b"]),
    (r"no newline", ["no newline"]),
    (r"a\r\nb\n", ["a", "b"]),
    (r"10\r100\r\n", ["10", "100"]),
    (r"\377\n", ["\xff"]),
    ("x" * 100000, ["x" * 100000]),
])  # fmt: skip
def test_lines(printed, lines):
    job = ended(*quick(), "-n", "1", "--", "printf", printed)
    assert job.out == ["worker 0 | " + line for line in lines]


def test_nothing_of_a_long_output_is_lost():
    job = ended(*quick(), "-n", "2", "--", "seq", "100000")
    for k in range(2):
        prefix = "worker {} | ".format(k)
        numbers = [int(line[len(prefix) :]) for line in job.out if line.startswith(prefix)]
        assert numbers == list(range(1, 100001))


def test_lines_come_when_they_are_printed():
    # It would wait for ever for a line that Python keeps back.
    code = "import time; print('ready'); time.sleep(1000)"
    assert (
        ended(*quick(WAITING), "-n", "1", "--", sys.executable, "-c", code, number=signal.SIGTERM, ready=1).code == 143
    )


def test_a_job_whose_output_nobody_reads_ends():
    command = [*quick(WAITING), "-n", "1", "--", "yes"]
    script = " ".join(map(job_plan.shlex.quote, command)) + " | head -1; echo ${PIPESTATUS[0]}"
    job = ended("bash", "-c", script)
    assert (job.out, job.left) == (["worker 0 | y", "141"], False)


# --------------------------------------------------------------------------------------------------------- exit codes


@pytest.mark.parametrize("worker, code, message", [
    ("exit 7", 7, "launch | worker {} ended with exit code 7; all end"),
    ("kill -KILL $$", 137, "launch | worker {} was ended by SIGKILL; all end"),
    ("kill -SEGV $$", 139, "launch | worker {} was ended by SIGSEGV; all end"),
])  # fmt: skip
@pytest.mark.parametrize("which", [0, 1])
def test_the_first_failure_ends_all_and_gives_the_exit_code(worker, code, message, which):
    # The others wait for ever.
    script = "[ $PORT = $(($DMLC_PS_ROOT_PORT + 2 + {})) ] || exec sleep 1000; echo oh >&2; {}".format(which, worker)
    job = ended(*quick(WAITING), "-n", "2", "--", "sh", "-c", script)
    assert (job.code, job.left) == (code, False)
    assert job.err[-2:] == ["worker {} | oh".format(which), message.format(which)]


def test_a_server_that_fails_ends_all():
    job = ended(*quick("[ $DMLC_ROLE = scheduler ] && exec sleep 1000; exit 70"), "-n", "1", "--", "sleep", "1000")
    assert (job.code, job.left) == (70, False)
    assert job.last == "launch | server 0 ended with exit code 70; all end"


def test_the_exit_code_is_that_of_the_cause(tmp_path):
    # Worker 0 ends since it has heard that worker 1 is dead, and worker 1 ends a moment later.
    os.mkfifo(tmp_path / "first")
    script = "[ \"$SVRG_PROCESS\" = 'worker 0' ] && echo $PPID >first && exit 70; "
    # Until the launcher has seen that one's end.
    script += "read pid <first; while kill -0 $pid 2>&-; do :; done; exit 3"
    job = ended(*quick(WAITING), "-n", "2", "--", "sh", "-c", script, cwd=tmp_path)
    assert (job.code, job.left) == (3, False)
    assert job.last == "launch | worker 1 ended with exit code 3; all end"


STOPS = "[ \"$SVRG_PROCESS\" = '{}' ] && kill -STOP $$; exec sleep 1000"


@pytest.mark.parametrize("name", ["worker 1", "scheduler", "server 0"])
def test_a_process_that_stands_still_ends_all(name):
    script = STOPS.format(name)
    job = ended(*quick(script), "-n", "2", "--", "sh", "-c", script, limit=60, PS_HEARTBEAT_TIMEOUT="1")
    assert (job.code, job.left) == (147, False)
    assert job.last == "launch | {} was stopped, which counts as dead, by SIGSTOP; all end".format(name)


def test_a_process_that_goes_on_soon_is_not_dead():
    # Nothing happens after the second and a half in which the launcher must not end the job.
    go_on = "(until grep -q 'State:.T' /proc/$$/status; do :; done; kill -CONT $$)"
    script = go_on + " & kill -STOP $$; sleep 1.5; exit 3"
    job = ended(*quick(WAITING), "-n", "1", "--", "sh", "-c", script, PS_HEARTBEAT_TIMEOUT="1")
    assert (job.code, job.left) == (3, False)


def test_servers_that_do_not_end_after_the_workers_are_ended():
    job = ended(*quick(WAITING, leaving=0), "-n", "1", "--", "true")
    assert (job.code, job.left) == (0, False)
    assert job.last == "launch | all workers are done, and 0 s later scheduler, server 0 aren't; they end"


def test_timeout():
    job = ended(*quick(WAITING), "-n", "2", "--timeout", "0.5", "--", "sh", "-c", FAMILY)
    assert (job.code, job.left) == (124, False)
    assert job.last == (
        "launch | timed out after 0.5 s; these are still running, and end: scheduler, server 0, worker 0, worker 1"
    )


# ------------------------------------------------------------------------------------------------------ nothing is left


@pytest.mark.parametrize("number, message", [
    (signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP"), (signal.SIGKILL, None),
])  # fmt: skip
def test_nothing_is_left_when_a_signal_ends_the_launcher(number, message):
    job = ended(*quick(WAITING), "-n", "2", "--", "sh", "-c", FAMILY, number=number, ready=2)
    assert job.left is False
    assert job.code == (-9 if number == signal.SIGKILL else 128 + number)
    if message:
        assert job.last.startswith("launch | {}; these are still running, and end: scheduler, ".format(message))


def test_nothing_is_left_of_processes_that_do_not_want_to_end():
    script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000' & echo ready; sleep 1000; sleep 1000"
    assert ended(*quick(WAITING), "-n", "1", "--", "sh", "-c", script, number=signal.SIGKILL, ready=1).left is False


@pytest.mark.parametrize("command", [[*quick(), "-n", "1", "--"], CLEAN_UP])
def test_nothing_is_left_of_what_a_program_leaves_behind(command):
    job = ended(*command, "sh", "-c", "setsid sleep 1000 & exit 3")
    assert (job.code, job.left) == (3, False)


def test_nothing_is_left_when_what_cleans_up_is_killed():
    # $PPID is run_and_clean_up's.
    job = ended(*quick(WAITING), "-n", "2", "--", "sh", "-c", "setsid sleep 1000 & kill -KILL $PPID; sleep 1000")
    assert (job.code, job.left) == (137, False)


def test_what_nohup_ignores_stays_ignored():
    command = [*quick(), "-n", "1", "--", "sh", "-c", "kill -HUP $(cut -d' ' -f4 /proc/$PPID/stat); echo done"]
    job = ended("nohup", *command)
    assert (job.code, job.out) == (0, ["worker 0 | done"])


# -------------------------------------------------------------------------------------------------------- environment

NAMES = r"^(SVRG_|DMLC_|PS_|MXNET_|PORT=|OMP_|SECRET=|PYTHONUNBUFFERED=)"


def environments(*arguments, workers=2, **environment):
    """What the processes of a job find in their environment, by name."""
    show = "env | grep -E '{}'".format(NAMES)
    job = ended(*quick(show), "-n", workers, *arguments, "--", "sh", "-c", show, **environment)
    assert job.code == 0
    found = {}
    for line in job.out:
        name, setting = line.split(" | ")
        found.setdefault(name, {}).update([setting.split("=", 1)])
    return found


def test_the_environment_of_each_role():
    found = environments("-s", "2", "--port", "12000")
    common = {
        "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "12000", "DMLC_NODE_HOST": "127.0.0.1",
        "DMLC_NUM_WORKER": "2", "DMLC_NUM_SERVER": "2", "PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "5",
        "PYTHONUNBUFFERED": "1", "SVRG_WATCH_PORT": "12005",
    }  # fmt: skip
    threads = {"OMP_NUM_THREADS": str(job_plan.threads_of_a_worker(len(os.sched_getaffinity(0)), 2))}
    assert {name: each.pop("SVRG_PROCESS") for name, each in found.items()} == {name: name for name in found}
    assert found == {
        "scheduler": {**common, "DMLC_ROLE": "scheduler", "PORT": "12000"},
        "server 0": {**common, "DMLC_ROLE": "server", "PORT": "12001"},
        "server 1": {**common, "DMLC_ROLE": "server", "PORT": "12002"},
        "worker 0": {**common, "DMLC_ROLE": "worker", "PORT": "12003", **threads},
        "worker 1": {**common, "DMLC_ROLE": "worker", "PORT": "12004", **threads},
    }


def test_what_is_set_is_kept():
    found = environments("--env", "SECRET=2", PS_HEARTBEAT_TIMEOUT="9", MXNET_UPDATE_ON_KVSTORE="0",
                         OMP_NUM_THREADS="3", SECRET="1")  # fmt: skip
    for environment in found.values():
        assert environment["PS_HEARTBEAT_TIMEOUT"] == "9" and environment["PS_HEARTBEAT_INTERVAL"] == "1"
        assert environment["MXNET_UPDATE_ON_KVSTORE"] == "0" and environment["OMP_NUM_THREADS"] == "3"
        assert environment["SECRET"] == "2"


def test_the_ports_of_a_job_are_taken_for_others_and_free_for_its_processes():
    first, held = job_plan.reserve_ports(2)
    for port in (first, first + 1):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("", port))
        # As ZeroMQ does.
        with socket.socket() as process:
            process.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            process.bind(("127.0.0.1", port))
            process.listen()
    for each in held:
        each.close()


def test_a_single_worker_has_mxnets_number_of_threads():
    assert "OMP_NUM_THREADS" not in environments(workers=1)["worker 0"]


# ---------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize("arguments, code, message", [
    ("-n 0 -- true", 2, "-n/--workers: '0' must be a whole number, at least 1"),
    ("-n two -- true", 2, "-n/--workers: 'two' must be a whole number, at least 1"),
    ("-n 2 -s 0 -- true", 2, "-s/--servers: '0' must be a whole number, at least 1"),
    ("-n 2 --timeout -1 -- true", 2, "--timeout: '-1' must be a number of seconds, more than 0"),
    ("-n 2", 2, "no command for the workers; for instance: -n 2 -- python train.py"),
    ("-- true", 2, "the following arguments are required: -n/--workers"),
    ("-n 2 -- no-such-command x", 127, "there is no command 'no-such-command'"),
    ("-n 2 --env NO_SUCH_NAME -- true", 2, "--env NO_SUCH_NAME: there is no such variable"),
    ("-n 2 -H no-such-file -- true", 2, "No such file or directory: 'no-such-file'"),
    ("-n 2 -H / -- true", 2, "Is a directory: '/'"),
    ("-n ² -- true", 2, "' must be a whole number, at least 1"),
    ("-n 99999999999 -- true", 2, "there are no 100000000002 consecutive free ports"),
    ("-n 2 --ssh  -- true", 2, "--ssh: '' must be a command, as for a shell; for instance 'ssh -p 2222'"),
    ('-n 2 --ssh "a -- true', 2, """--ssh: '"a' must be a command, as for a shell"""),
    ("-n 2 --ssh '' -- true", 2, '''--ssh: "''" must be a command, as for a shell'''),
    ("-n 2 --timeout 1e18 -- true", 2, "--timeout: '1e18' must be a number of seconds, more than 0 and at most 100000"),
    ("-n 2 --timeout nan -- true", 2, "--timeout: 'nan' must be a number of seconds"),
    ("-n 2 --env =x -- true", 2, "--env '=x': there is no name; give --env NAME or --env NAME=VALUE"),
    ("-n 2 --env A-B=1 -- true", 2, "--env 'A-B=1': there is no name; give --env NAME or --env NAME=VALUE"),
    ("-n 2 --env DMLC_ROLE=worker -- true", 2, "--env DMLC_ROLE: the launcher sets this variable"),
    ("-n 2 --env PORT=1 -- true", 2, "--env PORT: the launcher sets this variable"),
    ("-n 2 --env PS_HEARTBEAT_TIMEOUT=x -- true", 2, "PS_HEARTBEAT_TIMEOUT='x' must be a whole number of seconds"),
    ("-n 2 -H  -- true", 2, "No such file or directory: ''"),
    ("-n 2 --port 70000 -- true", 2, "--port 70000: the job needs 5 ports from there on, and the last possible one is"),
    ("-n 2 --port 65532 -- true", 2, "the last possible one is 65535; give at most --port 65531"),
])  # fmt: skip
def test_wrong_arguments(arguments, code, message):
    job = ended(*LAUNCH, *arguments.split(" "))
    assert (job.code, job.out, job.left) == (code, [], False)
    assert message in job.last


@pytest.mark.parametrize("offset", [0, 4])
def test_a_port_that_somebody_listens_at(offset):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        job = ended(*LAUNCH, "-n", "2", "--port", str(port - offset), "--", "true")
    assert (job.code, job.out) == (2, [])
    assert "--port {}: port {} of this machine: Address already in use".format(port - offset, port) in job.last


def test_the_last_ports_there_are(tmp_path):
    job = said(dict(cwd=tmp_path), "-n", "2", "--port", "65531")
    assert job.code == 0 and "SVRG_WATCH_PORT=65535" in job.out[-1]


CLOSED = "standard {} is closed; let it go somewhere, for instance to /dev/null"
FULL = "the output can't be written: No space left on device; let it go elsewhere"
PRINTS = "-n 1 -- sh -c 'echo x; exec sleep 1000'"


@pytest.mark.parametrize("arguments, redirected, message", [
    (PRINTS, ">&-", CLOSED.format("output")), (PRINTS, "2>&-", CLOSED.format("error")), (PRINTS, ">/dev/full", FULL),
    (PRINTS, "2>/dev/full", FULL), ("-n 1 --dry-run -- true", ">/dev/full", FULL), ("--help", ">/dev/full", FULL),
])  # fmt: skip
def test_output_that_can_not_be_written(arguments, redirected, message):
    line = "{} {} {}".format(" ".join(map(shlex.quote, LAUNCH)), arguments, redirected)
    job = ended("sh", "-c", "exec " + line)
    assert (job.code, job.left) == (2, False)
    assert any(message in each for each in (job.out if redirected.startswith("2") else job.err)), job.err
    assert not any("Traceback" in each or "ignored" in each for each in job.err)


def test_a_command_that_is_no_program(tmp_path):
    (tmp_path / "program").write_text("\0")
    (tmp_path / "program").chmod(0o755)
    job = ended(*quick(WAITING), "-n", "1", "--", tmp_path / "program")
    assert job.code == 126
    assert job.err[-2] == "worker 0 | {} can't be started: Exec format error".format(tmp_path / "program")


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        launch.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "python -m svrg_optimization.launch -n 4 -s 2 --timeout 3600 -- python train.py --epochs 10" in printed
    assert "127 if there is no such command" in printed


# ------------------------------------------------------------------------------------------------------- several hosts


def test_dry_run_on_this_machine(tmp_path):
    job = said(dict(cwd=tmp_path), "-n", "1", "--port", "9000", "--env", "SECRET=a b")
    common = (
        "env DMLC_NODE_HOST=127.0.0.1 DMLC_NUM_SERVER=1 DMLC_NUM_WORKER=1 DMLC_PS_ROOT_PORT=9000 "
        "DMLC_PS_ROOT_URI=127.0.0.1 DMLC_ROLE={} PORT={} PS_HEARTBEAT_INTERVAL=1 PS_HEARTBEAT_TIMEOUT=5 "
        "PYTHONUNBUFFERED=1 'SECRET=a b' {} SVRG_WATCH_PORT=9003 {}"
    )
    server = sys.executable + " -m svrg_optimization.server"
    lines = []
    processes = ("scheduler", 9000, server), ("server 0", 9001, server), ("worker 0", 9002, "python train.py")
    for name, port, command in processes:
        process = shlex.quote("SVRG_PROCESS=" + name)
        lines += [
            "# " + name,
            "cd {} && exec {}".format(tmp_path, common.format(name.split()[0], port, process, command)),
        ]
    assert (job.code, job.out, job.err) == (0, lines, [])


def test_dry_run_on_several_hosts(tmp_path):
    (tmp_path / "hosts").write_text("# two machines\n\nme@b address=10.0.0.10 slots=1\nc address=10.0.0.9  # slower\n")
    job = said(dict(cwd=tmp_path, OMP_NUM_THREADS="2", HOME_GROWN="1"), "-n", "3", "-s", "2", "-H", "hosts",
               "--port", "9000", "--ssh", "ssh -p 22")  # fmt: skip
    names = [line[2:] for line in job.out[::2]]
    assert names == ["scheduler on me@b", "server 0 on c", "server 1 on me@b", "worker 0 on c", "worker 1 on c",
                     "worker 2 on me@b"]  # fmt: skip
    # ps-lite numbers processes by address, as text, from the last; and then by port, from the first.
    for name, line in zip(names, job.out[1::2]):
        host, address = ("me@b", "10.0.0.10") if name.endswith("me@b") else ("c", "10.0.0.9")
        port = 9000 + names.index(name)
        process = shlex.quote("SVRG_PROCESS=" + name.partition(" on ")[0])
        command = "python train.py" if "worker" in name else sys.executable + " -m svrg_optimization.server"
        remote = (
            "cd {} && exec env DMLC_NODE_HOST={} DMLC_NUM_SERVER=2 DMLC_NUM_WORKER=3 DMLC_PS_ROOT_PORT=9000 "
            "DMLC_PS_ROOT_URI=10.0.0.10 DMLC_ROLE={} OMP_NUM_THREADS=2 PORT={} PS_HEARTBEAT_INTERVAL=1 "
            "PS_HEARTBEAT_TIMEOUT=5 PYTHONUNBUFFERED=1 {} SVRG_WATCH_PORT=9006 {}"
        ).format(tmp_path, address, name.split()[0], port, process, command)
        assert line == "ssh -p 22 {} {}".format(host, shlex.quote(remote))


@pytest.mark.parametrize("text, message", [
    ("", "hosts names no host"),
    ("a address=10.0.0.1 cpus=4", "hosts, line 1: 'cpus=4' is neither slots=NUMBER nor address=ADDRESS"),
    ("\na address=10.0.0.1 slots=0", "hosts, line 2: slots=0: must be a whole number, at least 1"),
    ("-oProxyCommand=x", "hosts, line 1: '-oProxyCommand=x' is no host"),
    ("host.invalid", "host.invalid: "),
    ("host.invalid", "; add address=ADDRESS"),
    ("a address=10.0.0.1\nb address=10.0.0.1", "hosts: 10.0.0.1 is there twice"),
    ("a address=10.0.0.1 slots=x", "hosts, line 1: slots=x: must be a whole number, at least 1"),
    ("a address=10.0.0.1 slots=²", ": must be a whole number, at least 1"),
    ("a address=10.0.0.1 slots=1 slots=2", "hosts, line 1: slots= is there twice; give it once"),
    ("a address=10.0.0.1 slots", "hosts, line 1: 'slots' is neither slots=NUMBER nor address=ADDRESS"),
    ("me@ address=10.0.0.1", "hosts, line 1: 'me@' is no host; begin the line with a name or an address"),
    ("a..b", "hosts, line 1: 'a..b' can't be the name of a host"),
    (b"\xff\xfe", "hosts is no text; write a line like 'node1 slots=2' for each host"),
    ("# nobody\n", "hosts names no host; write a line like 'node1 slots=2' for each"),
    ("a address=10.0.0.1\nlocalhost", "hosts: 127.0.0.1 is an address that the other hosts can't reach"),
    ("a address=10.0.0.1 slots=1\nb address=10.0.0.2 slots=1", "3 workers, and the hosts have 2 slots in all"),
])  # fmt: skip
def test_wrong_hostfiles(text, message, tmp_path):
    (tmp_path / "hosts").write_bytes(text if isinstance(text, bytes) else text.encode())
    job = said(dict(cwd=tmp_path), "-n", "3", "-H", "hosts")
    assert (job.code, job.out) == (2, [])
    assert message in job.last


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_a_name(tmp_path):
    (tmp_path / "hosts").write_text("\ufeffa address=10.0.0.1\n", encoding="utf-8")
    assert said(dict(cwd=tmp_path), "-n", "1", "-H", "hosts").out[0] == "# scheduler on a"


def test_workers_are_dealt_out_in_turn():
    a, b, c = Host("a", "10.0.0.1", 3), Host("b", "10.0.0.2", 1), Host("c", "10.0.0.3")
    assert "".join(host.name for host in job_plan.deal(7, [a, b, c])) == "abcacac"


# ssh as it is for the launcher: a command that lets another process run a line by a shell, and passes its standard
# input on. A signal doesn't get there.
STAND_IN = ["sh", "-c", 'env -i PATH="$PATH" HOST="$0" sh -c "$1"; exit $?']


@pytest.fixture
def other_host(tmp_path):
    """Arguments for a host that isn't this one, though it is."""
    (tmp_path / "hosts").write_text("other address=192.0.2.1\n")
    package = str(Path(svrg_optimization.__file__).parent.parent)
    return ["-H", tmp_path / "hosts", "--ssh", " ".join(map(job_plan.shlex.quote, STAND_IN)),
            "--env", "PYTHONPATH=" + package]  # fmt: skip


def test_other_hosts_get_the_directory_and_what_is_passed_on(other_host, tmp_path):
    show = "echo $HOST $PWD [$SECRET] [$OPEN] $DMLC_NODE_HOST $DMLC_PS_ROOT_URI $MXNET_X"
    job = ended(*quick(), "-n", "1", *other_host, "--env", "OPEN", "--", "sh", "-c", show,
                cwd=tmp_path, SECRET="1", OPEN="2 '", MXNET_X="3")  # fmt: skip
    assert (job.code, job.left) == (0, False)
    assert job.out == ["worker 0 | other {} [] [2 '] 192.0.2.1 192.0.2.1 3".format(tmp_path)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_on_other_hosts(number, other_host):
    job = ended(*quick(WAITING), "-n", "2", *other_host, "--", "sh", "-c", FAMILY, number=number, ready=2)
    assert job.left is False


def test_commands_that_other_hosts_do_not_have(other_host):
    job = ended(*quick(WAITING), "-n", "1", *other_host, "--", "no-such-command")
    assert (job.code, job.err[-2]) == (127, "worker 0 | no-such-command can't be started: No such file or directory")


def test_ssh_that_fails_is_named(tmp_path):
    (tmp_path / "hosts").write_text("other address=192.0.2.1\n")
    job = ended(
        *quick(), "-n", "1", "-H", tmp_path / "hosts", "--ssh", "sh -c 'echo no route >&2; exit 255'", "--", "true"
    )
    assert (job.code, job.left) == (255, False)
    assert re.fullmatch(r"launch \| \w+( 0)? on other: ssh failed; all end", job.last)


@pytest.mark.parametrize("variable", ["SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "JOB_COMPLETION_INDEX"])
def test_the_script_of_the_documentation_knows_the_role_of_a_rank(variable, tmp_path):
    document = Path(__file__).parent.parent.parent / "docs" / "cluster.md"
    (script,) = re.findall(r"^```sh\n(#!/bin/sh\n# role.sh .*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "role.sh").write_text(script)
    (tmp_path / "python").write_text("#!/bin/sh\necho $DMLC_ROLE: $*\n")
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": "{}:{}".format(tmp_path, os.environ["PATH"]), "DMLC_NUM_SERVER": "2"}
    command, roles = ["sh", tmp_path / "role.sh", "python", "train.py", "a b"], []
    for rank in range(5):
        environment[variable] = str(rank)
        roles.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    others = ["{}: -m svrg_optimization.server\n".format(role) for role in ("scheduler", "server", "server")]
    assert roles == [*others, "worker: train.py a b\n", "worker: train.py a b\n"]


# ------------------------------------------------------------------------------------------------------ the real thing

TRAIN = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
import mxnet as mx
import numpy as np
from svrg_optimization import SVRGModule


def fail(param=None):
    place = "reading its data" if param is None else "training"
    if sys.argv[1:3] == [str(store.rank), place]:
        if sys.argv[3] != "exception":
            sys.exit(int(sys.argv[3]))
        raise ValueError("as the test wants")


output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, no_bias=True, name="fc")
module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("label")), label_names=["label"])
store = mx.kv.create("dist_sync")
fail()
x = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")[store.rank :: store.num_workers]
train = mx.io.NDArrayIter(x, x.sum(axis=1), batch_size=2, label_name="label")
module.fit(
    train, eval_metric="mse", num_epoch=150, kvstore=store, optimizer_params={"learning_rate": 0.5},
    batch_end_callback=fail,
)
print("rank", store.rank, "of", store.num_workers, module.get_params()[0]["fc_weight"].asnumpy().round(3).tolist())
"""


@pytest.fixture
def train(tmp_path):
    """The command of a training program."""
    (tmp_path / "train.py").write_text(TRAIN)
    return [sys.executable, "-W", "ignore", tmp_path / "train.py"]


def assert_trained(job, workers):
    assert (job.code, job.left) == (0, False), job.err
    lines = sorted(line for line in job.out if "rank" in line)
    assert lines == ["worker {} | rank {} of {} [[1.0, 1.0, 1.0]]".format(k, k, workers) for k in range(workers)]


def test_a_real_job(train):
    job = ended(*LAUNCH, "-n", "3", "-s", "2", "--timeout", "240", "--", *train)
    assert_trained(job, 3)
    assert "worker 2 | Epoch[0] Full gradient: samples=12" in "\n".join(job.err)


@pytest.mark.parametrize("place, how, code", [
    ("reading its data", "0", 1), ("training", "exception", 1), ("training", "3", 3),
])  # fmt: skip
def test_a_real_job_that_fails(train, place, how, code):
    job = ended(*LAUNCH, "-n", "2", "--timeout", "240", "--", *train, "1", place, how)
    assert (job.code, job.left) == (code, False)
    said = "worker 1 ends: it leaves" if how != "exception" else "ValueError: as the test wants"
    assert any(line.startswith("worker 1 | " + said) for line in job.err)
    assert job.last == "launch | worker 1 ended with exit code {}; all end".format(code)


@pytest.fixture
def namespaces():
    """Two hosts, as network namespaces of this machine with a cable between them: names and addresses."""
    hosts = {"svrg{}{}".format(os.getpid(), end): "10.203.0.{}".format(k) for k, end in ((9, "a"), (10, "b"))}
    a, b = hosts
    commands = ["ip netns add {}".format(name) for name in hosts]
    commands.append("ip -n {} link add cable type veth peer name cable netns {}".format(a, b))
    for name, address in hosts.items():
        commands += ["ip -n {} addr add {}/24 dev cable".format(name, address)]
        commands += ["ip -n {} link set {} up".format(name, device) for device in ("cable", "lo")]
    try:
        for command in commands:
            try:
                subprocess.run(command.split(), check=True, capture_output=True, text=True)
            except FileNotFoundError:
                pytest.skip("several hosts: not tested, there is no `ip` (Debian's package iproute2)")
            except subprocess.CalledProcessError as error:
                pytest.skip("several hosts: not tested, no network namespaces here: " + error.stderr.strip())
        yield hosts
    finally:
        if shutil.which("ip"):
            for name in hosts:
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def two_hosts(namespaces, other_host, tmp_path):
    """Arguments for a job on both."""
    (tmp_path / "hosts").write_text("".join("{} address={}\n".format(*host) for host in namespaces.items()))
    stand_in = ["sh", "-c", 'ip netns exec "$0" env -i PATH="$PATH" sh -c "$1"; exit $?']
    stand_in = " ".join(map(job_plan.shlex.quote, stand_in))
    return ["-n", "3", "-s", "2", *other_host, "--ssh", stand_in, "--timeout", "240"]


def test_a_real_job_on_two_hosts(two_hosts, train):
    assert_trained(ended(*LAUNCH, *two_hosts, "--", *train), 3)


def test_a_real_job_on_two_hosts_that_lose_each_other(two_hosts, namespaces, tmp_path):
    # Pulls the cable in the middle of training.
    cut = "import os; os.system('ip link set cable down')"
    script = TRAIN.replace("print(", "for _ in range(10000): module.update_full_grads(train)\nprint(")
    script = script.replace("for _ in", "if store.rank == 0: {}\nfor _ in".format(cut))
    (tmp_path / "train.py").write_text(script)
    job = ended(*LAUNCH, *two_hosts, "--", sys.executable, "-W", "ignore", tmp_path / "train.py")
    assert (job.code, job.left) == (70, False)
    assert any("no heartbeat from" in line for line in job.err)
