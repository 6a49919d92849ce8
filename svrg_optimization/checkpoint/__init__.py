"""Checkpoints.

- `files`: which files there are, how a save replaces all of them as if at once, and how they are read meanwhile.
- `svrg_file`: the file that is ours, ``prefix-0001.svrg``.
- `position`: how far an optimizer and its schedule have come.
- `optimizer_states`: the optimizer's states, by parameter.
- `safe_pickle`: what of a pickle is read.
"""
