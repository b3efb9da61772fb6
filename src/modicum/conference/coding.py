"""Range coding of whole numbers by `constriction`, and the motion of several frames in a few bytes each."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from modicum.conference.extra import package
from modicum.core import check

LARGEST = 127
"""Coded numbers lie from -127 to 127."""
_FINEST = 16
"""A `MotionPrior` counts in sixteenths."""
_SHORT = 200
"""Bytes up to which a stream is shortened."""
STEPS = tuple(2.0 ** (index / 4 - 2) for index in range(32))
"""Steps of the motion quantizer by index: a quarter (0) to 53 (31), each 19% wider; index 8 is the step 1."""


class MotionPrior(NamedTuple):
    """What both ends know of a model's motion vectors, in sixteenths of the step 1.

    Attributes:
        mean: int (latents,).
        spread: int (latents,), mean absolute distance from the mean, at least 1.
        change: int (latents,), mean absolute difference from frame to frame, at least 1.
    """

    mean: np.ndarray
    spread: np.ndarray
    change: np.ndarray


def motion_prior(motion: np.ndarray) -> MotionPrior:
    """The prior from the motion of training frames, in order.

    Args:
        motion: (frames, latents), at least two frames.
    """
    check.rank((2,), motion=motion)
    mean = np.round(_FINEST * motion.mean(0)).astype(np.int64)

    def sixteenths(values: np.ndarray) -> np.ndarray:
        return np.maximum(np.round(_FINEST * np.abs(values).mean(0)), 1).astype(np.int64)

    return MotionPrior(mean, sixteenths(motion - motion.mean(0)), sixteenths(np.diff(motion, axis=0)))


def pack(symbols: list[np.ndarray], scales: list[np.ndarray]) -> bytes:
    """Whole numbers, each from a Laplace distribution about 0 whose scale both ends know.

    The range coder flushes words of 32 bits. They are written most significant byte first, and of short streams the
    last bytes are left off as far as a decoder that reads zeros in their place still gets the same numbers.

    Args:
        symbols: integer arrays, coded one after the other.
        scales: positive arrays of the same shapes.
    """
    model, stream = _model(), package("constriction").stream.queue
    encoder = stream.RangeEncoder()
    for values, widths in zip(symbols, scales, strict=True):
        flat = np.clip(values, -LARGEST, LARGEST).astype(np.int32).ravel()
        encoder.encode(flat, model, np.zeros(flat.size), _widths(widths))
    coded = encoder.get_compressed().astype(">u4").tobytes()
    expected = [np.clip(values, -LARGEST, LARGEST) for values in symbols]
    # in a long stream three bytes are not worth the time
    for cut in range(min(7, len(coded)) if len(coded) <= _SHORT else 0, 0, -1):
        found = unpack(coded[:-cut], scales)
        if all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)):
            return coded[:-cut]
    return coded


def unpack(coded: bytes, scales: list[np.ndarray]) -> list[np.ndarray]:
    """The numbers that `pack` wrote; of damaged bytes other numbers of the same count, never an error.

    Args:
        coded: bytes.
        scales: as they were given to `pack`.
    """
    decoder = Decoder(coded)
    return [decoder.read(widths) for widths in scales]


class Decoder:
    """Numbers one array after the other, where the scales of the next depend on the last."""

    def __init__(self, coded: bytes):
        words = np.frombuffer(coded + bytes(-len(coded) % 4) + bytes(4), ">u4").astype(np.uint32)
        self._decoder = package("constriction").stream.queue.RangeDecoder(words)

    def read(self, widths: np.ndarray) -> np.ndarray:
        """Integers of the shape of their scales."""
        try:
            values = self._decoder.decode(_model(), np.zeros(widths.size), _widths(widths))
        except AssertionError:
            # constriction notices some damage; what follows is then zero
            values = np.zeros(widths.size)
        return values.astype(np.int64).reshape(widths.shape)


def _model() -> object:
    return package("constriction").stream.model.QuantizedLaplace(-LARGEST, LARGEST)


def _widths(scales: np.ndarray) -> np.ndarray:
    return np.clip(scales, 0.05, 500.0).astype(np.float64).ravel()


def within(encode: Callable[[int], bytes], qualities: tuple[int, int], limit: int) -> bytes:
    """The best of some streams that is no longer than a limit, by bisection; the shortest where none is.

    Args:
        encode: `quantizer -> stream`, the lower the better and the longer.
        qualities: lowest and highest quantizer.
        limit: bytes.
    """
    found: dict[int, bytes] = {}
    low, high = qualities
    while low < high:
        middle = (low + high) // 2
        found[middle] = encode(middle)
        if len(found[middle]) <= limit:
            high = middle
        else:
            low = middle + 1
    return found[low] if low in found else encode(low)


def quantized(motion: np.ndarray, step: int) -> Int[np.ndarray, " n latents"]:
    """Motion vectors rounded to multiples of a step.

    Args:
        motion: (frames, latents).
        step: index into `STEPS`.
    """
    return np.clip(np.round(motion / STEPS[step]), -LARGEST, LARGEST).astype(np.int64)


def encode_motion(
    numbers: Int[np.ndarray, " n latents"], before: np.ndarray | None, prior: MotionPrior, step: int
) -> bytes:
    """Quantized motion of consecutive frames.

    One byte: the index of the step, plus 128 where the first frame stands for itself. Then the range coder's bytes.
    The first frame is predicted by the prior's mean (`before` is None) or by the frame before, every other by the one
    before it; differences have Laplace scales that start from the prior and follow what was coded in this packet.

    Args:
        numbers: what `quantized` returned.
        before: the last frame of the packet before, quantized by the same step, or None.
        prior: of the model.
        step: index into `STEPS`.
    """
    check.integer(0, len(STEPS) - 1, step=step)
    symbols, scales = [], []
    predicted, scale, sums = _start(before, prior, step)
    for count, row in enumerate(numbers):
        symbols.append(np.clip(row - predicted, -LARGEST, LARGEST))
        scales.append(scale)
        sums = sums if before is None and count == 0 else sums + np.abs(symbols[-1])
        scale = _follow(prior, step, sums, count + (before is not None))
        predicted = np.clip(predicted + symbols[-1], -LARGEST, LARGEST)
    return bytes([step + 128 * (before is None)]) + pack(symbols, scales)


def decode_motion(
    payload: bytes, frames: int, before: tuple[int, np.ndarray] | None, prior: MotionPrior
) -> tuple[int, Int[np.ndarray, " n latents"]] | None:
    """Step index and quantized motion, or None where the packet before is needed and missing.

    Args:
        payload: what `encode_motion` returned, or anything.
        frames: how many.
        before: step index and last row of the packet before, or None where that is not known.
        prior: of the model.
    """
    if not payload or not frames:
        return None
    step, alone = payload[0] & 127, payload[0] >= 128
    if step >= len(STEPS) or (not alone and (before is None or before[0] != step)):
        return None
    start = None if alone or before is None else before[1]
    predicted, scale, sums = _start(start, prior, step)
    decoder, rows = Decoder(payload[1:]), []
    for count in range(frames):
        difference = decoder.read(scale)
        predicted = np.clip(predicted + difference, -LARGEST, LARGEST)
        rows.append(predicted)
        sums = sums if start is None and count == 0 else sums + np.abs(difference)
        scale = _follow(prior, step, sums, count + (start is not None))
    return step, np.stack(rows)


def _start(before: np.ndarray | None, prior: MotionPrior, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The prediction of the first frame, its scales, and the sums that `_follow` goes on from."""
    zero = np.zeros(len(prior.mean), np.int64)
    if before is None:
        mean = np.clip(np.round(prior.mean / (_FINEST * STEPS[step])), -LARGEST, LARGEST).astype(np.int64)
        return mean, prior.spread / (_FINEST * STEPS[step]), zero
    return before, _follow(prior, step, zero, 0), zero


def _follow(prior: MotionPrior, step: int, sums: np.ndarray, count: int) -> np.ndarray:
    """Scales of the next differences: the prior weighs as much as six frames."""
    return (6 * prior.change / (_FINEST * STEPS[step]) + sums) / (6 + count)
