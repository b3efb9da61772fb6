"""Packed numbers against Python's whole numbers; sparse vectors bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum.federated import wire


@given(st.integers(1, 32), st.integers(0, 40), st.integers(0, 2**32))
def test_packed_numbers(bits, count, seed):
    numbers = np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)
    data = wire.pack(numbers, bits)
    low = [int(number) % 2**bits for number in numbers]
    whole = sum(number << bits * at for at, number in enumerate(low))
    assert data == whole.to_bytes(wire.packed_bytes(count, bits), "little")
    assert wire.unpack(data, count, bits).tolist() == low


@given(st.integers(0, 70), st.integers(0, 2**32))
def test_sparse_vectors(size, seed):
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=size).astype(np.float32) * (rng.random(size) < 0.3)
    vector[rng.random(size) < 0.1] = np.nan
    sparse = wire.pack_sparse(vector)
    assert len(sparse.data) == wire.sparse_bytes(size, int(np.count_nonzero(vector)))
    np.testing.assert_array_equal(
        wire.unpack_sparse(sparse).view(np.uint32), np.where(vector, vector, 0).view(np.uint32)
    )


def test_bytes_that_do_not_fit():
    with pytest.raises(ValueError, match="data must be 5 bytes, got 4"):
        wire.unpack(bytes(4), 2, 20)
    for data in (b"\x01", b"\x80" + bytes(4), b"", b"\x01" + bytes(8)):
        with pytest.raises(ValueError, match="data must be a bitmap of 7 entries and four bytes for each bit"):
            wire.unpack_sparse(wire.Sparse(data, 7))
