"""Reads pickles of arrays, numbers, text and Python's own containers; whatever else a pickle names is refused.

A pickle may call any function of any module, and may change what it has made. So for everything but Python's own types
this unpickler makes a record of what it was to be, and the arrays are made of the records afterwards.
"""

import collections
import pickle
import re
from typing import Any, Callable, Dict, Tuple

import mxnet as mx
import numpy as np

_CONTAINERS = {
    ("builtins", "bytearray"): bytearray, ("builtins", "complex"): complex, ("builtins", "frozenset"): frozenset,
    ("builtins", "set"): set, ("builtins", "slice"): slice, ("collections", "OrderedDict"): collections.OrderedDict,
}  # fmt: skip
# The types of numbers, flags and text, without objects and records.
_TYPES = re.compile(r"[biufcSU]\d+|[?bBhHiIlLqQefdgFD]")


def load(file: Any) -> Any:
    """What is pickled in a binary file. ValueError if it has anything else; and whatever damaged bytes may lead to.

    >>> import io, os
    >>> load(io.BytesIO(pickle.dumps({'a': [np.arange(2.0), 3]})))
    {'a': [array([0., 1.]), 3]}
    >>> load(io.BytesIO(pickle.dumps(os.getcwd)))
    Traceback (most recent call last):
        ...
    ValueError: it holds posix.getcwd, which is neither an array nor a type of Python's own
    """
    return _Made().of(_Unpickler(file).load())


class _Record:
    """What was to be called, with which arguments, and the state that was to be set."""

    def __new__(cls, *arguments: Any) -> "_Record":
        self = object.__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    arguments: Tuple[Any, ...]
    state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core.", "numpy.core.")
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if (module, name) in _RECORDS:
            return _RECORDS[module, name]
        raise ValueError("it holds {}.{}, which is neither an array nor a type of Python's own".format(module, name))


def _dtype(arguments: Any, state: Any) -> Any:
    code = arguments[0]
    order: Any = state[1] if state else "="
    if not (isinstance(code, str) and _TYPES.fullmatch(code) and order in ("<", ">", "|", "=")):
        raise ValueError("it holds an array of the type {!r}".format(code))
    return np.dtype(code).newbyteorder(order)


def _array(arguments: Any, state: Any) -> Any:
    _, shape, dtype, is_fortran, data = state
    return _of_bytes(data, dtype, shape, "F" if is_fortran else "C")


def _of_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    if not (isinstance(data, (bytes, bytearray)) and isinstance(dtype, np.dtype)):
        raise ValueError("it holds an array without numbers")
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order="K")


def _scalar(arguments: Any, state: Any) -> Any:
    dtype, data = arguments
    return _of_bytes(data, dtype, (1,), "C")[0]


def _ndarray(kind: Any) -> Callable[[Any, Any], Any]:
    def made(arguments: Any, state: Any) -> Any:
        handle = state.get("handle") if isinstance(state, dict) else None
        if not isinstance(handle, (bytes, bytearray)):
            raise ValueError("it holds an NDArray without numbers")
        array = kind.__new__(kind)
        array.__setstate__({"handle": handle})
        return array

    return made


_MAKERS: Dict[Tuple[str, str], Callable[[Any, Any], Any]] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): lambda arguments, state: None,  # named as the type that `_reconstruct` is to make
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): lambda arguments, state: _of_bytes(*arguments),
    ("mxnet.ndarray.ndarray", "NDArray"): _ndarray(mx.nd.NDArray),
    ("mxnet.ndarray.sparse", "CSRNDArray"): _ndarray(mx.nd.sparse.CSRNDArray),
    ("mxnet.ndarray.sparse", "RowSparseNDArray"): _ndarray(mx.nd.sparse.RowSparseNDArray),
    ("mxnet.numpy", "ndarray"): _ndarray(mx.np.ndarray),
    ("mxnet.numpy.multiarray", "ndarray"): _ndarray(mx.np.ndarray),
}
_RECORDS = {key: type(key[1], (_Record,), {"make": staticmethod(maker)}) for key, maker in _MAKERS.items()}


class _Made:
    """Makes the arrays of records, wherever they are; one for each record."""

    def __init__(self) -> None:
        self._made: Dict[int, Tuple[Any, Any]] = {}

    def of(self, value: Any) -> Any:
        """A value, with arrays in the place of records."""
        if isinstance(value, _Record):
            if id(value) not in self._made:
                # A type among the arguments is the one to make.
                arguments = [each if isinstance(each, type) else self.of(each) for each in value.arguments]
                made = type(value).make(arguments, self.of(value.state))  # type: ignore[attr-defined]
                self._made[id(value)] = value, made
            return self._made[id(value)][1]
        if isinstance(value, type):
            raise ValueError("it holds the type {}".format(value.__name__))
        if isinstance(value, dict):
            return type(value)((self.of(key), self.of(each)) for key, each in value.items())
        if isinstance(value, (list, tuple, set, frozenset)):
            return type(value)([self.of(each) for each in value])
        return value
