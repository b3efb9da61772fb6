"""What the recognizers of layers share: fields, constants, and the operations that several of them look through."""

import math
from typing import Any

import numpy as np

from modicum.mobile.graph.layers import Layer
from modicum.mobile.graph.operations import Constant, Value

Layers = tuple[Layer, ...]
"""What makes a value, in order; the last makes the value itself."""


def common(value: Value, *read: Value) -> dict[str, Any]:
    """The fields that all layers share, the name left open."""
    return {"name": "", "inputs": tuple(each.name for each in read), "output": value.name, "shape": value.shape}


def per_channel(constant: Constant, shape: tuple[int, ...]) -> np.ndarray | None:
    """A constant as one float64 number per channel, if that is all it holds; else None.

    Args:
        constant: broadcasts against `shape`.
        shape: of the value it meets, channels last.
    """
    array = np.asarray(constant.array, np.float64)
    if array.ndim not in (0, len(shape)) or np.broadcast_shapes(array.shape, shape) != shape:
        return None
    rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    if not np.array_equal(rows, np.broadcast_to(rows[:1], rows.shape), equal_nan=True):
        return None
    return np.broadcast_to(rows[0], shape[-1:])


def product(value: Value) -> tuple[Value, Constant] | None:
    """The rows and the matrix `(i, o)` that a value is the product of, over the last axis of the rows; else None."""
    found = value.with_constant("dot_general")
    if found is None or found.constant_first:
        return None
    rows, matrix = found.read, found.constant
    (left, right), batch = found.operation.params["dimension_numbers"]
    if any(batch) or len(rows.shape) < 2 or tuple(left) != (len(rows.shape) - 1,) or np.ndim(matrix.array) != 2:
        return None
    if matrix.array.dtype != np.float32:
        return None
    return rows, matrix if right[0] == 0 else matrix.rearranged(lambda array: array.transpose(1, 0))


def moved(value: Value, permutation: tuple[int, ...]) -> Value | None:
    """What a value is the transpose of by this permutation; else None."""
    operation = value.made_by("transpose")
    if operation is None or tuple(operation.params["permutation"]) != permutation:
        return None
    return operation.data[0]


def scalar(constant: Constant) -> float | None:
    """The one number that a constant holds everywhere; else None."""
    array = np.asarray(constant.array)
    first = float(array.flat[0]) if array.size else math.nan
    return first if (array == first).all() else None


def pair(numbers: Any) -> tuple[int, int]:
    """Two whole numbers, one for height and one for width."""
    first, second = map(int, numbers)
    return first, second


def pairs(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Padding before and after, of height and width."""
    first, second = padding
    return pair(first), pair(second)
