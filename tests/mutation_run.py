"""Seed each defect of the design notes' traps into a copy of the package, and see the named test fail.

    python tests/mutation_run.py [word ...]     only the defects whose description has one of the words

A test that passes on its defect proves nothing; this exits 1 if there is one.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

TESTS = pathlib.Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "svrg_optimization"

# (what goes wrong, file, text, replacement, test that must fail)
DEFECTS = [
    ("full gradients recognised by substring", "keys.py",
     "return key.endswith(SUFFIX) and key[: -len(SUFFIX)] in parameters", 'return "full" in key',
     "test_traps.py::test_weights_named_fullyconnected_become_nan"),
    ("a parameter x_full beside x is accepted", "svrg_module.py",
     "        check_parameter_names(mxnet_internals.parameter_names(self))\n", "",
     "test_traps.py::test_parameter_named_like_the_full_gradient_of_another_is_mistaken_for_it"),
    ("the old full gradient isn't zeroed", "strategies.py",
     "full_gradient.zeros_for(mxnet_internals.gradients(self.live))",
     "self.live._param_dict if self.live._snapshot.taken else "
     "full_gradient.zeros_for(mxnet_internals.gradients(self.live))",
     "test_traps.py::test_full_gradient_remembers_the_last_snapshot"),
    ("padded rows are summed", "batches.py", "if not any(padding(part) for part in parts):", "if True:",
     "test_traps.py::test_padded_rows_are_counted_in_the_full_gradient"),
    ("padded rows are counted in n", "batches.py",
     "sum(row_count(part.data, self._data_axes) - padding(part) for part in parts)",
     "sum(row_count(part.data, self._data_axes) for part in parts)",
     "test_traps.py::test_padded_rows_are_counted_in_the_full_gradient"),
    ("the zero-filled extra keys are pulled into the weights", "svrg_module.py",
     "            store.init([full_gradient_key(name) for name in zeros], list(zeros.values()))\n",
     "            store.init([full_gradient_key(name) for name in zeros], list(zeros.values()))\n"
     "            for name, arrays in zip(self._exec_group.param_names, self._exec_group.param_arrays):\n"
     "                store.pull(full_gradient_key(name), out=arrays)\n",
     "test_traps.py::test_init_optimizer_zeroes_the_weights_when_the_store_updates_them"),
    ("a distributed store is created", "checks.py", 'if "dist" in kind:', "if False:",
     "test_traps.py::test_a_distributed_store_hangs_for_ever"),
    ("fixed parameters have a full gradient", "mxnet_internals.py",
     "        if on_devices[0] is not None\n", "",
     "test_traps.py::test_fixed_parameters_crash"),
    ("the full gradient is always float32", "estimator.py",
     "return np.float64 if np.dtype(dtype) == np.float64 else np.float32", "return np.float32",
     "test_traps.py::test_float64_crashes_or_is_computed_in_float32"),
    ("row_sparse gradients are taken for their stored rows", "estimator.py", 'gradient.tostype("default")', "gradient.data",
     "test_traps.py::test_row_sparse_parameters_crash"),
    ("is_train=None means False", "svrg_module.py", "(is_train is None or is_train)", "is_train",
     "test_traps.py::test_forward_without_is_train_leaves_the_gradients_of_the_snapshot_stale"),
    ("the wrapper keeps attributes of its own", "svrg_optimizer.py",
     "            setattr(self.default_opt, name, value)", "            object.__setattr__(self, name, value)",
     "test_traps.py::test_lr_scheduler_set_later_does_not_reach_the_optimizer"),
    ("set_learning_rate isn't passed on", "svrg_optimizer.py", "        self.default_opt.set_learning_rate(lr)", "        pass",
     "test_traps.py::test_set_learning_rate_does_not_reach_the_optimizer"),
    ("set_lr_mult isn't passed on", "svrg_optimizer.py", "        self.default_opt.set_lr_mult(args_lr_mult)", "        pass",
     "test_traps.py::test_multipliers_do_not_reach_the_optimizer"),
    ("set_wd_mult isn't passed on", "svrg_optimizer.py", "        self.default_opt.set_wd_mult(args_wd_mult)", "        pass",
     "test_traps.py::test_multipliers_do_not_reach_the_optimizer"),
    ("multipliers of the symbol are dropped", "svrg_optimizer.py", "(**kwargs)\n        elif", '(**{**kwargs, "sym": None})\n        elif',
     "test_traps.py::test_multipliers_do_not_reach_the_optimizer"),
    ("the snapshot shares the live weights", "svrg_module.py",
     "force_rebind=True, shared_module=shared_snapshot, grad_req", "force_rebind=True, shared_module=shared_module, grad_req",
     "test_traps.py::test_sharing_with_a_plain_module_makes_the_snapshot_follow_the_weights"),
    ("a snapshot that was never taken can't be bound anew", "svrg_module.py",
     "mxnet_internals.unbind(self._mod_aux)", "self._mod_aux._reset_bind()",
     "test_module_api.py::test_rebinding_before_the_first_snapshot"),
    ("sharers don't share the snapshot", "svrg_module.py", "            self._snapshot = shared_module._snapshot\n", "",
     "test_traps.py::test_shared_module_makes_the_snapshot_follow_the_weights"),
    ("update_freq=True is accepted", "checks.py", "isinstance(value, bool) or ", "",
     "test_traps.py::test_update_freq_that_is_no_positive_integer_is_accepted"),
    ("the snapshot draws its own masks", "strategies.py", "        self._draws.repeat()\n", "        pass\n",
     "test_traps.py::test_dropout_draws_other_masks_at_the_snapshot"),
    ("every step draws the same masks", "random_draws.py", "        self.position[1] += 1\n", "",
     "test_traps.py::test_dropout_draws_other_masks_at_the_snapshot"),
    ("load makes a plain Module", "svrg_module.py", "module = cls(symbol, **kwargs)",
     "kwargs.pop('update_freq', None); module = Module(symbol, **kwargs)",
     "test_checkpoint.py::test_load_returns_a_plain_module_and_no_state_is_saved"),
    ("the snapshot's weights aren't saved", "checkpoint.py", '("snapshot", state.snapshot), ', "",
     "test_checkpoint.py::test_load_returns_a_plain_module_and_no_state_is_saved"),
    ("the optimizer's position isn't restored", "svrg_module.py",
     "            checkpoint.restore_position(users_optimizer, self._restoring)\n", "",
     "test_checkpoint.py::test_resumed_training_is_the_uninterrupted_one_bit_for_bit"),
    ("the draws aren't restored", "svrg_module.py", "        self._draws.position[:] = state.draws\n", "",
     "test_checkpoint.py::test_resumed_with_the_very_dropout_masks_of_the_uninterrupted_run"),
    ("companions are renamed before the commit", "checkpoint.py", "        os.replace(files.svrg + _NEW, files.svrg)\n",
     "        for path in companions.values():\n            os.replace(path + _NEW, path)\n"
     "        os.replace(files.svrg + _NEW, files.svrg)\n        companions = {}\n",
     "test_checkpoint.py::test_a_kill_while_saving_leaves_the_old_or_the_new_checkpoint_whole"),
    ("interrupted renames aren't finished", "checkpoint.py", "            os.replace(path + _NEW, path)\n\n\ndef last_epoch", "            pass\n\n\ndef last_epoch",
     "test_checkpoint.py::test_a_kill_while_saving_leaves_the_old_or_the_new_checkpoint_whole"),
    ("the full gradient is per batch, not for the device's rows", "full_gradient.py",
     "return [1] * len(rows) if self.is_mean else list(rows)", "return [1] * len(rows) if self.is_mean else [sum(rows)] * len(rows)",
     "test_oracle.py::test_param_dict_holds_the_full_gradient_for_the_rows_of_each_device"),
    ("a smaller batch adds a full batch's full gradient", "snapshot.py", "[now / then for now, then in zip(rows, self.rows)]",
     "[1 for _ in rows]", "test_module_api.py::test_a_batch_of_another_size_adds_its_own_number_of_rows"),
    ("means are summed as if they were sums", "full_gradient.py", "return list(rows) if self.is_mean else [1] * len(rows)",
     "return [1] * len(rows)", "test_module_api.py::test_output_layers_that_average_train_like_those_that_sum"),
    ("the snapshot is not restored after an error", "svrg_module.py", "                module.set_params(*before)\n", "                pass\n",
     "test_errors.py::test_a_failed_full_pass_keeps_the_old_snapshot"),
    ("NaN in a full gradient goes unnoticed", "svrg_module.py", "        if broken:\n", "        if False:\n",
     "test_errors.py::test_a_failed_full_pass_keeps_the_old_snapshot"),
    ("an instance's own names decide the routing", "svrg_optimizer.py", "self._names.values()", "self.default_opt.idx2name.values()",
     "test_edges.py::test_an_optimizer_instance_with_names_of_its_own"),
    ("a last batch that is discarded or kept isn't counted", "batches.py", 'pads = isinstance(data, mx.io.NDArrayIter) and', "pads = False and",
     "test_module_api.py::test_full_gradient_is_over_all_samples_however_far_the_iterator_was"),
    ("readers are reset before they are read to the end", "batches.py", "        for _ in data:\n            pass\n", "        pass\n",
     "test_edges.py::test_fit_reads_mxnets_own_readers_whole"),
    ("whoever asks for the snapshot in a full pass spoils it", "svrg_module.py", "            mxnet_internals.keep_own_copy(module)\n", "",
     "test_edges.py::test_a_checkpoint_saved_in_a_callback_of_the_full_pass"),
    ("padded batches are always shrunk", "svrg_module.py", "not self._rows_are_independent and", "True and",
     "test_edges.py::test_a_loss_that_averages_by_itself_with_a_padded_last_batch"),
    ("padded batches are never shrunk", "svrg_module.py", "not self._rows_are_independent and", "False and",
     "test_edges.py::test_batch_normalisation_sees_the_true_rows_of_a_padded_batch"),
    ("a save forgets what a killed one committed", "checkpoint.py", "    finish_interrupted_save(files)\n    companions", "    companions",
     "test_checkpoint.py::test_two_kills_in_a_row"),
    ("the snapshot runs in the memory that the live backward pass needs", "strategies.py",
     '        """Nothing yet."""\n', "        super()._forward_snapshot(batch, as_bound)\n", "test_module_api.py"),
    ("what was bound before is kept", "svrg_module.py", '        self.__dict__.pop("_strategy", None)\n', "",
     "test_edges.py::test_binding_anew_frees_what_was_bound"),
    ("a full pass of both spoils a sharer's pending gradients", "svrg_module.py", "        pending = self._snapshot.gradients_pending\n",
     "        pending = self._snapshot.gradients_pending and self._batch is not None\n",
     "test_edges.py::test_a_full_pass_leaves_the_pending_gradients_of_a_sharer_alone"),
    ("small networks with sparse gradients", "strategies.py", "self._one_wide_type = _are_wide(arrays) and ", "self._one_wide_type = ",
     "test_edges.py::test_sparse_gradients_of_dense_weights"),
    ("the memory-saving strategy has memory of its own", "strategies.py", "inputs_of=self.live, memory_of=self.live)", "inputs_of=self.live)",
     "test_edges.py::test_memory_is_shared_if_it_is_to_be_saved"),
    ("the snapshot reads a batch again that may be another by then", "strategies.py",
     "            self._reshape_to(self._live_shapes())\n            self._share_anew()\n",
     "            super()._forward_snapshot(batch, as_bound=False)\n            return self._run_backward(heads(self.aux))\n", "test_edges.py::test_a_batch_may_be_filled_anew_before_the_backward_pass"),
    ("the snapshot sees states that are set before its pass", "strategies.py", " and not mxnet_internals.state_names(module)\n", "\n",
     "test_edges.py::test_states_may_be_set_before_the_backward_pass"),
    ("the snapshot of a sharer sees states that are set before its pass", "strategies.py",
     "isinstance(strategy, MemorySaving) and _can_follow(live) else", "isinstance(strategy, MemorySaving) else",
     "test_edges.py::test_states_may_be_set_before_the_backward_pass"),
    ("the live outputs are lost", "strategies.py", "            value.copyto(output)", "            pass",
     "test_module_api.py::test_outputs_are_those_of_the_live_weights"),
    ("running statistics change in a full pass of both", "strategies.py", "                value.copyto(state)", "                pass",
     "test_module_api.py::test_the_running_statistics_of_the_snapshot_never_touch_the_live_ones"),
    ("a full pass of both spoils pending gradients", "svrg_module.py", "(pending or self._monitored", "(self._monitored",
     "test_module_api.py::test_snapshot_between_backward_and_update_leaves_that_step_alone"),
    ("the sign of the control variate", "estimator.py", '("broadcast_sub", [gradient, snapshot_gradient], [gradient])',
     '("broadcast_add", [gradient, snapshot_gradient], [gradient])',
     "test_traps.py::test_forward_without_is_train_leaves_the_gradients_of_the_snapshot_stale"),
    ("the full gradient is added before the difference is taken", "estimator.py", """
        operation("broadcast_sub", [gradient, snapshot_gradient], [gradient]),
        operation("broadcast_add", [gradient, full_gradient], [gradient]),""", """
        operation("broadcast_add", [gradient, full_gradient], [gradient]),
        operation("broadcast_sub", [gradient, snapshot_gradient], [gradient]),""",
     "test_full_pass.py::test_the_rule_takes_the_difference_first"),
    ("larger batches although the output layers average", "full_gradient.py", "not any(losses) and keeps", "keeps",
     "test_full_pass.py::test_networks_that_may_depend_on_the_batch_size_keep_it"),
    ("larger batches leave the last rows out", "batches.py", "[rows + 1] * longer + [rows] * (count - longer)", "[rows] * count",
     "test_full_pass.py::test_a_full_pass_takes_many_rows_at_once"),
    ("larger batches of any iterator", "batches.py", "is_itself(data, mx.io.NDArrayIter)", "isinstance(data, mx.io.NDArrayIter)",
     "test_full_pass.py::test_other_iterators_are_left_alone"),
    ("views leave the kept rows out", "batches.py", "if 0 <= start <= data.num_data", "if start <= data.num_data",
     "test_full_pass.py::test_views_are_the_batches_that_the_iterator_gives"),
    ("a subclass gets views", "svrg_module.py", "is_itself(self, SVRGModule)", "vars(self).keys().isdisjoint(dir(SVRGModule))",
     "test_full_pass.py::test_batches_that_others_may_change_are_copies"),
    ("sparse_row_id_fn gets views", "svrg_module.py", "sparse_row_id_fn is None and ", "",
     "test_full_pass.py::test_batches_that_others_may_change_are_copies"),
    ("views of sparse labels", "batches.py", "[*data.data, *data.label]", "data.data",
     "test_full_pass.py::test_other_iterators_are_left_alone"),
    ("after another shape the snapshot draws twice", "strategies.py", "            self._reshape_to(self._live_shapes())\n            self._share_anew()\n",
     "            super()._forward_snapshot(batch, as_bound=False)\n            self._share_anew()\n",
     "test_traps.py::test_dropout_draws_other_masks_at_the_snapshot"),
    ("larger batches for a network that mixes its rows", "full_gradient.py", " and keeps_rows_apart(symbol)", "",
     "test_full_pass.py::test_networks_that_may_depend_on_the_batch_size_keep_it"),
    ("larger batches sum in pending gradients", "strategies.py", "        if not live_is_free:\n", "        if not larger and not live_is_free:\n",
     "test_full_pass.py::test_larger_batches_leave_pending_gradients_alone"),
    ("larger batches although memory is to be saved", "strategies.py", '        """None: they take more memory."""\n        return None\n',
     "        return super().larger_batches(gradient, data, least)\n", "test_full_pass.py::test_memory_is_saved_in_full_passes_too"),
    ("half of the larger batches is lost", "gradient_sum.py", "self._executors[1:]", "()",
     "test_full_pass.py::test_a_full_pass_takes_many_rows_at_once"),
    ("a step goes on with the inputs of a shape before", "forward.py", "        if executor is not self._executor:\n",
     "        if not self._copies:\n            self._executor = executor\n        if not self._copies:\n",
     "test_module_api.py"),
    ("larger batches add to the sum of the pass before", "pass_executor.py", "            array[:] = 0\n", "            pass\n",
     "test_full_pass.py::test_a_full_pass_takes_many_rows_at_once"),
    ("larger batches although head gradients are missing", "full_gradient.py", " and ends_in_losses(symbol)", "",
     "test_full_pass.py::test_networks_that_may_depend_on_the_batch_size_keep_it"),
    ("a loss that asks for head gradients gets ones", "networks.py", " and not asked_for", "",
     "test_full_pass.py::test_networks_that_may_depend_on_the_batch_size_keep_it"),
    ("larger batches beside inputs of a step's size", "shapes.py", "given.issuperset(module.symbol.list_arguments())", "True",
     "test_full_pass.py::test_labels_that_are_neither_given_nor_bound_keep_the_batch_size"),
    ("larger batches aren't cast", "shapes.py", " and array.dtype == bound.dtype", "",
     "test_full_pass.py::test_other_types_are_cast_as_for_a_step"),
    ("a full pass marks the weights", "pass_executor.py", "{name: array.detach() for name, array in {**", "{name: array for name, array in {**",
     "test_full_pass.py::test_a_full_pass_leaves_no_mark_on_the_modules_arrays"),
    ("a full pass marks the gradients", "pass_executor.py", "[array.detach() for array in self.total.values()]", "[*self.total.values()]",
     "test_full_pass.py::test_a_full_pass_leaves_no_mark_on_the_modules_arrays"),
    ("a full pass finds the marks of the data", "pass_executor.py", "self._here(name, array.detach())", "self._here(name, array)",
     "test_full_pass.py::test_a_full_pass_leaves_gradients_with_respect_to_the_data_alone"),
    ("copies of larger batches pile up", "pass_executor.py", "if name not in self._copies or", "if True or",
     "test_full_pass.py::test_what_must_be_copied_takes_the_same_memory_again"),
    ("larger batches for nothing to train", "strategies.py", "(gradients and _are_wide(gradients))", "_are_wide(gradients)",
     "test_full_pass.py::test_a_network_with_nothing_to_train_has_no_full_gradient"),
    ("copied rows aren't counted", "strategies.py", "self.apart or not shapes.all_lie_with(self.live, data)", "self.apart",
     "test_full_pass.py::test_what_must_be_copied_takes_the_same_memory_again"),
    ("too many rows in one sum", "strategies.py", "min(ROWS_AT_ONCE, AT_ONCE", "max(0, AT_ONCE",
     "test_full_pass.py::test_no_more_rows_at_once_than_are_summed_exactly"),
    ("a module with a method of its own gets views", "svrg_module.py", "is_itself(self, SVRGModule)", "type(self) is SVRGModule",
     "test_full_pass.py::test_batches_that_others_may_change_are_copies"),
    ("views of shuffled data", "svrg_module.py", " and not data.shuffle", "",
     "test_full_pass.py::test_fit_reads_views_of_data_that_stay"),
    ("fit keeps the data", "svrg_module.py", "        self._batch = None\n        if begin", "        if begin",
     "test_full_pass.py::test_fit_reads_views_of_data_that_stay"),
    ("an iterator with a method of its own is read past it", "batches.py", "is_itself(data, mx.io.NDArrayIter)", "type(data) is mx.io.NDArrayIter",
     "test_full_pass.py::test_other_iterators_are_left_alone"),
    ("larger batches in another thread's memory", "pass_executor.py", "self._apart)\n", "False)\n",
     "test_full_pass.py"),
    ("the rule keeps the full gradient of the first snapshot", "strategies.py", "self._prepared[:2] != (arrays, executors)", "self._prepared[1] != executors",
     "test_oracle.py"),
    ("a batch of another shape isn't bound apart", "placement.py", "        self._call(super().reshape, *args, **kwargs)\n",
     "        super().reshape(*args, **kwargs)\n", "test_full_pass.py::test_an_overlapped_snapshot_is_bound_apart_for_every_shape"),
    ("the sign of the control variate, for small networks", "estimator.py", "corrected.append(here - there + full)",
     "corrected.append(here + there - full)",
     "test_traps.py::test_forward_without_is_train_leaves_the_gradients_of_the_snapshot_stale"),
    ("evaluation runs the snapshot", "svrg_module.py", "and (is_train is None or is_train)):", "and True):",
     "test_module_api.py::test_evaluation_does_not_pay_for_the_snapshot"),
    ("the launcher: what has a session of its own survives", "keeper.py", "    _control(_PR_SET_CHILD_SUBREAPER, 1)", "    pass",
     "test_launch.py::test_nothing_is_left_of_what_a_program_leaves_behind"),
    ("the launcher: a keeper doesn't see that the launcher has ended", "keeper.py", "if ready != self._wake and not heard:", "if False:",
     "test_launch.py::test_nothing_is_left_on_other_hosts"),
    ("the launcher: a keeper waits for what doesn't want to end", "keeper.py", "        kill_descendants(self._command.pid)", "        pass",
     "test_launch.py::test_nothing_is_left_of_processes_that_do_not_want_to_end"),
    ("the launcher: a keeper leaves what the command left", "keeper.py", "    keeper.end()\n", "",
     "test_launch.py::test_nothing_is_left_of_what_a_program_leaves_behind"),
    ("the launcher: what a killed keeper left survives", "launch.py", "        keeper.kill_descendants()\n", "",
     "test_launch.py::test_nothing_is_left_when_a_keeper_is_killed"),
    ("the launcher: another exit code", "launch.py", "return failed.exit_code or 0", "return 1",
     "test_launch.py::test_the_first_failure_ends_all_and_gives_the_exit_code"),
    ("the launcher: a last line without its end is lost", "launch.py", "(not data or len(self._rest) > _LONGEST_LINE)",
     "len(self._rest) > _LONGEST_LINE", "test_launch.py::test_lines"),
    ("the launcher: ends although nohup ignores the signal", "launch.py", "signal.getsignal(number) != signal.SIG_IGN", "True",
     "test_launch.py::test_what_nohup_ignores_stays_ignored"),
    ("the launcher: other numbers than ps-lite's", "job_plan.py", "host.address, reverse=True)", "host.address)",
     "test_launch.py::test_dry_run_on_several_hosts"),
    ("the launcher: numbers are left to ps-lite", "job_plan.py", '"PORT": str(own_port), ', "",
     "test_launch.py::test_the_environment_of_each_role"),
    ("the launcher: secrets go to other hosts", "job_plan.py", "if name.startswith(PASSED_ON)}", "}",
     "test_launch.py::test_other_hosts_get_the_directory_and_what_is_passed_on"),
    ("the launcher: more workers than slots", "job_plan.py", "host.slots is None or dealt.count(host) < host.slots", "True",
     "test_launch.py::test_workers_are_dealt_out_in_turn test_launch.py::test_wrong_hostfiles"),
    ("in a job: mu is divided by the worker's own samples", "distributed.py", "        return sum(of_each)\n",
     "        return samples\n", "test_distributed.py::test_every_step_of_every_worker_equals_the_oracle[3-softmax-momentum]"),
    ("in a job: workers begin at weights of their own", "distributed.py",
     "        for name, arrays in parameters:\n            self.store.pull(name, out=arrays)\n", "",
     "test_distributed.py::test_every_step_of_every_worker_equals_the_oracle[3-softmax-momentum]"),
    ("in a job: keys of a server are recognised by numbers that begin at the parameters", "svrg_optimizer.py",
     "return index - sum(other.startswith((EXCHANGE, PROOF)) for other in self._server_keys)", "return index",
     "test_distributed.py::test_every_step_of_every_worker_equals_the_oracle[3-two-layer-adam]"),
    ("in a job: a snapshot sends an exchange for each parameter", "distributed.py", "for numbers in self._gather([samples])]\n",
     "for numbers in [self._gather([samples]) for _ in range(4)][0]]\n",
     "test_distributed.py::test_a_step_sends_what_that_of_a_module_sends"),
    ("in a job: the correction goes through the store", "svrg_module.py", "        super().update()\n        self._snapshot.gradients_pending = False\n",
     "        super().update()\n        for name, arrays in mxnet_internals.parameter_arrays(self):\n"
     "            self._job.store.pull(name, out=arrays)\n        self._snapshot.gradients_pending = False\n",
     "test_distributed.py::test_a_step_sends_what_that_of_a_module_sends"),
    ("in a job: servers are not proved", "distributed.py", "        self._prove_servers()\n", "",
     "test_distributed.py::test_every_worker_says_what_is_wrong_before_training"),
    ("in a job: workers need not agree", "distributed.py", "        if found:\n", "        if False:\n",
     "test_distributed.py::test_every_worker_says_what_is_wrong_before_training"),
    ("in a job: fit takes as many steps as the worker itself has batches", "distributed.py", "        return min(counts)\n", "        return max(counts)\n",
     "test_distributed.py::test_fit_takes_as_many_steps_as_the_worker_with_the_fewest_batches_and_says_so"),
    ("in a job: a borrowed optimizer forgets the other workers", "distributed.py", "        return other._job\n", "        return Alone()\n",
     "test_distributed.py::test_training_by_hand_with_different_numbers_of_batches"),
    ("in a job: nobody watches the scheduler's port", "watch.py", "            if said is None:\n", "            if False:\n",
     "test_distributed.py::test_the_end_of_the_scheduler_is_seen_at_its_port"),
    ("in a job: who stood still takes all others for dead", "watch.py", " > patience]", " >= 0]",
     "test_distributed.py::test_dead_is_who_is_still_silent_when_the_next_heartbeats_have_come"),
    ("in a job: only the scheduler says who is dead", "watch.py", "                    self._tell(wrong)\n", "                    pass\n",
     "test_distributed.py::test_all_end_when_one_process_dies_and_the_job_goes_on_from_its_checkpoint[worker-step]"),
    ("in a job: workers may begin at different epochs", "distributed.py", "        self._compare(schedule, [numbers[1:] for numbers in gathered])\n", "",
     "test_distributed.py::test_every_worker_says_what_is_wrong_before_training[begin_epoch]"),
    ("in a job: servers don't watch", "server.py", "        if watch.timeout(os.environ):\n", "        if False:\n",
     "test_distributed.py::test_all_end_when_one_process_dies_and_the_job_goes_on_from_its_checkpoint[scheduler-step]"),
    ("SGD goes on at the rates of before", "updater.py", "if settings != self._settings:", "if self._settings is None:",
     "test_updater.py::test_what_is_changed_counts_from_the_next_step_on test_updater.py::test_a_schedule"),
    ("large weights without momentum are decayed by an operator that rounds otherwise", "updater.py",
     "(momentum > 0 or wd == 0) and _is", "_is", "test_updater.py::test_the_same_bits"),
    ("large weights get rates that mxnet reads otherwise", "updater.py", " and _is_read_alike(lr) and _is_read_alike(wd):", ":",
     "test_updater.py::test_a_thousand_rates_are_read_alike test_updater.py::test_rates_that_mxnet_reads_otherwise_in_a_list_than_alone"),
    ("states that are gone go unnoticed", "updater.py", ", *map(self.states_synced.get, index))", ", *map(len, [()] * len(index)))",
     "test_updater.py::test_states_that_are_gone_are_made_anew"),
    ("states that don't fit momentum any more go unnoticed", "updater.py", "optimizer.momentum > 0, optimizer.multi_precision, ", "",
     "test_updater.py::test_states_that_no_longer_fit_are_the_errors_that_mxnet_raises"),
    ("SGD updates the arrays of before", "updater.py",
     "update is None or not update.is_for(self.optimizer, self._arrays(index, grad, weight))", "update is None",
     "test_updater.py::test_new_arrays_of_the_same_number"),
    ("a class derived from SGD is taken for SGD", "updater.py",
     "type(self.optimizer) is not mx.optimizer.SGD", "not isinstance(self.optimizer, mx.optimizer.SGD)",
     "test_updater.py::test_other_optimizers_are_left_to_mxnet"),
    ("updates are never prepared", "updater.py", "update = self._updates.get(key)", "update = None",
     "test_updater.py::test_sgd_is_asked_only_the_first_time"),
    ("the updater keeps what was bound before", "svrg_module.py", "            updater.forget()\n", "            pass\n",
     "test_edges.py::test_binding_anew_frees_what_was_bound"),
    ("in a job: a watch that fails is forgotten", "watch.py", "            except Exception as error:\n", "            except KeyError as error:\n",
     "test_distributed.py::test_all_end_when_one_process_dies_and_the_job_goes_on_from_its_checkpoint[scheduler-step]"),
    ("in a job: an exception in a worker waits for the others", "distributed.py", "        _fail_fast()\n", "",
     "test_distributed.py::test_all_end_when_one_process_dies_and_the_job_goes_on_from_its_checkpoint[worker-step]"),
    ("in a job: an exception in the optimizer on a server is swallowed", "server.py", "    sys.unraisablehook = _report_and_end\n", "",
     "test_distributed.py::test_an_optimizer_that_fails_on_a_server_ends_the_job"),
    ("in a job: servers round float64", "server.py", '    if role == "server":\n        allocate_zeros(True)\n',
     "    ctypes.CDLL(None).mallopt(_M_PERTURB, 0xFE)\n", "test_distributed.py::test_every_step_of_every_worker_equals_the_oracle[4-two-layer-adam]"),
    ("horovod: the first device's gradient alone", "horovod_store.py", "for other in values[1:]:", "for other in ():",
     "test_horovod.py::test_every_step_equals_the_oracle"),
]  # fmt: skip


def pytest(tests, package_parent):
    """Run tests against the package below `package_parent`; return pytest's exit code and output."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-c", str(TESTS.parent / "pyproject.toml"), "-p", "no:xdist"]
    done = subprocess.run(
        command + [str(TESTS / test) for test in tests.split()],
        cwd=package_parent, env=dict(os.environ, PYTHONPATH=str(package_parent)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=600,
    )  # fmt: skip
    return done.returncode, done.stdout


def seeded(defect):
    """Whether the named test fails on the defect; a message if not."""
    name, file, text, replacement, tests = defect
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, copy)
        source = (copy / file).read_text("utf-8")
        if source.count(text) != 1:
            return "the text to change is {} times in {}".format(source.count(text), file)
        (copy / file).write_text(source.replace(text, replacement), "utf-8")
        code, output = pytest(tests, folder)
    if code == 0:
        return "NOT CAUGHT by " + tests
    return "" if code == 1 else "pytest broke:\n" + output[-2000:]


def main():
    """Run all; return the number of defects that no test caught."""
    words = sys.argv[1:]
    chosen = [d for d in DEFECTS if not words or any(word in d[0] for word in words)]
    started = time.time()
    code, output = pytest(" ".join(sorted({test for defect in chosen for test in defect[4].split()})), TESTS.parent)
    if code:
        print(output[-3000:], "\nThe tests must pass before a defect is seeded.")
        return 1
    trouble = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for defect, message in zip(chosen, pool.map(seeded, chosen)):
            trouble += bool(message)
            print("{:<6} {}  {}".format("ok" if not message else "WRONG", defect[0], message), flush=True)
    print("{} defects, {} not caught, {:.0f} s".format(len(chosen), trouble, time.time() - started))
    return trouble


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
