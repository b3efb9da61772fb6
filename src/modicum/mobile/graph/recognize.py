"""Which layer makes a value: the patterns that flax and jax.numpy leave behind, read from the last operation backward.

Each recognizer takes a value and returns the layers that make it from earlier values, or None. Layers come without
names. What a pattern passes over stays behind unread, unless something else reads it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from modicum.mobile.graph import pooling
from modicum.mobile.graph.layers import Add, Affine, Conv, Dense, Layer, Other, Reshape
from modicum.mobile.graph.operations import Constant, Operation, Value
from modicum.mobile.graph.patterns import Layers, common, pair, pairs, per_channel, product, scalar

_NHWC = (0, 3, 1, 2)
"""Batch, channels, height, width of an image whose channels come last, as XLA counts them."""


def layers(value: Value) -> Layers:
    """The layers that make a value; `Other` where no pattern fits.

    Args:
        value: not the input of its program.
    """
    operation = value.source
    if operation is None:
        raise ValueError(f"value must be made by an operation, got the input {value.name}")
    floats = all(read.dtype == np.float32 for read in (value, *operation.data))
    # a choice reads truth values; no layer here is without a batch
    if len(value.shape) > 1 and (floats or operation.primitive == "select_n"):
        for recognizer in _RECOGNIZERS:
            found = recognizer(value)
            if found is not None:
                return found if isinstance(found, tuple) else (found,)
    return (_other(value, operation),)


def _other(value: Value, operation: Operation) -> Other:
    def function(*arrays: Any) -> Any:
        return operation.evaluate(*arrays)[value.index]

    return Other(**common(value, *operation.data), operator=operation.primitive, function=function)


def _weight(constant: Constant) -> dict[str, Any]:
    return {
        "weight": np.ascontiguousarray(np.asarray(constant.array)),
        "leaf": constant.leaf and constant.leaf.as_it_stands(),
    }


def _dense(value: Value) -> Dense | None:
    found = product(value)
    if found is None:
        return None
    rows, matrix = found
    return Dense(**common(value, rows), **_weight(matrix), bias=np.zeros(value.shape[-1], np.float32))


def _conv(value: Value) -> Conv | None:
    found = value.with_constant("conv_general_dilated")
    if found is None or found.constant_first:
        return None
    kernel, params = found.constant, found.operation.params
    image_axes, kernel_axes, output_axes = map(tuple, params["dimension_numbers"])
    if image_axes != _NHWC or output_axes != _NHWC or params["batch_group_count"] != 1:
        return None
    plain = all(factor == 1 for factor in (*params["lhs_dilation"], *params["rhs_dilation"]))
    if not plain or min(min(pair) for pair in params["padding"]) < 0:
        return None
    output, inputs, height, width = kernel_axes
    order = (height, width, inputs, output)
    return Conv(
        **common(value, found.read),
        **_weight(kernel if order == (0, 1, 2, 3) else kernel.rearranged(lambda array: array.transpose(order))),
        bias=np.zeros(value.shape[-1], np.float32),
        stride=pair(params["window_strides"]),
        padding=pairs(params["padding"]),
        groups=params["feature_group_count"],
    )


def _affine(value: Value) -> Affine | None:
    if (operation := value.made_by("neg")) is not None:
        return _scaled(value, operation.data[0], -1, 0)
    found = value.with_constant("mul", "add", "sub", "div")
    if found is None or found.read.shape != value.shape:
        return None
    number = per_channel(found.constant, value.shape)
    if number is None:
        return None
    match found.operation.primitive, found.constant_first:
        case "mul", _:
            return _scaled(value, found.read, number, 0)
        case "add", _:
            return _scaled(value, found.read, 1, number)
        case "sub", True:
            return _scaled(value, found.read, -1, number)
        case "sub", False:
            return _scaled(value, found.read, 1, -number)
        # what has no inverse in float32 is left to JAX
        case "div", False if not (np.abs(number) < np.finfo(np.float32).tiny).any():
            return _scaled(value, found.read, 1 / number, 0)
    return None


def _scaled(value: Value, read: Value, scale: Any, shift: Any, activation: str = "none") -> Affine:
    channels = value.shape[-1:]
    return Affine(
        **common(value, read),
        scale=np.broadcast_to(scale, channels).astype(np.float32),
        shift=np.broadcast_to(shift, channels).astype(np.float32),
        activation=activation,
    )


def _activation(value: Value) -> Affine | None:
    """ReLU and ReLU6, over however many operations that bound a value from below or above."""
    found, low, high = None, -math.inf, math.inf
    read = value
    while (bounded := _bounded(read)) is not None:
        read, *inner = bounded
        # what comes later has the last word: bounds within bounds
        low, high = (float(np.clip(bound, low, high)) for bound in inner)
        if low == 0 and high in (6, math.inf):
            found = _scaled(value, read, 1, 0, "relu" if high == math.inf else "relu6")
    return found


def _bounded(value: Value) -> tuple[Value, float, float] | None:
    """What a value is, but for a lower and an upper bound."""
    if (found := value.with_constant("max", "min")) is not None:
        bound = scalar(found.constant)
        if bound is None or found.read.shape != value.shape:
            return None
        low, high = (bound, math.inf) if found.operation.primitive == "max" else (-math.inf, bound)
        return found.read, low, high
    if (operation := value.made_by("clamp")) is not None:
        match operation.operands:
            case (Constant() as low, Value() as read, Constant() as high):
                lowest, highest = scalar(low), scalar(high)
                return None if lowest is None or highest is None else (read, lowest, highest)
    return _chosen(value)


# Comparisons of x with 0, as the place of x among what select_n chooses from where x is to stay if positive.
_KEPT_WHERE = {"gt": 1, "ge": 1, "lt": 0, "le": 0}


def _chosen(value: Value) -> tuple[Value, float, float] | None:
    """`where(x > 0, x, 0)` in its several forms."""
    operation = value.made_by("select_n")
    if operation is None or len(operation.operands) != 3:
        return None
    condition, *cases = operation.operands
    test = condition.with_constant(*_KEPT_WHERE) if isinstance(condition, Value) else None
    if test is None:
        return None
    place = _KEPT_WHERE[test.operation.primitive] ^ test.constant_first
    kept, otherwise = cases[place], cases[1 - place]
    if kept is not test.read or not isinstance(otherwise, Constant) or value.dtype != np.float32:
        return None
    return (test.read, 0.0, math.inf) if scalar(test.constant) == 0 and scalar(otherwise) == 0 else None


def _add(value: Value) -> Add | None:
    operation = value.made_by("add", "add_any")
    if operation is None or len(operation.data) != 2 or any(read.shape != value.shape for read in operation.data):
        return None
    return Add(**common(value, *operation.data))


def _reshape(value: Value) -> Reshape | None:
    read = value.reshaped()
    if read is None or len(read.shape) < 2 or read.shape[0] != value.shape[0]:
        return None
    return Reshape(**common(value, read))


def _more_channels(value: Value) -> Conv | None:
    """Channels of zeros, as the shortcuts of residual networks add them: a 1x1 convolution with ones and zeros."""
    found = value.with_constant("pad")
    if found is None or found.constant_first or len(value.shape) != 4 or scalar(found.constant) != 0:
        return None
    *others, (low, high, between) = [tuple(map(int, axis)) for axis in found.operation.params["padding_config"]]
    if any(map(any, others)) or min(low, high) < 0 or between:
        return None
    images, stride = pooling.strided(found.read) or (found.read, (1, 1))
    return Conv(
        **common(value, images),
        weight=np.eye(images.shape[-1], value.shape[-1], low, dtype=np.float32)[None, None],
        bias=np.zeros(value.shape[-1], np.float32),
        stride=stride,
    )


_RECOGNIZERS: tuple[Callable[[Value], Layer | Layers | None], ...] = (
    _conv,
    _dense,
    _activation,
    pooling.max_pool,
    pooling.mean,  # before _affine, which would take its division
    _affine,
    _add,
    _reshape,
    pooling.subsample,
    _more_channels,
)
