"""Memory that vectors may be read from."""

import numpy as np

ALIGNMENT = 64
"""Bytes; what XLA aligns its buffers to, and the longest vector."""


def aligned(size: int) -> np.ndarray:
    """Zero bytes that begin at a multiple of `ALIGNMENT`.

    Args:
        size: how many.
    """
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
