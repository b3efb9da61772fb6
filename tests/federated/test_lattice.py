"""Ring learning with errors: the transform against whole numbers, sums exact mod 2^32, and its form of SEFL."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.federated import FixedPointSpec, RefusedError, SeflSpec, ciphers, lattice, sefl_lattice

KEYS = [ciphers.digest(b"identity", bytes([at])) for at in range(4)]
D = lattice.DEGREE


@pytest.fixture(scope="module")
def keys():
    return lattice.generate(ciphers.digest(b"lattice"))


def is_prime(number):
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def test_parameters():
    """HE standard (2018), table 1: ternary secret, 128 bits, classical: 54 bits of q at degree 2048."""
    first, second = lattice.PRIMES
    assert first != second
    assert all(is_prime(prime) and prime % (2 * D) == 1 for prime in lattice.PRIMES)
    assert (first * second).bit_length() == 54
    assert lattice.capacity() > 10_000


def test_products_are_negacyclic():
    """A product with a sparse polynomial, by hand in whole numbers: X^2048 is -1."""
    rng = np.random.default_rng(0)
    dense = np.stack([rng.integers(0, prime, (2, D)) for prime in lattice.PRIMES])
    terms = {0: 5, 1: 123456, 700: 134_000_000, 2047: 77}
    sparse = np.zeros((2, 2, D), np.int64)
    for at, value in terms.items():
        sparse[:, :, at] = value
    expected = np.zeros_like(dense)
    for prime, want, have in zip(lattice.PRIMES, expected, dense, strict=True):
        for at, value in terms.items():
            turned = np.concatenate([-have[:, D - at :], have[:, : D - at]], axis=1) if at else have
            want += turned * value % prime
        want %= prime
    a, b = (lattice.forward(jnp.asarray(part, jnp.uint32)) for part in (dense, sparse))
    product = np.stack(
        [np.asarray(a[at]).astype(np.uint64) * np.asarray(b[at]) % prime for at, prime in enumerate(lattice.PRIMES)]
    )
    np.testing.assert_array_equal(lattice.inverse(jnp.asarray(product, jnp.uint32)), expected)


def test_sums_are_exact(keys):
    secret, public = keys
    rng = np.random.default_rng(1)
    vectors = rng.integers(0, 2**32, (12, 3000), dtype=np.uint32)
    vectors[0, :4] = [0, 1, 2**31, 2**32 - 1]
    total = None
    for at, vector in enumerate(vectors):
        ciphertext = lattice.encrypt(public, vector, ciphers.digest(bytes([at])), flooding=at == 0)
        if at in (0, 1):
            np.testing.assert_array_equal(lattice.decrypt(secret, ciphertext, 3000), vector)
        total = ciphertext if total is None else lattice.add(total, ciphertext)
    # doubled again and again: 12 times 256 ciphertexts
    expected = vectors.sum(axis=0, dtype=np.uint32)
    for _ in range(3):
        total, expected = lattice.add(total, total), expected * np.uint32(2)
    np.testing.assert_array_equal(lattice.decrypt(secret, total, 3000), expected)
    wrong, _ = lattice.generate(bytes(32))
    assert (lattice.decrypt(wrong, total, 3000) != expected).mean() > 0.99


def test_same_bits_with_x64(keys):
    ring = np.arange(D, dtype=np.uint32)
    plain = lattice.encrypt(keys[1], ring, bytes(32))
    with jax.enable_x64(True):
        wide = lattice.encrypt(keys[1], ring, bytes(32))
        assert wide.first.dtype == jnp.uint32
    np.testing.assert_array_equal(plain.first, wide.first)
    np.testing.assert_array_equal(plain.second, wide.second)
    # other keys, other ciphertexts; each looks uniform
    other = lattice.encrypt(keys[1], ring, b"\x01" * 32)
    assert (plain.first != other.first).mean() > 0.999
    middle = np.asarray(plain.first[0]).mean() / lattice.PRIMES[0]
    assert abs(middle - 0.5) < 5 / np.sqrt(12 * D)


def test_sefl_by_encryption(keys):
    secret, public = keys
    fixed = FixedPointSpec(clients=4, clip=4.0, fraction_bits=20)
    spec = SeflSpec(
        round_id=3,
        dimension=3000,
        identities=tuple(ciphers.verify_key(key) for key in KEYS),
        provider_key=ciphers.public_key(bytes(range(32))),
        fixed_point=fixed,
        least=2,
    )
    spec = sefl_lattice.lattice_spec(spec, public)
    vectors = np.random.default_rng(0).integers(0, 2**32, (4, 3000), dtype=np.uint32)
    sent = [sefl_lattice.client_encrypt(spec, at, KEYS[at], public, vectors[at], bytes([at]) * 32) for at in range(4)]
    # two halves of two residues of 27 bits each, the last polynomial filled up
    assert sent[0].nbytes == 4096 * 4 * 27 // 8 + 80
    state = sefl_lattice.aggregator_collect(spec, sefl_lattice.LatticeState(), sent[:3])
    altered = replace(sent[3], data=b"\x00" + sent[3].data[1:])
    for bad, sentence in (
        (sent[0], "awaits no vector of client 0 in round 3"),
        (replace(sent[3], round_id=2), "awaits no vector of client 3 in round 3"),
        (altered, "a vector that client 3 did not sign for this round"),
    ):
        with pytest.raises(RefusedError, match=sentence):
            sefl_lattice.aggregator_collect(spec, state, [bad])
    with pytest.raises(RefusedError, match="has 0 vectors, fewer than the least number 2"):
        sefl_lattice.aggregator_blind(spec, sefl_lattice.LatticeState(), public, bytes(32))
    state, blinded = sefl_lattice.aggregator_blind(spec, state, public, bytes(32))
    provider, opened = sefl_lattice.provider_open(spec, sefl_lattice.OpenerState(secret), blinded)
    expected = vectors[:3].sum(axis=0, dtype=np.uint32)
    # what the provider sees is under a mask
    assert (np.frombuffer(opened.total, "<u4") != expected).mean() > 0.99
    np.testing.assert_array_equal(sefl_lattice.aggregator_finish(spec, state, opened), expected)
    with pytest.raises(RefusedError, match="has opened round 3 and opens round 3 no more"):
        sefl_lattice.provider_open(spec, provider, blinded)
    with pytest.raises(RefusedError, match="the provider awaits 55296 bytes, got 9"):
        sefl_lattice.provider_open(spec, sefl_lattice.OpenerState(secret), replace(blinded, data=bytes(9)))
    with pytest.raises(RefusedError, match="got numbers that are no residues"):
        sefl_lattice.provider_open(
            spec, sefl_lattice.OpenerState(secret), replace(blinded, data=b"\xff" * len(blinded.data))
        )
    with pytest.raises(RefusedError, match="awaits no such sum in round 3"):
        sefl_lattice.aggregator_finish(spec, state, replace(opened, round_id=4))
    with pytest.raises(RefusedError, match="has ended the collection"):
        sefl_lattice.aggregator_collect(spec, state, [sent[3]])
