"""How the KVStore key of a parameter's full gradient is named, and recognised.

Pure Python: parameter servers import it while mxnet is half loaded.
"""

import zlib
from typing import Collection, Iterable, List, Sequence

SUFFIX = "_full"
# Keys that only a distributed job has begin with this: one through which workers tell each other numbers, and one on
# each server, at which it answers.
OURS = "svrg_optimization:"
EXCHANGE = OURS + "exchange"
PROOF = OURS + "proof"


def full_gradient_key(parameter: str) -> str:
    """The KVStore key that holds the full gradient of `parameter`.

    >>> full_gradient_key("fc_weight")
    'fc_weight_full'
    """
    return parameter + SUFFIX


def is_full_gradient_key(key: str, parameters: Collection[str]) -> bool:
    """Whether `key` holds the full gradient of one of the `parameters`.

    Exact, never by substring: mxnet's own default names contain "full".

    >>> is_full_gradient_key("fullyconnected0_weight", ["fullyconnected0_weight"])
    False
    >>> is_full_gradient_key("fullyconnected0_weight_full", ["fullyconnected0_weight"])
    True
    """
    return key.endswith(SUFFIX) and key[: -len(SUFFIX)] in parameters


def check_parameter_names(parameters: Iterable[str]) -> None:
    """Raise ValueError if one parameter's name is another parameter's full gradient key."""
    names = set(parameters)
    for name in sorted(names):
        if is_full_gradient_key(name, names):
            raise ValueError(
                "the symbol has the parameters {!r} and {!r}, but {!r} is the KVStore key of the full gradient of "
                "{!r}; rename one of them".format(name[: -len(SUFFIX)], name, name, name[: -len(SUFFIX)])
            )


def proof_keys(servers: int) -> List[str]:
    """As many keys as there are servers.

    ps-lite puts small arrays with consecutive keys on different servers.

    >>> proof_keys(2)
    ['svrg_optimization:proof0', 'svrg_optimization:proof1']
    """
    return [PROOF + str(k) for k in range(servers)]


def padding_keys(parameters: int, servers: int) -> List[str]:
    """Keys without a use between so many parameters and their full gradients.

    A parameter and its full gradient are on the same server if their numbers differ by a multiple of the number of
    servers.

    >>> padding_keys(4, 3)
    ['svrg_optimization:padding0', 'svrg_optimization:padding1']
    """
    return [OURS + "padding{}".format(k) for k in range(-parameters % servers)]


def server_keys(parameters: Sequence[str], servers: int) -> List[str]:
    """All keys of a distributed job in the order in which they are made: servers number them so, from 0.

    >>> server_keys(["weight"], 1)
    ['svrg_optimization:exchange', 'svrg_optimization:proof0', 'weight', 'weight_full']
    """
    padding = padding_keys(len(parameters), servers)
    return [EXCHANGE, *proof_keys(servers), *parameters, *padding, *map(full_gradient_key, parameters)]


def proof(keys: Sequence[str], index: int, server_is_ours: bool) -> float:
    """What a server that knows its keys by these names answers under key number `index`; exact in float32.

    A server of ours, which does what workers ask for, answers another number than one of plain mxnet.

    >>> proof(["a", "b"], 0, False) != proof(["a", "b"], 1, False) != proof(["a", "c"], 1, False)
    True
    """
    return -(zlib.crc32("\n".join(keys).encode()) % (1 << 22)) - 2 - index - server_is_ours / 2
