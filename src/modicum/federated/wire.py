"""Numbers on the wire: ring elements of few bits packed without gaps, sparse vectors as a bitmap and their values."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt32

from modicum.core import check


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that so many packed numbers take: `ceil(count bits / 8)`.

    Example:
        >>> packed_bytes(1_000_000, 20)
        2500000
    """
    return -(-count * bits // 8)


def _groups(bits: int) -> tuple[int, int]:
    """Numbers that fill whole bytes together, and how many bytes these are."""
    together = math.lcm(bits, 8)
    return together // bits, together // 8


def pack(ring: UInt32[np.ndarray, " count"], bits: int) -> bytes:
    """The low `bits` of each number, one after the other, lowest bit first.

    Args:
        ring: ring elements; higher bits are left out.
        bits: from 1 to 32.

    Returns:
        `packed_bytes(count, bits)` bytes; bits past the last number are 0.
    """
    check.integer(1, 32, bits=bits)
    if bits == 32:
        return ring.astype("<u4", copy=False).tobytes()
    numbers, width = _groups(bits)
    rows = -(-ring.size // numbers)
    padded = np.zeros(rows * numbers, np.uint32)
    padded[: ring.size] = ring & np.uint32(2**bits - 1)
    columns = padded.reshape(rows, numbers)
    if width <= 8:
        lanes = np.zeros(rows, "<u8")
        for at in range(numbers):
            lanes |= columns[:, at].astype(np.uint64) << np.uint64(at * bits)
        out = lanes.view(np.uint8).reshape(rows, 8)[:, :width]
    else:
        out = _bytewise(columns, bits, width)
    return out.tobytes()[: packed_bytes(ring.size, bits)]


def unpack(data: bytes, count: int, bits: int) -> UInt32[np.ndarray, " count"]:
    """Inverse of `pack`.

    Args:
        data: packed numbers.
        count: how many, at least 0.
        bits: from 1 to 32.

    Raises:
        ValueError: unless these are `packed_bytes(count, bits)` bytes.
    """
    check.integer(1, 32, bits=bits)
    if len(data) != packed_bytes(count, bits):
        raise ValueError(f"data must be {packed_bytes(count, bits)} bytes, got {len(data)}")
    if bits == 32 or not count:
        return np.frombuffer(data, "<u4").astype(np.uint32, copy=False)
    numbers, width = _groups(bits)
    rows = -(-count // numbers)
    # eight bytes more: a number is read off the eight that start with its first
    padded = np.zeros(rows * width + 8, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    out = np.empty((rows, numbers), np.uint32)
    for at in range(numbers):
        first, shift = divmod(at * bits, 8)
        read = np.ndarray((rows,), "<u8", padded.data, first, (width,))
        out[:, at] = (read >> np.uint64(shift)).astype(np.uint32) & np.uint32(2**bits - 1)
    return out.reshape(-1)[:count]


def _bytewise(columns: UInt32[np.ndarray, " rows numbers"], bits: int, width: int) -> np.ndarray:
    """Groups of packed numbers that are longer than a 64-bit word."""
    out = np.zeros((columns.shape[0], width), np.uint8)
    for at in range(columns.shape[1]):
        first, shift = divmod(at * bits, 8)
        for byte in range(first, -(-(at * bits + bits) // 8)):
            low = 8 * (byte - first) - shift
            part = columns[:, at] >> np.uint32(low) if low >= 0 else columns[:, at] << np.uint32(-low)
            out[:, byte] |= part.astype(np.uint8)
    return out


class Sparse(NamedTuple):
    """A vector most of whose entries are 0."""

    data: bytes
    """A bit per entry, set where it is sent, lowest bit first; then the values sent, as little-endian float32."""
    size: int
    """Entries of the vector."""


def sparse_bytes(size: int, kept: int) -> int:
    """Bytes of a sparse vector: one bit per entry and four bytes per value."""
    return -(-size // 8) + 4 * kept


def pack_sparse(vector: Float[np.ndarray, " size"]) -> Sparse:
    """The entries that are not 0, bit for bit as float32."""
    kept = vector != 0
    bitmap = np.packbits(kept, bitorder="little").tobytes()
    return Sparse(bitmap + vector[kept].astype("<f4").tobytes(), vector.size)


def unpack_sparse(sparse: Sparse) -> Float[np.ndarray, " size"]:
    """Inverse of `pack_sparse`.

    Raises:
        ValueError: where bitmap and values do not fit each other or the size.
    """
    head = -(-sparse.size // 8)
    kept = np.unpackbits(np.frombuffer(sparse.data[:head], np.uint8), bitorder="little").astype(bool)
    values = sparse.data[head:]
    if len(kept) != 8 * head or kept[sparse.size :].any() or len(values) != 4 * np.count_nonzero(kept):
        raise ValueError(f"data must be a bitmap of {sparse.size} entries and four bytes for each bit that is set")
    vector = np.zeros(sparse.size, np.float32)
    vector[kept[: sparse.size]] = np.frombuffer(values, "<f4")
    return vector
