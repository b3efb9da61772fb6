"""Pooling and means, as flax, jax.numpy and our own models write them.

Each recognizer takes a value and returns the layers that make it, or None.
"""

import math
from typing import Any

import numpy as np

from modicum.mobile.graph.layers import Mean, Pool, Reshape
from modicum.mobile.graph.operations import Operation, Value, WithConstant
from modicum.mobile.graph.patterns import Layers, common, pair, pairs


def _window(operation: Operation) -> dict[str, Any] | None:
    """Window, stride and padding of a pooling over height and width alone; else None."""
    params, read = operation.params, operation.data[0]
    window, stride, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    if len(read.shape) != 4 or any(factor != 1 for factor in (*params["base_dilation"], *params["window_dilation"])):
        return None
    outer = [(window[axis], stride[axis], *padding[axis]) for axis in (0, 3)]
    # a window that may lie in the padding as a whole has no maximum and no mean
    fits = all(min(padding[axis]) >= 0 and max(padding[axis]) < window[axis] for axis in (1, 2))
    if outer != [(1, 1, 0, 0)] * 2 or not fits:
        return None
    return {"window": pair(window[1:3]), "stride": pair(stride[1:3]), "padding": pairs(padding[1:3])}


def _blocks(operation: Operation) -> tuple[Value, dict[str, Any]] | None:
    """The images and the windows of a reduction over `(b, h / p, p, w / q, q, c)`, its axes 2 and 4."""
    (split,) = operation.data
    images = split.reshaped()
    if images is None or len(split.shape) != 6 or tuple(operation.params["axes"]) != (2, 4):
        return None
    batch, rows, height, columns, width, channels = split.shape
    if images.shape != (batch, rows * height, columns * width, channels):
        return None
    window = (height, width)
    return _uncropped(images, window), {"window": window, "stride": window}


def _uncropped(images: Value, window: tuple[int, int]) -> Value:
    """The images from which a last row or column that fills no window was cut."""
    operation = images.made_by("slice")
    if operation is None or any(operation.params["start_indices"]) or operation.params["strides"] is not None:
        return images
    (whole,) = operation.data
    batch, height, width, channels = whole.shape
    even = (batch, height // window[0] * window[0], width // window[1] * window[1], channels)
    return whole if images.shape == even else images


def max_pool(value: Value) -> Pool | None:
    """Maximum over windows, by XLA's operator or by `models.convolutional.max_pool`."""
    if (operation := value.made_by("reduce_window_max")) is not None:
        fields = _window(operation)
        return None if fields is None else Pool(**common(value, operation.data[0]), kind="max", **fields)
    if (operation := value.made_by("reduce_max")) is not None and (found := _blocks(operation)) is not None:
        images, fields = found
        return Pool(**common(value, images), kind="max", **fields)
    return None


def mean(value: Value) -> Layers | None:
    """A sum over windows or over all inner axes, by how many there are."""
    found = value.with_constant("div", "mul")
    if found is None or found.read.shape != value.shape:
        return None
    if found.operation.primitive == "div" and found.constant_first:
        return None
    total = found.read
    if (sums := total.made_by("reduce_window_sum")) is not None:
        fields = _window(sums)
        if fields is None or not _divides(found, _counts(sums.data[0].shape, **fields)):
            return None
        return (Pool(**common(value, sums.data[0]), kind="mean", **fields),)
    if (sums := total.made_by("reduce_sum")) is not None and (blocks := _blocks(sums)) is not None:
        images, fields = blocks
        fits = _divides(found, np.float64(math.prod(fields["window"])))
        return (Pool(**common(value, images), kind="mean", **fields),) if fits else None
    return _inner_mean(value, found)


def _inner_mean(value: Value, found: WithConstant) -> Layers | None:
    # jax.numpy's keepdims puts the axes back before it divides
    kept = found.read.reshaped()
    sums = (found.read if kept is None else kept).made_by("reduce_sum")
    if sums is None:
        return None
    (read,) = sums.data
    batch, *inner, channels = read.shape
    axes = tuple(range(1, len(read.shape) - 1))
    if not axes or tuple(sums.params["axes"]) != axes or value.shape[0] != batch or value.shape[-1] != channels:
        return None
    if not _divides(found, np.float64(math.prod(inner))):
        return None
    if kept is None:
        return (Mean(**common(value, read)),)
    average = Mean(name="", inputs=(read.name,), output=f"{value.name}_mean", shape=(batch, channels))
    return average, Reshape(name="", inputs=(average.output,), output=value.name, shape=value.shape)


def _counts(shape: tuple[int, ...], window: Any, stride: Any, padding: Any) -> np.ndarray:
    """How many elements each window holds, `(1, h, w, 1)`; pads do not count."""

    def along(axis: int) -> np.ndarray:
        size, width = shape[1 + axis], window[axis]
        starts = np.arange(-padding[axis][0], size + padding[axis][1] - width + 1, stride[axis])
        return np.minimum(starts + width, size) - np.maximum(starts, 0)

    return np.outer(along(0), along(1)).astype(np.float64)[None, :, :, None]


def _divides(found: WithConstant, counts: Any) -> bool:
    """Whether an operation is the division by these counts, or the product with their inverse."""
    factor = counts if found.operation.primitive == "div" else 1 / counts
    # one part in a million: float32 rounds either
    return np.allclose(np.asarray(found.constant.array, np.float64), factor, rtol=1e-6, atol=0)


def strided(value: Value) -> tuple[Value, tuple[int, int]] | None:
    """Every row and column of images by a stride of each, from the first on."""
    operation = value.made_by("slice")
    if operation is None or any(operation.params["start_indices"]) or operation.params["strides"] is None:
        return None
    (images,) = operation.data
    if len(images.shape) != 4 or operation.params["strides"][::3] != (1, 1):
        return None
    rows, columns = stride = pair(operation.params["strides"][1:3])
    batch, height, width, channels = images.shape
    whole = (batch, -(-height // rows), -(-width // columns), channels)
    return (images, stride) if value.shape == whole else None


def subsample(value: Value) -> Pool | None:
    """Pixels by a stride: the maximum over windows of one pixel."""
    found = strided(value)
    if found is None:
        return None
    images, stride = found
    return Pool(**common(value, images), kind="max", window=(1, 1), stride=stride)
