"""How the KVStore key of a parameter's full gradient is named, and recognised.

Pure Python: parameter servers import it while mxnet is half loaded.
"""

from typing import Collection, Iterable

SUFFIX = "_full"


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
