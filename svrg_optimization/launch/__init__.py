"""``python -m svrg_optimization.launch``: starts the processes of a distributed job, on this machine or on several.

- `__main__`: the command line.
- `job_plan`: which processes a job has, where each runs, and what its environment says.
- `processes`: runs these processes to their end, and passes on what they write.
- `run_and_clean_up`: the program around each process, which leaves nothing behind.
"""
