"""Encryption that adds: ring learning with errors, 32 exact bits per coefficient, in JAX with uint32 alone.

A ciphertext of a polynomial `m` with coefficients mod 2^32 is `(b u + 2^32 e_1 + m, a u + 2^32 e_2)` mod `q`, where
`(a, b = -a s + 2^32 e)` is the public key: whoever has `s` takes `c_0 + c_1 s = m + 2^32 (noise)` mod `q` and, as long
as that stays below `q / 2`, gets `m` mod 2^32 back exactly. Sums of ciphertexts are ciphertexts of sums, mod 2^32.

**Parameters**: polynomials mod `X^2048 + 1`, `q` of 54 bits (two primes of 27), secrets of -1, 0 and 1, errors of
standard deviation 3.24. The standard's table for such secrets and 128 bits of classical security allows 54 bits of `q`
at degree 2048. Not audited; JAX does not run in constant time.

Everything is kept transformed (`forward`), where products are pointwise; rows are polynomials, and stay batched.

Reference:
    Albrecht et al., Homomorphic Encryption Security Standard (HomomorphicEncryption.org, 2018), table 1; Brakerski,
    Gentry and Vaikuntanathan (ITCS 2012) for the scheme, of which only the addition is used; Longa and Naehrig,
    Speeding up the Number Theoretic Transform (CANS 2016), algorithms 1 and 2.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from modicum.core import check
from modicum.federated.masks import check_bytes, openssl_words

DEGREE = 2048
PRIMES = (134_176_769, 134_111_233)
"""Both are 1 mod 4096, so that there are roots of unity of order `2 DEGREE`; their product is below 2^54."""
PRIME_BITS = 27
BINOMIAL_BITS = 21
"""Errors are the difference of two sums of so many bits: standard deviation `sqrt(21 / 2) = 3.24`."""
FLOODING_BITS = 18
"""Bits of the uniform noise by which a sum is re-randomized."""

Polynomials = UInt32[Array, " primes rows degree"]
"""Residues mod each prime, transformed."""


class Ciphertext(NamedTuple):
    """A batch of encrypted polynomials."""

    first: Polynomials
    second: Polynomials


class PublicKey(NamedTuple):
    """What clients encrypt for; in Montgomery form."""

    uniform: UInt32[Array, " primes degree"]
    masked: UInt32[Array, " primes degree"]


def capacity() -> int:
    """How many ciphertexts, one of them with flooding noise, may be added for decryption to be exact.

    The noise `e u + e_1 + e_2 s` of one has a variance of `10.5 (2 (2 / 3) DEGREE + 1)`; of their sum, ten standard
    deviations have room: it is larger for one coefficient in 10^23.

    Example:
        >>> capacity() > 1_000_000
        True
    """
    variance = BINOMIAL_BITS / 2 * (4 / 3 * DEGREE + 1)
    room = PRIMES[0] * PRIMES[1] / 2 / 2**32 - 1 - 2 ** (FLOODING_BITS - 1)
    return int(room**2 / (100 * variance))


def _product(a: Array, b: Array) -> tuple[Array, Array]:
    """High and low 32 bits of a product, from 16-bit halves."""
    half, low_bits = jnp.uint32(16), jnp.uint32(0xFFFF)
    a_high, a_low, b_high, b_low = a >> half, a & low_bits, b >> half, b & low_bits
    low_low, high_low = a_low * b_low, a_high * b_low
    cross = high_low + (low_low >> half)
    middle = a_low * b_high + (cross & low_bits)
    return a_high * b_high + (cross >> half) + (middle >> half), (middle << half) | (low_low & low_bits)


class _Tables(NamedTuple):
    """Of one prime; roots in Montgomery form, in bit-reversed order."""

    prime: int
    negative_inverse: int
    """`-1 / prime mod 2^32`."""
    roots: np.ndarray
    inverse_roots: np.ndarray
    inverse_degree: int


@functools.cache
def _tables(prime: int) -> _Tables:
    order = 2 * DEGREE
    root = next(
        found
        for base in range(2, 1000)
        if pow(found := pow(base, (prime - 1) // order, prime), DEGREE, prime) == prime - 1
    )
    bits = DEGREE.bit_length() - 1
    reverse = [int(format(at, f"0{bits}b")[::-1], 2) for at in range(DEGREE)]
    powers = [(pow(root, at, prime) << 32) % prime for at in reverse]
    inverses = [(pow(root, -at, prime) << 32) % prime for at in reverse]
    return _Tables(
        prime,
        -pow(prime, -1, 2**32) % 2**32,
        np.array(powers, np.uint32),
        np.array(inverses, np.uint32),
        (pow(DEGREE, -1, prime) << 32) % prime,
    )


def _multiply(a: Array, montgomery: Array, tables: _Tables) -> Array:
    """`a b mod prime` for `b` in Montgomery form, `b 2^32 mod prime`."""
    high, low = _product(a, montgomery)
    reduced, _ = _product(low * jnp.uint32(tables.negative_inverse), jnp.full_like(low, tables.prime))
    # the low halves add up to 0 mod 2^32, with a carry unless both are 0
    return _folded(high + reduced + (low != 0).astype(jnp.uint32), tables.prime)


def _folded(x: Array, prime: int) -> Array:
    """A number below `2 prime` to its residue: where `x - prime` wraps around, it is the larger."""
    return jnp.minimum(x, x - jnp.uint32(prime))


def _forward(x: Array, tables: _Tables) -> Array:
    """The negacyclic transform of rows, in bit-reversed order."""
    rows, size, groups = x.shape[0], DEGREE, 1
    while groups < DEGREE:
        size //= 2
        pairs = x.reshape(rows, groups, 2, size)
        roots = jnp.broadcast_to(tables.roots[groups : 2 * groups].reshape(1, groups, 1), (rows, groups, size))
        first, second = pairs[:, :, 0], _multiply(pairs[:, :, 1], roots, tables)
        both = (first + second, first + (jnp.uint32(tables.prime) - second))
        x = jnp.stack([_folded(part, tables.prime) for part in both], axis=2)
        groups *= 2
    return x.reshape(rows, DEGREE)


def _inverse(x: Array, tables: _Tables) -> Array:
    """Inverse of `_forward`."""
    rows, size, groups = x.shape[0], 1, DEGREE // 2
    while groups:
        pairs = x.reshape(rows, groups, 2, size)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        roots = jnp.broadcast_to(tables.inverse_roots[groups : 2 * groups].reshape(1, groups, 1), (rows, groups, size))
        total = _folded(first + second, tables.prime)
        difference = _folded(first + (jnp.uint32(tables.prime) - second), tables.prime)
        x = jnp.stack([total, _multiply(difference, roots, tables)], axis=2)
        size *= 2
        groups //= 2
    x = x.reshape(rows, DEGREE)
    return _multiply(x, jnp.full_like(x, tables.inverse_degree), tables)


@jax.jit
def forward(residues: Polynomials) -> Polynomials:
    """The negacyclic transform mod each prime: products of polynomials mod `X^2048 + 1` become pointwise."""
    return jnp.stack([_forward(residues[at], _tables(prime)) for at, prime in enumerate(PRIMES)])


@jax.jit
def inverse(transformed: Polynomials) -> Polynomials:
    """Inverse of `forward`."""
    return jnp.stack([_inverse(transformed[at], _tables(prime)) for at, prime in enumerate(PRIMES)])


def _pointwise(a: Polynomials, montgomery: UInt32[Array, " primes degree"]) -> Polynomials:
    """Products of rows with one polynomial in Montgomery form."""
    return jnp.stack(
        [
            _multiply(a[at], jnp.broadcast_to(montgomery[at][None], a[at].shape), _tables(prime))
            for at, prime in enumerate(PRIMES)
        ]
    )


def _sum(a: Polynomials, b: Polynomials) -> Polynomials:
    return jnp.stack([_folded(a[at] + b[at], prime) for at, prime in enumerate(PRIMES)])


def _ternary(words: Array) -> Array:
    """-1, 0 and 1 alike, as int32: the top of `3 word / 2^32`."""
    return _product(words, jnp.full_like(words, 3))[0].astype(jnp.int32) - 1


def _error(first: Array, second: Array) -> Array:
    """Centered binomial errors, int32."""
    used = jnp.uint32(2**BINOMIAL_BITS - 1)
    ones = [jax.lax.population_count(words & used).astype(jnp.int32) for words in (first, second)]
    return ones[0] - ones[1]


def _residues(small: Array) -> Polynomials:
    """Whole numbers of magnitude below each prime, mod each."""
    wide = jax.lax.bitcast_convert_type(small, jnp.uint32)
    return jnp.stack([jnp.where(small < 0, wide + jnp.uint32(prime), wide) for prime in PRIMES])


def _lifted(error: Array, message: Array | None = None) -> Polynomials:
    """`2^32 error + message` mod each prime; errors stay below 2^31 in magnitude, messages are uint32."""
    parts = []
    for prime, wide in zip(PRIMES, _residues(error), strict=True):
        tables = _tables(prime)
        # the factor 2^32 in Montgomery form
        part = _multiply(wide, jnp.full_like(wide, pow(2, 64, prime)), tables)
        if message is not None:
            # a product with 1 in Montgomery form brings any 32-bit number below the prime
            part = _folded(part + _multiply(message, jnp.full_like(message, pow(2, 32, prime)), tables), prime)
        parts.append(part)
    return jnp.stack(parts)


def _montgomery(x: Polynomials) -> Polynomials:
    return jnp.stack(
        [_multiply(x[at], jnp.full_like(x[at], pow(2, 64, prime)), _tables(prime)) for at, prime in enumerate(PRIMES)]
    )


def _uniform(key: bytes) -> UInt32[np.ndarray, " primes degree"]:
    """Uniform residues from a public seed, by rejection."""
    words = openssl_words(key, 4 * DEGREE) & np.uint32(2**PRIME_BITS - 1)
    found, at = [], 0
    for prime in PRIMES:
        good = np.flatnonzero(words[at:] < prime)[:DEGREE] + at
        found.append(words[good])
        at = int(good[-1]) + 1
    return np.stack(found)


def generate(key: bytes) -> tuple[UInt32[Array, " primes degree"], PublicKey]:
    """A secret key, in Montgomery form, and the public key that belongs to it.

    Args:
        key: 32 secret bytes that serve for this alone.
    """
    check_bytes(32, key=key)
    words = jnp.asarray(openssl_words(key, 3 * DEGREE, counter=2**16).reshape(3, 1, DEGREE))
    # the public half comes from a stream of its own, which says nothing about the key
    uniform = jnp.asarray(_uniform(openssl_words(key, 8, counter=2**20).astype("<u4").tobytes()))
    return _generated(uniform, words)


@jax.jit
def _generated(uniform: Array, words: Array) -> tuple[Array, PublicKey]:
    secret = _montgomery(forward(_residues(_ternary(words[0]))))[:, 0]
    product = _pointwise(uniform[:, None], secret)
    noise = forward(_lifted(_error(words[1], words[2])))
    negative = jnp.stack([_folded(jnp.uint32(prime) - product[at], prime) for at, prime in enumerate(PRIMES)])
    masked = _sum(negative, noise)
    return secret, PublicKey(_montgomery(uniform[:, None])[:, 0], _montgomery(masked)[:, 0])


def rows_of(dimension: int) -> int:
    """Polynomials that hold so many numbers."""
    return -(-dimension // DEGREE)


def encrypt(
    public: PublicKey, ring: UInt32[np.ndarray, " dimension"], key: bytes, flooding: bool = False
) -> Ciphertext:
    """Encrypts ring elements; the last polynomial is filled up with zeros.

    Args:
        public: whose.
        ring: uint32.
        key: 32 secret bytes that serve for this alone.
        flooding: whether uniform noise of `FLOODING_BITS` is added, by which a sum that this is added to says little
            about the noise of its parts.
    """
    check_bytes(32, key=key)
    rows = rows_of(ring.size)
    message = np.zeros(rows * DEGREE, np.uint32)
    message[: ring.size] = ring
    kinds = 6 if flooding else 5
    words = jnp.asarray(openssl_words(key, kinds * rows * DEGREE).reshape(kinds, rows, DEGREE))
    return _encrypted(public, jnp.asarray(message.reshape(rows, DEGREE)), words)


@jax.jit
def _encrypted(public: PublicKey, message: Array, words: Array) -> Ciphertext:
    blinding = forward(_residues(_ternary(words[0])))
    error = _error(words[1], words[2])
    if words.shape[0] == 6:
        error = error + (words[5] >> jnp.uint32(32 - FLOODING_BITS)).astype(jnp.int32) - 2 ** (FLOODING_BITS - 1)
    first = _sum(_pointwise(blinding, public.masked), forward(_lifted(error, message)))
    second = _sum(_pointwise(blinding, public.uniform), forward(_lifted(_error(words[3], words[4]))))
    return Ciphertext(first, second)


@jax.jit
def add(a: Ciphertext, b: Ciphertext) -> Ciphertext:
    """A ciphertext of the sum."""
    return Ciphertext(_sum(a.first, b.first), _sum(a.second, b.second))


def decrypt(
    secret: UInt32[Array, " primes degree"], ciphertext: Ciphertext, dimension: int
) -> UInt32[np.ndarray, " dimension"]:
    """The ring elements, exactly, if at most `capacity()` ciphertexts were added.

    Args:
        secret: from `generate`.
        ciphertext: of at least `dimension` numbers.
        dimension: how many are wanted.
    """
    check.integer(1, ciphertext.first.shape[1] * DEGREE, dimension=dimension)
    return np.asarray(_decrypted(secret, ciphertext)).reshape(-1)[:dimension]


@jax.jit
def _decrypted(secret: Array, ciphertext: Ciphertext) -> Array:
    """`c_0 + c_1 s`, brought together from both primes as a number around 0, mod 2^32."""
    low, other = inverse(_sum(ciphertext.first, _pointwise(ciphertext.second, secret)))
    first, second = PRIMES
    tables = _tables(second)
    # Garner: value = low + first high, high = (other - low) / first mod second; both primes are near each other
    folded = _folded(low, second)
    difference = _folded(other + (jnp.uint32(second) - folded), second)
    high = _multiply(difference, jnp.full_like(low, (pow(first, -1, second) << 32) % second), tables)
    value = low + jnp.uint32(first) * high
    middle, last = jnp.uint32((second - 1) // 2), jnp.uint32((first - 1) // 2)
    is_negative = (high > middle) | ((high == middle) & (low > last))
    return jnp.where(is_negative, value - jnp.uint32(first * second % 2**32), value)
