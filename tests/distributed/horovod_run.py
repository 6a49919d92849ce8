"""Horovod jobs: every step of every worker equals the data-parallel oracle, for the jobs of test_distributed.

    make horovod

Not among the tests that pytest collects: Horovod has to be built. Exits 1 if a job fails.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

# oracle.py and models.py are there.
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))


def worker(path):
    """Be a worker of all jobs that have as many as there are."""
    import distributed_worker

    from svrg_optimization.horovod_store import HorovodStore

    store = HorovodStore()
    for job in json.loads(pathlib.Path(path).read_text())[str(store.num_workers)]:
        training = distributed_worker.Training(job, store.rank)
        way = training.train_by_hand if job["by_hand"] else training.fit
        way(store)
        training.save()


def main(directory):
    """Run all jobs; return the number of those that failed."""
    from jobs import steps_of
    from test_distributed import JOBS, _assert_steps, _job

    by_workers = {}
    for k, row in enumerate(JOBS):
        job, _ = _job(directory / str(k), row)
        by_workers.setdefault(len(job["shards"]), []).append(job)
    path = directory / "jobs.json"
    path.write_text(json.dumps(by_workers))
    failed = 0
    for workers, jobs in by_workers.items():
        command = [sys.executable, "-m", "horovod.runner.launch", "-np", str(workers), "--gloo"]
        subprocess.run([*command, sys.executable, "-W", "ignore", __file__, str(path)], check=False, timeout=300)
        for job in jobs:
            try:
                _assert_steps(steps_of(job["directory"], workers), job)
            except (AssertionError, OSError) as error:
                failed += 1
                print("WRONG", job, error)
            else:
                print("ok    {} workers, {}, {}".format(workers, job["problem"], job["optimizer"]), flush=True)
    return failed


if __name__ == "__main__":
    if sys.argv[1:]:
        worker(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            sys.exit(1 if main(pathlib.Path(temporary)) else 0)
