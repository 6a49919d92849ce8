"""What a checkpoint holds of a module that trains, and how it is put back: a section for each part with state."""

from typing import Any, Dict, Mapping, Optional

from .checkpoint import files, optimizer_states, position
from .checkpoint.svrg_file import Sections
from .distributed.states_on_servers import as_servers_have_them
from .mxnet_api import internals
from .svrg import coefficients, schedules, settings

_LOST = (
    "the checkpoint's {0} can't be made from it: {1}. Give it again: SVRGModule.load(..., {0}=...), or load with "
    "load_optimizer_states=False"
)


def sections_of(module: Any) -> Sections:
    """What training needs to go on, but for the weights and the optimizer's states."""
    schedule, steps = module._schedule, module._steps
    return {
        "schedule": {"update_freq": getattr(schedule, "k", 1), "snapshots": schedule.settings()},
        "clock": module._clock.state(),
        "draws": module._draws.state(),
        "snapshot": module._snapshot.state(module._mod_aux),
        "iterates": module._iterates.state(),
        "coefficient": {"settings": module._coefficient.settings(), **module._coefficient.state()},
        "optimizer": _position_of_optimizer(module),
        "history": module._progress.state(),
        "steps": {} if steps is None else steps.state(),
        "rows": {"sparse": module._sparse, **module._way.state()},
        "devices": internals.arrays_that_differ(module),
        "devices of the snapshot": internals.arrays_that_differ(module._mod_aux),
    }


def _position_of_optimizer(module: Any) -> Dict[str, Any]:
    parameters, on_servers = internals.updated_parameters(module), module._workers.states_on_servers()
    here: Dict[str, Any] = module._position.state(parameters, module._users_optimizer())
    return here if on_servers is None else on_servers.position(here, parameters)


def arguments_of(sections: Sections, given: Mapping[str, Any]) -> Dict[str, Any]:
    """The arguments of a module that is to go on, those that aren't `given`. ValueError if one isn't in the file."""
    found: Dict[str, Any] = {}
    if not given.keys() & {"update_freq", "snapshots"}:
        saved = sections["schedule"].get("snapshots")
        if saved is None or schedules.update_freq_of(saved) is not None:
            found["update_freq"] = sections["schedule"]["update_freq"]
        else:
            found["snapshots"] = _remade("snapshots", schedules.from_settings(saved), saved)
    if "sparse" not in given:
        found["sparse"] = sections.get("rows", {}).get("sparse")
    saved = sections.get("coefficient", {}).get("settings")
    if "coefficient" not in given and saved is not None:
        found["coefficient"] = _remade("coefficient", coefficients.from_settings(saved), saved)
    return found


def _remade(argument: str, found: Any, saved: Any) -> Any:
    if found is None:
        raise ValueError(_LOST.format(argument, saved.get("function", saved["class"])))
    return found


def restore_snapshot(module: Any, sections: Sections) -> None:
    """Put back what belongs to the network of the snapshot, which has been bound, and to the schedule."""
    module._clock.restore(sections["clock"])
    module._draws.restore(sections["draws"])
    module._snapshot.restore(sections["snapshot"], module._mod_aux, internals.contexts(module))
    # Older files lack the history and the devices, or the schedule's settings, the iterates and the coefficient.
    module._progress.restore(sections.get("history", {"records": []}))
    saved = sections["schedule"].get("snapshots")
    _restore_if_alike(module._iterates, sections.get("iterates", {}), module._schedule, saved, module.logger)
    state = dict(sections.get("coefficient", {}))
    saved = state.pop("settings", None)
    _restore_if_alike(module._coefficient, state, module._coefficient, saved, module.logger)
    internals.set_arrays(module, sections.get("devices", {}), auxiliary_only=True)
    internals.set_arrays(module._mod_aux, sections.get("devices of the snapshot", {}))


def _restore_if_alike(part: Any, state: Sections, maker: Any, saved: Optional[Dict[str, Any]], logger: Any) -> None:
    """Restore a part, if its maker has the settings that were saved: the user may have given another one."""
    if not state or saved is None:
        return
    if saved == maker.settings():
        part.restore(state)
    else:
        logger.info("%r isn't that of the checkpoint, %s, and begins anew", maker, settings.described(saved))


def restore_optimizer(module: Any, saved: files.Checkpoint) -> None:
    """Put back the optimizer's states and its place in its schedule."""
    sections = saved.sections or {"optimizer": {}}
    take_over(module, saved.states or {}, saved.paths.states, sections["optimizer"])
    module._way.restore(sections.get("rows", {}))
    if module._steps is not None:
        module._steps.restore(sections.get("steps", {}))
        module._workers.pass_on_settings()
    if internals.kvstore(module) is None:
        # Nothing brings the weights of the devices together.
        internals.set_arrays(module, sections.get("devices", {}))


def take_over(module: Any, states: Dict[Any, Any], path: str, where: Mapping[str, Any]) -> None:
    """Give the optimizer states that were read from a file, and its place in its schedule."""
    parameters, on_servers = internals.updated_parameters(module), module._workers.states_on_servers()
    optimizer = module._users_optimizer()
    where = position.by_name(where, parameters)
    if on_servers is not None:
        # Of weights of which steps touch rows, the workers have the states.
        of_workers = [each for each in parameters if each.name in module._way.names]
        parameters = as_servers_have_them(parameters, optimizer)
    fitting, begun_anew = optimizer_states.fitting(
        states, path, optimizer, parameters, where, len(internals.parameter_names(module))
    )
    if on_servers is not None:
        names = {each.name for each in of_workers}
        of_servers = {name: state for name, state in fitting.items() if name not in names}
        described = [on_servers.description(of_servers, where), sorted(names & fitting.keys())]
        module._workers.agree({"optimizer states to go on with": described})
        counts = {name: count for name, count in where.get("counts", {}).items() if name not in names}
        on_servers.give(
            of_servers, {**where, "counts": counts} if where else where,
            [each for each in parameters if each.name not in names],
        )  # fmt: skip
        module._way.set_states({name: state for name, state in fitting.items() if name in names})
        if where and of_workers:
            module._position.restore(where, of_workers)
    else:
        optimizer_states.put(fitting, internals.updater_of_weights(module))
        if where:
            module._position.restore(where, parameters)
    if begun_anew:
        module.logger.info(
            "The optimizer has other settings than in %s: its states of %s begin anew", path, ", ".join(begun_anew)
        )
