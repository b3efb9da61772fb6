"""The field mod 2^31 - 1 against Python's integers, and what shares do and do not tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum.federated import field

pytestmark = pytest.mark.optimized

PRIME = field.PRIME
EDGES = [0, 1, 2, 2**15, 2**16 - 1, 2**16, 2**30, PRIME - 2, PRIME - 1]


def pairs():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, PRIME, (2, 10_000))
    edge = np.array([(x, y) for x in EDGES for y in EDGES])
    return np.concatenate([a, edge[:, 0]]), np.concatenate([b, edge[:, 1]])


def as_field(x):
    return jnp.asarray(np.asarray(x), jnp.uint32)


@pytest.mark.parametrize("x64", [False, True])
def test_arithmetic(x64):
    a, b = pairs()
    with jax.enable_x64(x64):
        results = {
            name: jax.jit(getattr(field, name))(as_field(a), as_field(b)) for name in ("add", "subtract", "multiply")
        }
        inverses = field.inverse(as_field(a))
        powers = field.power(as_field(a), 5)
    expected = {"add": (a + b) % PRIME, "subtract": (a - b) % PRIME}
    expected["multiply"] = np.array([int(x) * int(y) % PRIME for x, y in zip(a, b, strict=True)])
    for name, result in results.items():
        assert result.dtype == jnp.uint32
        np.testing.assert_array_equal(result, expected[name])
    np.testing.assert_array_equal(field.multiply(inverses, as_field(a)), (a != 0).astype(np.uint32))
    np.testing.assert_array_equal(powers, [pow(int(x), 5, PRIME) for x in a])
    np.testing.assert_array_equal(field.power(as_field([0, 3]), 0), [1, 1])


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32))
def test_limbs(secret):
    limbs = field.secret_to_limbs(secret)
    assert limbs.shape == (field.LIMBS,)
    assert limbs.max() < PRIME
    assert field.limbs_to_secret(limbs) == secret


def test_limbs_of_no_secret():
    limbs = field.secret_to_limbs(b"\xff" * 32)
    assert field.limbs_to_secret(limbs) == b"\xff" * 32
    for at, value in ((0, 2**30), (8, 2**16)):
        wrong = limbs.copy()
        wrong[at] = value
        with pytest.raises(ValueError, match="limbs must be those of a 256-bit secret"):
            field.limbs_to_secret(wrong)
    with pytest.raises(ValueError, match="secret must be 32 bytes, got 31"):
        field.secret_to_limbs(bytes(31))


def shared(threshold=4, shares=7, seed=b"s" * 32):
    secret = as_field(field.secret_to_limbs(bytes(range(32))))
    rows = field.uniform_elements(seed, (threshold - 1) * field.LIMBS).reshape(-1, field.LIMBS)
    points = jnp.arange(1, shares + 1, dtype=jnp.uint32)
    return secret, jnp.asarray(rows), points, field.split(secret, jnp.asarray(rows), points)


def test_shares_are_the_polynomial():
    secret, rows, points, shares = shared()
    polynomial = [np.asarray(secret).tolist(), *np.asarray(rows).tolist()]
    for point in points.tolist():
        for limb in range(field.LIMBS):
            expected = sum(row[limb] * point**at for at, row in enumerate(polynomial)) % PRIME
            assert int(shares[point - 1, limb]) == expected


@settings(max_examples=30)
@given(st.sets(st.integers(0, 6), min_size=4, max_size=7), st.booleans())
def test_any_threshold_of_shares_combines(chosen, x64):
    secret, _, points, shares = shared()
    present = jnp.asarray(np.isin(np.arange(7), list(chosen)))
    with jax.enable_x64(x64):
        marked = jnp.where(present, points, jnp.uint32(0))
        result = field.combine(shares, marked, 4)
    assert result.dtype == jnp.uint32
    np.testing.assert_array_equal(result, secret)


def test_fewer_shares_are_refused():
    _, _, points, shares = shared()
    with pytest.raises(ValueError, match="shares must be at least the threshold 4 in number, got 3"):
        field.combine(shares[:3], points[:3], 4)
    with pytest.raises(ValueError, match="got 2"):
        field.combine(shares, points.at[2:].set(0), 4)


def test_fewer_shares_agree_with_every_secret():
    """For any other secret there is exactly one polynomial through the three shares an adversary holds."""
    _, _, points, shares = shared()
    rng = np.random.default_rng(1)
    for _ in range(5):
        other = as_field(field.secret_to_limbs(rng.bytes(32)))
        # coefficients c of other + c_1 x + c_2 x^2 + c_3 x^3 = share at three points: Cramer-free, by elimination
        held = np.asarray(shares[:3]).tolist()
        rows = [
            [
                *(pow(x, at, PRIME) for at in (1, 2, 3)),
                *((held[x - 1][limb] - int(other[limb])) % PRIME for limb in range(9)),
            ]
            for x in (1, 2, 3)
        ]
        for pivot in range(3):
            scale = pow(rows[pivot][pivot], -1, PRIME)
            rows[pivot] = [value * scale % PRIME for value in rows[pivot]]
            for at in range(3):
                if at != pivot:
                    factor = rows[at][pivot]
                    rows[at] = [(a - factor * b) % PRIME for a, b in zip(rows[at], rows[pivot], strict=True)]
        coefficients = as_field([row[3:] for row in rows])
        again = field.split(other, coefficients, points)
        np.testing.assert_array_equal(again[:3], shares[:3])
        assert not np.array_equal(again[3], shares[3])
        np.testing.assert_array_equal(field.combine(again, points, 4), other)


def test_vmap_over_secrets():
    secrets = as_field([field.secret_to_limbs(bytes([at]) * 32) for at in range(5)])
    rows = as_field(field.uniform_elements(b"k" * 32, 5 * 2 * 9).reshape(5, 2, 9))
    points = jnp.array([3, 9, 11, 2], jnp.uint32)

    @jax.jit
    @jax.vmap
    def there_and_back(secret, rows):
        return field.combine(field.split(secret, rows, points)[1:], points[1:], 3)

    np.testing.assert_array_equal(there_and_back(secrets, rows), secrets)


def test_bad_points():
    secret, rows, _, shares = shared()
    for bad in ([0, 1], [2, 2], [1, PRIME]):
        with pytest.raises(ValueError, match="points must be distinct and from 1 to 2147483646"):
            field.split(secret, rows, jnp.asarray(np.array(bad, np.uint32)))
    with pytest.raises(ValueError, match="points must be distinct"):
        field.combine(shares[:2], jnp.array([5, 5], jnp.uint32), 2)


def test_uniform_elements():
    elements = field.uniform_elements(b"u" * 32, 20_000)
    assert elements.dtype == np.uint32
    assert elements.max() < PRIME
    np.testing.assert_array_equal(elements, field.uniform_elements(b"u" * 32, 20_000, "jax"))
    # mean of n uniform numbers: standard error p / sqrt(12 n)
    assert abs(elements.mean() - PRIME / 2) < 5 * PRIME / np.sqrt(12 * len(elements))
