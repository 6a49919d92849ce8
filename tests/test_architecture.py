"""Arrows between the packages go down only, and mxnet's private attributes are touched in one place."""

import ast
import pathlib
import re

import pytest

import svrg_optimization

PACKAGE = pathlib.Path(svrg_optimization.__file__).parent
# What each part of the package may import of the others; itself, too, if it is a package.
MAY_IMPORT = {
    "keys": set(),
    "notices": set(),
    "schedules": {"svrg"},
    "coefficients": {"svrg"},
    "fit_run": {"locked_batches", "compute", "svrg", "mxnet_api"},
    "module_state": {"checkpoint", "distributed", "svrg", "mxnet_api"},
    "sparse_steps": {"proximal", "compute", "svrg", "mxnet_api"},
    "training_objective": {"proximal", "adamw", "svrg", "mxnet_api"},
    "history": set(),
    "locked_batches": set(),
    "csr_iter": {"svrg"},
    "theory": set(),
    "proximal": set(),
    "adamw": set(),
    "mxnet_api": set(),
    "step_sizes": set(),
    "variance_monitor": {"history", "svrg"},
    "diagnosis": {"svrg_module", "variance_monitor", "compute", "svrg", "mxnet_api"},
    "chosen_steps": {"step_sizes", "svrg", "mxnet_api"},
    "svrg": {"history", "step_sizes", "mxnet_api"},
    "svrg_optimizer": {"keys"},
    "compute": {"csr_iter", "locked_batches", "svrg", "mxnet_api"},
    "checkpoint": {"svrg", "mxnet_api"},
    "horovod_store": set(),
    "distributed": {"keys", "horovod_store", "checkpoint", "svrg", "mxnet_api"},
    "server": {"distributed", "svrg_optimizer", "mxnet_api"},
    "launch": {"distributed"},
    "svrg_module": {
        "keys",
        "notices",
        "history",
        "locked_batches",
        "chosen_steps",
        "fit_run",
        "module_state",
        "sparse_steps",
        "training_objective",
        "variance_monitor",
        "svrg_optimizer",
        "checkpoint",
        "compute",
        "distributed",
        "svrg",
        "mxnet_api",
    },
    "bucket": {"svrg_module", "notices", "compute", "mxnet_api"},
    "svrg_bucketing_module": {
        "bucket",
        "history",
        "svrg_module",
        "module_state",
        "variance_monitor",
        "checkpoint",
        "svrg",
        "mxnet_api",
    },
    "__init__": {
        "svrg_bucketing_module",
        "schedules",
        "coefficients",
        "svrg_module",
        "svrg_optimizer",
        "diagnosis",
        "adamw",
        "csr_iter",
        "history",
        "locked_batches",
        "proximal",
        "step_sizes",
        "theory",
        "variance_monitor",
        "mxnet_api",
        "distributed",
    },
}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))


def part_of(path):
    """Which part of the package a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first[:-3] if first.endswith(".py") else first


def imported_parts(path):
    """The parts of the package that a file imports."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        names = [node.module] if node.module else [alias.name for alias in node.names]
        for name in names:
            # `from . import x` in a sub-package stays inside.
            yield name.split(".")[0] if node.level == depth else part_of(path)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_go_down(path):
    part = part_of(path)
    assert set(imported_parts(path)) - {part} <= MAY_IMPORT[part]


def test_every_part_is_listed():
    assert {part_of(path) for path in SOURCES} == set(MAY_IMPORT)


# Attributes of Module, BucketingModule and the executor group that mxnet keeps private.
PRIVATE = re.compile(
    r"\._(exec_group|kvstore|updater|optimizer|arg_params|aux_params|params_dirty|update_on_kvstore|param_names"
    r"|context|group2ctxs|preload_opt_states|all_index_update_counts|index_update_count|send_command_to_servers"
    r"|default_execs|collect_arrays|get_lrs|get_wds|update_count|buckets|curr_module|curr_bucket_key|call_sym_gen)\b"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_attributes_of_mxnet_are_touched_in_one_place(path):
    # An optimizer calls what mxnet's Optimizer has for those that are derived from it.
    if path.name not in ("internals.py", "proximal.py", "adamw.py"):
        assert not PRIVATE.findall(path.read_text("utf-8"))
