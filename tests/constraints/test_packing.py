"""Packed forms: bits, places, byte counts by hand, and a decoder of plain StableHLO."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.constraints import MEST_8, Channels, Kernels, Levels, NofM, Patterns, Polarized, TopK, nest, packing
from modicum.core import Bytes


@settings(max_examples=12)
@given(st.integers(1, 31), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_bits_round_trip(bits, count, seed):
    values = np.random.default_rng(seed).integers(0, 2**bits, size=count)
    packed = packing.pack_bits(jnp.asarray(values, jnp.uint32), bits)
    assert packed.nbytes == -(-count * bits // 8)
    text = "".join(format(value, f"0{bits}b")[::-1] for value in values)
    assert "".join(format(octet, "08b")[::-1] for octet in np.asarray(packed))[: len(text)] == text
    np.testing.assert_array_equal(packing.unpack_bits(packed, bits, count), values)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 2), (64, 1), (64, 9), (64, 12), (200, 199), (33, 33)])
def test_places_round_trip(n, k):
    rng = np.random.default_rng(n)
    mask = np.zeros((5, n), bool)
    for row in mask:
        row[rng.permutation(n)[:k]] = True
    packed = packing.pack_places(jnp.asarray(mask), k)
    kept, slot = packing.unpack_places(packed, 5, n, k)
    np.testing.assert_array_equal(kept, mask)
    for row in range(5):
        np.testing.assert_array_equal(np.asarray(slot)[row, mask[row]], np.arange(k))
    assert packed.nbytes == min(-(-5 * k * max(n - 1, 0).bit_length() // 8), -(-5 * n // 8)) or n == 1
    assert packing.place_format(5, n, k) == ("list" if packed.nbytes < -(-5 * n // 8) else "bitmap")


def octets(bits):
    return -(-bits // 8)


def test_every_byte_of_the_joint_format():
    """12 filters of 40 kernels keep 3 each: 3 bits a magnitude, one sign a kernel, 3 bits a pattern, 6 a place."""
    constraint = nest(Kernels(3), Patterns(MEST_8), Polarized(9), Levels(4, 0.3))
    packed = constraint.encode(jax.random.normal(jax.random.key(0), (3, 3, 40, 12)))
    kept = 12 * 3
    assert {name: array.size for name, array in packed.payload.items()} == {
        "values": octets(kept * 4 * 3),
        "signs": octets(kept),
    }
    assert {name: array.size for name, array in packed.index.items()} == {
        "kept": octets(kept * 6),
        "patterns": octets(kept * 3),
    }
    assert packed.nbytes == Bytes(octets(kept * 12) + octets(kept), octets(kept * 6) + octets(kept * 3), 9 + 4)
    assert packed.layout == "kernels+patterns+polarized+levels"


@pytest.mark.parametrize(
    ("constraint", "shape", "dtype", "expected"),
    [
        (TopK(10), (20, 50), "float32", Bytes(40, octets(10 * 10), 0)),
        (TopK(500), (20, 50), "bfloat16", Bytes(1000, 125, 0)),
        (Levels(4), (20, 5), "float32", Bytes(50, 0, 4)),
        (Levels(3), (7, 5), "float32", Bytes(octets(35 * 3), 0, 4)),
        (Polarized(4), (10, 6), "float32", Bytes(octets(60 * 31) + octets(6 * 3), 0, 0)),
        (Polarized(4), (10, 6), "bfloat16", Bytes(octets(60 * 15) + octets(6 * 3), 0, 0)),
        (nest(Polarized(4), Levels(2)), (10, 6), "float32", Bytes(octets(60) + octets(18), 0, 4)),
        (Kernels(2), (3, 3, 6, 4), "float32", Bytes(8 * 9 * 4, octets(6 * 4), 0)),
        (Kernels(5, balanced=False), (3, 3, 6, 4), "float32", Bytes(5 * 9 * 4, octets(24), 0)),
        (Patterns(MEST_8), (3, 3, 6, 4), "float32", Bytes(24 * 4 * 4, octets(24 * 3), 9)),
        (Patterns(MEST_8, group=4), (3, 3, 6, 4), "float32", Bytes(24 * 4 * 4, octets(6 * 3), 9)),
        (Patterns(MEST_8[:1]), (3, 3, 6, 4), "float32", Bytes(24 * 4 * 4, 0, 2)),
        (Levels(4, 0.1, "powers"), (20, 5), "float32", Bytes(octets(100 * 4), 0, 4)),
        (Levels(8, 0.01, "slices"), (20, 5), "float32", Bytes(octets(100 * 5), 0, 4)),
        (NofM(2, 4), (8, 5), "float32", Bytes(20 * 4, octets(40), 0)),
        (NofM(1, 8), (9, 5), "float32", Bytes(10 * 4, octets(10 * 3), 0)),
        (
            nest(NofM(2, 4), Polarized(4), Levels(4, 0.3)),
            (8, 5),
            "float32",
            Bytes(octets(20 * 3) + octets(10), octets(40), 4),
        ),
        (Channels(3), (20, 9), "float32", Bytes(60 * 4, octets(9), 0)),
        (Channels(1, axis=-2), (40, 9), "float32", Bytes(9 * 4, 1, 0)),
        (
            nest(Channels(2), Kernels(2), Patterns(MEST_8), Polarized(9), Levels(4, 0.3)),
            (3, 3, 6, 4),
            "float32",
            Bytes(octets(4 * 4 * 3) + 1, 1 + octets(12) + octets(4 * 3), 9 + 4),
        ),
        (nest(Kernels(2), Polarized(18)), (3, 3, 6, 4), "float32", Bytes(octets(72 * 31) + octets(12), octets(24), 0)),
    ],
)
def test_bytes_by_hand(constraint, shape, dtype, expected):
    w = jax.random.normal(jax.random.key(0), shape, dtype)
    packed = constraint.encode(w)
    assert packed.nbytes == expected
    np.testing.assert_array_equal(
        np.asarray(constraint.decode(packed), np.float32), np.asarray(constraint.project(w), np.float32)
    )


@pytest.mark.parametrize(
    ("constraint", "shape"),
    [
        (nest(Kernels(2), Patterns(MEST_8), Polarized(9), Levels(4, 0.3)), (3, 3, 64, 5)),
        (nest(Kernels(20), Polarized(16)), (64, 5)),
        (nest(TopK(7), Levels(8, 0.02)), (64, 5)),
        (Kernels(9, balanced=False), (3, 3, 6, 4)),
        (nest(Channels(2), Kernels(2), Levels(4, 0.3, "powers")), (3, 3, 6, 4)),
        (nest(NofM(2, 4), Levels(7, 0.1, "slices")), (3, 3, 6, 4)),
    ],
)
def test_decoder_is_plain_stablehlo(constraint, shape):
    """It is baked into exported modules: no custom call, no scatter, no sort, no loop; and the module decodes."""
    w = jax.random.normal(jax.random.key(0), shape)
    packed = constraint.encode(w)
    text = jax.jit(lambda: constraint.decode(packed)).lower().as_text()
    operations = set(re.findall(r"stablehlo\.(\w+)", text))
    assert "gather" in operations
    assert not operations & {"custom_call", "scatter", "sort", "while", "dot_general", "rng_bit_generator"}
    baked = jax.export.export(jax.jit(lambda: constraint.decode(packed)))()
    np.testing.assert_array_equal(baked.call(), constraint.project(w))


def test_decode_needs_nothing_but_the_packed_form():
    """Library, scale and counts are read from it, so that the byte count leaves nothing out."""
    w = jax.random.normal(jax.random.key(0), (3, 3, 6, 4))
    constraint = nest(Kernels(2), Patterns(MEST_8), Polarized(9), Levels(4, 0.3))
    stranger = nest(Kernels(5), Patterns(((0,), (1, 2))), Polarized(3), Levels(2, 7.0))
    np.testing.assert_array_equal(stranger.decode(constraint.encode(w)), constraint.project(w))
