"""Calls of mxnet's operators that are made often, with their arguments made once: most of their time goes there.

Written against mxnet 1.9.1.
"""

import ctypes
from typing import Any, Callable, List

from mxnet.base import _LIB, NDArrayHandle, OpHandle, c_handle_array, c_str, c_str_array, check_call


def operation(name: str, inputs: List[Any], outputs: List[Any], **attributes: Any) -> Callable[[], None]:
    """``mxnet.nd.<name>(*inputs, out=outputs, **attributes)``, to be called with whatever the arrays hold by then.

    >>> import mxnet as mx
    >>> total, one = mx.nd.zeros(1), mx.nd.ones(1)
    >>> add = operation("broadcast_add", [total, one], [total])
    >>> add(); add(); total.asscalar()
    2.0
    """
    return _prepared(name, c_handle_array(inputs), outputs, attributes, inputs)


def copy_into(target: Any) -> Callable[[Any], None]:
    """``source.copyto(target)``, for any `source` of the same shape."""
    sources = (NDArrayHandle * 1)()
    invoke = _prepared("_copyto", sources, [target], {}, ())

    def copy(source: Any) -> None:
        sources[0] = source.handle
        invoke()

    return copy


def await_readers(array: Any) -> Callable[[], None]:
    """A function that changes nothing: what reads `array` from then on waits for what has been to read it before."""
    return operation("_copy", [array], [array])


def _prepared(name: str, inputs: Any, outputs: List[Any], attributes: Any, kept: Any) -> Callable[[], None]:
    operator = OpHandle()
    check_call(_LIB.NNGetOpHandle(c_str(name), ctypes.byref(operator)))
    results = ctypes.cast(c_handle_array(outputs), ctypes.POINTER(NDArrayHandle))
    arguments = (
        operator, len(inputs), inputs, ctypes.byref(ctypes.c_int(len(outputs))), ctypes.byref(results),
        len(attributes), c_str_array(list(attributes)), c_str_array([str(value) for value in attributes.values()]),
        ctypes.byref(ctypes.POINTER(ctypes.c_int)()),
    )  # fmt: skip

    # The arrays must stay as long as the function.
    def invoke(kept: Any = (outputs, kept)) -> None:
        check_call(_LIB.MXImperativeInvokeEx(*arguments))

    return invoke
