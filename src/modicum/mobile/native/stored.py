"""Weights on a grid as small integers: 8 or 4 bits each, widened in registers."""

from typing import NamedTuple

import numpy as np

from modicum.mobile.native.structure import Structure

BYTES = {"float32": 4.0, "int8": 1.0, "int4": 0.5}
"""Bytes of a weight."""

_SAMPLE = 4096
_LARGEST = {"int4": 7, "int8": 127}


class Stored(NamedTuple):
    """How weights lie in memory.

    Attributes:
        kind: "float32", "int8" or "int4".
        unit: what an integer 1 stands for.
    """

    kind: str
    unit: float


def stored_as(weight: np.ndarray) -> Stored:
    """The smallest kind that holds a weight to float32 rounding: integers where all its values are multiples of one.

    Args:
        weight: any array of float32.
    """
    plain = Stored("float32", 1.0)
    values = np.abs(weight[weight != 0])
    # most weights lie on no grid, which a few of them tell
    if not values.size or np.unique(values[:_SAMPLE]).size > _LARGEST["int8"]:
        return plain
    levels = np.unique(values).astype(np.float64)
    unit = np.diff(levels, prepend=0.0).min()
    numbers = np.rint(levels / unit)
    if numbers.max() > _LARGEST["int8"]:
        return plain
    unit = float((levels @ numbers) / (numbers @ numbers))
    if np.abs(numbers * unit - levels).max() > 1e-6 * levels.max():
        return plain
    return Stored(next(kind for kind, largest in _LARGEST.items() if numbers.max() <= largest), unit)


def encode(order: Structure, stored: Stored) -> tuple[np.ndarray, np.ndarray]:
    """Weights in reading order, and the first piece and first element of each block.

    Four bits: each byte of a vector holds a weight of one vector of a piece in its lower half and of the next one in
    its upper half; a piece of an odd number of vectors ends in halves of zeros.

    Args:
        order: the weights.
        stored: how they are to lie.

    Returns:
        An array of float32 or int8, and `(blocks, 2)`.
    """
    if stored.kind == "float32":
        return order.values, order.starts
    numbers = np.rint(order.values / stored.unit).astype(np.int8).reshape(-1, order.lanes)
    if stored.kind == "int8":
        return numbers.reshape(-1), order.starts
    sizes = order.sizes[order.shapes] * order.vectors
    halves = (sizes + 1) // 2
    begins, ends = np.cumsum(sizes) - sizes, np.cumsum(halves) - halves
    packed = np.zeros((int(halves.sum()), order.lanes), np.int8)
    for size in np.unique(sizes):
        mine = np.flatnonzero(sizes == size)
        for at in range(0, int(size), 2):
            low = numbers[begins[mine] + at]
            high = numbers[begins[mine] + at + 1] if at + 1 < size else np.zeros_like(low)
            packed[ends[mine] + at // 2] = (low & 15) | (high << 4)
    first = order.starts[:, 0]
    elements = np.concatenate([ends, [len(packed)]])[first] * order.lanes
    return packed.reshape(-1), np.stack([first, elements], axis=1)
