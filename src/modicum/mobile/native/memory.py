"""Memory that vectors may be read from."""

import mmap

import numpy as np

ALIGNMENT = 64
"""Bytes; what XLA aligns its buffers to, and the longest vector."""

HUGE = 1 << 21
"""Bytes of a huge page: with small ones, whose places the processor must look up, big weights come in slower."""


def aligned(size: int) -> np.ndarray:
    """Zero bytes that begin at a multiple of `ALIGNMENT`, on huge pages where they are many and the system has these.

    Args:
        size: how many.
    """
    unit = HUGE if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE") else ALIGNMENT
    if unit == HUGE:
        pages = mmap.mmap(-1, size + HUGE)
        pages.madvise(mmap.MADV_HUGEPAGE)
        # the array keeps the pages alive
        raw = np.frombuffer(pages, np.uint8)
    else:
        raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % unit
    return raw[start : start + size]


def copied(array: np.ndarray) -> np.ndarray:
    """The bytes of an array in such memory.

    Args:
        array: of any shape and dtype.
    """
    array = np.ascontiguousarray(array)
    copy = aligned(array.nbytes)
    copy[:] = array.view(np.uint8).reshape(-1)
    return copy
