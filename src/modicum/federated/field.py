"""Arithmetic mod the prime 2^31 - 1 in uint32, and Shamir's secret sharing over it.

Nothing needs 64-bit numbers: a product of two elements is built from 16-bit halves and folded. Everything is
traceable and gives the same bits with x64 on. It does not claim constant time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, UInt32

from modicum.core import check
from modicum.federated.masks import check_bytes, mask_words

PRIME = 2**31 - 1
"""The Mersenne prime that the field is built on."""
LIMBS = 9
"""Limbs of a 256-bit secret."""
LIMB_BITS = 30
"""Bits of a limb: every 30-bit number lies below the prime, a 31-bit one might be the prime itself."""

Elements = UInt32[Array, " *shape"]


def _reduced(x: Elements) -> Elements:
    """A number below 2^32 to its residue: 2^31 is 1, so the top bit folds onto the lowest."""
    x = (x & jnp.uint32(PRIME)) + (x >> jnp.uint32(31))
    return jnp.where(x >= jnp.uint32(PRIME), x - jnp.uint32(PRIME), x)


def add(a: Elements, b: Elements) -> Elements:
    """`a + b mod 2^31 - 1` of elements below the prime."""
    return _reduced(a + b)


def subtract(a: Elements, b: Elements) -> Elements:
    """`a - b mod 2^31 - 1` of elements below the prime."""
    return _reduced(a + (jnp.uint32(PRIME) - b))


def multiply(a: Elements, b: Elements) -> Elements:
    """`a b mod 2^31 - 1` of elements below the prime."""
    half, low_bits = jnp.uint32(16), jnp.uint32(0xFFFF)
    a_high, a_low, b_high, b_low = a >> half, a & low_bits, b >> half, b & low_bits
    # highs are below 2^15, so the two cross products add up to less than 2^32
    cross = a_high * b_low + a_low * b_high
    low = a_low * b_low
    total = low + (cross << half)
    carry = (total < low).astype(jnp.uint32)
    high = a_high * b_high + (cross >> half) + carry
    # high 2^32 + total, cut at bit 31; either part is at most the prime
    return _reduced((total & jnp.uint32(PRIME)) + ((high << jnp.uint32(1)) | (total >> jnp.uint32(31))))


def power(base: Elements, exponent: int) -> Elements:
    """`base^exponent mod 2^31 - 1`, with `0^0 = 1`.

    Args:
        base: elements below the prime.
        exponent: whole number from 0 to `2^32 - 1`; static.
    """
    check.integer(0, 2**32 - 1, exponent=exponent)
    return _power(base, exponent)


@functools.partial(jax.jit, static_argnums=1)
def _power(base: Array, exponent: int) -> Array:
    """Square and multiply, lowest bit first."""
    bits = jnp.asarray([exponent >> at & 1 for at in range(max(exponent.bit_length(), 1))], jnp.bool_)

    def step(carry: tuple[Array, Array], bit: Bool[Array, ""]) -> tuple[tuple[Array, Array], None]:
        result, square = carry
        return (jnp.where(bit, multiply(result, square), result), multiply(square, square)), None

    (result, _), _ = lax.scan(step, (jnp.ones_like(base), base), bits)
    return result


def inverse(a: Elements) -> Elements:
    """`1 / a mod 2^31 - 1` by Fermat, `a^(p - 2)`; 0, which has none, gives 0."""
    return power(a, PRIME - 2)


def split(
    secret: UInt32[Array, " limbs"],
    coefficients: UInt32[Array, " degree limbs"],
    points: UInt32[Array, " shares"],
) -> UInt32[Array, " shares limbs"]:
    """Shamir's shares of a secret: the polynomial `secret + c_1 x + c_2 x^2 + ...` at each point.

    Any `degree + 1` shares give the secret back; `degree` of them agree with every secret equally well, provided
    that the coefficients are uniform and used once.

    Args:
        secret: elements below the prime, each shared on its own.
        coefficients: uniform elements below the prime (`uniform_elements`), one row per power from 1 on; rows of
            zeros at the end change nothing and may serve to keep shapes fixed.
        points: one per share, distinct, from 1 to `2^31 - 2`; 0 would hand out the secret.

    Raises:
        ValueError: outside of `jit`, for points that are 0, repeated or not below the prime.

    Reference:
        Shamir, How to share a secret (1979).
    """
    if not isinstance(points, jax.core.Tracer):
        _check_points(points, absent=False)
    return _evaluated(secret, coefficients, points)


@jax.jit
def _evaluated(secret: Array, coefficients: Array, points: Array) -> Array:
    """The polynomial at each point, by Horner."""

    def at(point: UInt32[Array, ""]) -> UInt32[Array, " limbs"]:
        def step(value: Array, coefficient: Array) -> tuple[Array, None]:
            return add(multiply(value, jnp.broadcast_to(point, value.shape)), coefficient), None

        rows = jnp.concatenate([secret[None], coefficients])
        value, _ = lax.scan(step, jnp.zeros_like(secret), rows, reverse=True)
        return value

    return jax.vmap(at)(points)


def combine(
    shares: UInt32[Array, " shares limbs"], points: UInt32[Array, " shares"], threshold: int
) -> UInt32[Array, " limbs"]:
    """The secret from at least `threshold` shares: Lagrange's interpolation at 0.

    Args:
        shares: elements below the prime.
        points: where each share was taken; rows whose point is 0 are absent and ignored, so that drop-outs change
            numbers but no shapes.
        threshold: shares needed, `degree + 1`, at least 1.

    Raises:
        ValueError: outside of `jit`, with fewer shares than the threshold or repeated points. Inside, where nothing
            can be refused, fewer give a number that has nothing to do with the secret.

    Example:
        >>> secret, line = jnp.array([7], jnp.uint32), jnp.array([[5]], jnp.uint32)
        >>> points = jnp.array([1, 2, 3], jnp.uint32)
        >>> combine(split(secret, line, points)[1:], points[1:], threshold=2).tolist()
        [7]
    """
    check.integer(1, threshold=threshold)
    if not isinstance(points, jax.core.Tracer):
        _check_points(points, absent=True)
        present = int(np.count_nonzero(np.asarray(points)))
        if present < threshold:
            raise ValueError(f"shares must be at least the threshold {threshold} in number, got {present}")
    return _interpolated(shares, points)


@jax.jit
def _interpolated(shares: Array, points: Array) -> Array:
    """Sum over `i` of `share_i prod_(j != i) x_j / (x_j - x_i)`, absent rows left out."""
    one = jnp.uint32(1)
    count = points.shape[0]
    places = lax.iota(jnp.uint32, count)

    def factor(carry: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        numerator, denominator = carry
        point, place = row
        used = (point != 0) & (places != place)
        distance = subtract(jnp.broadcast_to(point, (count,)), points)
        numerator = multiply(numerator, jnp.where(used, point, one))
        return (numerator, multiply(denominator, jnp.where(used, distance, one))), None

    ones = jnp.ones_like(points)
    (numerator, denominator), _ = lax.scan(factor, (ones, ones), (points, places))
    weights = jnp.where(points != 0, multiply(numerator, inverse(denominator)), jnp.uint32(0))

    def term(total: Array, row: tuple[Array, Array]) -> tuple[Array, None]:
        share, weight = row
        return add(total, multiply(share, jnp.broadcast_to(weight, share.shape))), None

    total, _ = lax.scan(term, jnp.zeros_like(shares[0]), (shares, weights))
    return total


def _check_points(points: Array, absent: bool) -> None:
    """Points are distinct and below the prime; 0 only where it may mark an absent row."""
    numbers = np.asarray(points)
    used = numbers[numbers != 0] if absent else numbers
    if len(np.unique(used)) < len(used) or (used == 0).any() or (used >= PRIME).any():
        raise ValueError(f"points must be distinct and from 1 to {PRIME - 1}, got {numbers.tolist()}")


def secret_to_limbs(secret: bytes) -> UInt32[np.ndarray, " 9"]:
    """A 256-bit secret as nine 30-bit limbs, lowest first.

    Raises:
        ValueError: unless it has 32 bytes.
    """
    check_bytes(32, secret=secret)
    number = int.from_bytes(secret, "little")
    return np.array([number >> LIMB_BITS * at & (2**LIMB_BITS - 1) for at in range(LIMBS)], np.uint32)


def limbs_to_secret(limbs: UInt32[np.ndarray, " 9"]) -> bytes:
    """Inverse of `secret_to_limbs`.

    Raises:
        ValueError: for limbs that no 256-bit secret has: what wrong shares combine to, all but always.
    """
    numbers = np.asarray(limbs, np.uint32).tolist()
    total = sum(number << LIMB_BITS * at for at, number in enumerate(numbers))
    if max(numbers) >= 2**LIMB_BITS or total >= 2**256:
        raise ValueError("limbs must be those of a 256-bit secret: nine numbers below 2^30, the last below 2^16")
    return total.to_bytes(32, "little")


def uniform_elements(key: bytes, count: int, backend: str = "openssl") -> UInt32[np.ndarray, " count"]:
    """Uniform elements of the field from a 256-bit key: 31-bit words of its ChaCha20 stream, the prime left out.

    Args:
        key: 32 secret bytes that serve for this alone.
        count: elements wanted.
        backend: which ChaCha20, as in `mask_words`; the elements are the same.

    Raises:
        ValueError: with probability below `2^-400`, where more than 16 words had to be left out.
    """
    words = mask_words(key, count + 16, backend) & np.uint32(PRIME)
    kept = words[words != PRIME][:count]
    check.shape((count,), elements=kept)
    return kept
