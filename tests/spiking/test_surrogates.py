"""Surrogates against their formulas in float64, their primitives, and the contract every one of them keeps."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modicum.spiking import smooth_surrogates, surrogates
from modicum.spiking.smooth_surrogates import Arctan, FastSigmoid, Sigmoid, Triangular, superspike
from modicum.spiking.surrogates import Boxcar, LeveledSurrogate, Staircase, Surrogate


def sigmoid(z):
    return (1 + np.tanh(z / 2)) / 2


def staircase(x, levels, width):
    """The nearest of the levels by search, the larger one at a tie."""
    triangle = np.maximum(0, 1 - np.abs(x) / width)
    grid = np.array([2.0**-j for j in range(levels - 1)] + [0.0])
    return grid[np.argmin(np.abs(triangle[..., None] - grid), axis=-1)] / width


# member, derivative in float64, primitive in float64 (None where it is piecewise), area
CASES = {
    "boxcar": (Boxcar(), lambda x: (np.abs(x) <= 0.5) * 1.0, None, 1.0),
    "boxcar_wide": (Boxcar(4.0), lambda x: (np.abs(x) <= 2) * 0.25, None, 1.0),
    "boxcar_high": (Boxcar(0.5, 3.0), lambda x: (np.abs(x) <= 0.25) * 3.0, None, 1.5),
    "staircase": (Staircase(), lambda x: staircase(x, 4, 1.0), None, 1.0),
    "staircase_fine": (Staircase(8, 2.0), lambda x: staircase(x, 8, 2.0), None, 1.0),
    "triangular": (Triangular(), lambda x: np.maximum(0, 1 - np.abs(x)), None, 1.0),
    "triangular_low": (Triangular(2.0, 0.3), lambda x: 0.3 * np.maximum(0, 1 - np.abs(x) / 2), None, 0.6),
    "sigmoid": (Sigmoid(), lambda x: 4 * sigmoid(4 * x) * sigmoid(-4 * x), lambda x: sigmoid(4 * x), 1.0),
    "arctan": (
        Arctan(),
        lambda x: 1 / (1 + (np.pi * x) ** 2),
        lambda x: np.arctan(np.pi * x) / np.pi,
        1.0,
    ),
    "arctan_steep": (
        Arctan(10.0),
        lambda x: 5 / (1 + (np.pi * 5 * x) ** 2),
        lambda x: np.arctan(np.pi * 5 * x) / np.pi,
        1.0,
    ),
    "fast_sigmoid": (
        FastSigmoid(),
        lambda x: 1 / (25 * np.abs(x) + 1) ** 2,
        lambda x: x / (1 + 25 * np.abs(x)),
        2 / 25,
    ),
    "superspike": (
        superspike(),
        lambda x: 1 / (100 * np.abs(x) + 1) ** 2,
        lambda x: x / (1 + 100 * np.abs(x)),
        2 / 100,
    ),
}
MEMBERS = {name: case[0] for name, case in CASES.items()}
LEVELED = {name: member for name, member in MEMBERS.items() if member.levels}
X = np.concatenate([np.linspace(-3, 3, 241), [-0.5, 0.5, 0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30]]).astype(np.float32)

every = pytest.mark.parametrize("name", CASES)


@functools.partial(jax.jit, static_argnums=0)
def derivative(member, x):
    return member.derivative(x)


def test_every_class_is_a_case():
    classes = {
        member
        for module in (surrogates, smooth_surrogates)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if dataclasses.is_dataclass(member)
    }
    assert classes == {type(member) for member in MEMBERS.values()}


@every
def test_derivative_is_the_formula(name):
    member, formula, _, _ = CASES[name]
    got = derivative(member, jnp.asarray(X))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, formula(X.astype(np.float64)), rtol=2e-5, atol=1e-30)


@every
def test_integral_is_the_primitive_and_the_area(name):
    member, _, primitive, area = CASES[name]
    # a grid that is finer near 0, where steep curves have their area
    x = np.sinh(np.linspace(-14, 14, 400_001)).astype(np.float32)
    y = np.asarray(derivative(member, jnp.asarray(x)), np.float64)
    x = x.astype(np.float64)
    pieces = (y[1:] + y[:-1]) / 2 * np.diff(x)
    assert pieces.sum() == pytest.approx(area, rel=1e-3)
    if primitive is not None:
        running = np.cumsum(pieces)[::1000]
        np.testing.assert_allclose(running, (primitive(x) - primitive(x[0]))[1::1000], atol=2e-4)


@every
def test_spikes_are_a_step(name):
    spikes = MEMBERS[name](jnp.asarray(X))
    assert spikes.dtype == jnp.float32
    np.testing.assert_array_equal(spikes, (X >= 0).astype(np.float32))
    assert float(MEMBERS[name](jnp.float32(-0.0))) == 1.0
    assert float(MEMBERS[name](jnp.float32(jnp.nan))) == 0.0


ONE_OF_EACH = ("boxcar", "staircase", "triangular", "sigmoid", "arctan", "fast_sigmoid")


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, jnp.float32) for name in CASES] + [(name, jnp.bfloat16) for name in ONE_OF_EACH]
)
def test_gradient_is_the_derivative(name, dtype):
    member, x = MEMBERS[name], jnp.asarray(X, dtype)
    want = derivative(member, x)
    assert want.dtype == dtype
    assert jax.eval_shape(member, x).dtype == dtype

    def close(got):
        # bit for bit where nothing is rounded; a compiler may round curves otherwise
        tolerance = 0 if member.levels else 1e-5 if dtype == jnp.float32 else 2e-2
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(jnp.float32), want.astype(jnp.float32), rtol=tolerance, atol=1e-30)

    @jax.jit
    def ways(x):
        ones = jnp.ones_like(x)
        return (
            jax.grad(lambda x: member(x).sum())(x),
            jax.vmap(jax.grad(member))(x),
            jax.jvp(member, (x,), (ones,))[1],
            jax.vmap(jax.vmap(member.derivative))(x[None])[0],
        )

    for got in ways(x):
        close(got)


@every
def test_second_derivatives_exist(name):
    hessian = jax.jit(jax.vmap(jax.grad(jax.grad(MEMBERS[name]))))(jnp.array([-0.3, 0.1, 0.7]))
    assert np.isfinite(hessian).all()
    if name in LEVELED:
        assert not np.asarray(hessian).any()


@every
def test_members_are_static_arguments(name):
    member = MEMBERS[name]
    twin = dataclasses.replace(member)
    assert member == twin
    assert hash(member) == hash(twin)
    assert isinstance(member, Surrogate)
    assert isinstance(member, LeveledSurrogate) == (member.levels is not None)
    step = functools.partial(jax.jit, static_argnums=0)(lambda surrogate, x: surrogate(x))
    step(member, jnp.ones(3))
    step(twin, jnp.zeros(3))
    assert step._cache_size() == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        member.width = 2.0


@pytest.mark.parametrize("name", LEVELED)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_code_holds_the_derivative(name, dtype):
    member, x = LEVELED[name], jnp.asarray(X, dtype)
    code = jax.jit(member.code)(x)
    assert code.dtype == jnp.uint8
    assert sorted(set(np.asarray(code).tolist())) == list(range(member.levels))
    decoded = jax.jit(lambda code: member.decode(code, dtype))(code)
    assert np.asarray(decoded).tobytes() == np.asarray(member.derivative(x)).tobytes()
    assert len(set(np.asarray(decoded, np.float32).tolist())) == member.levels


def test_two_stairs_are_a_boxcar():
    for width in (0.3, 1.0, 2.0):
        edge = np.float32(width / 2)
        x = jnp.asarray(np.concatenate([X, [edge, np.nextafter(edge, 9), np.nextafter(edge, 0)]]), jnp.float32)
        np.testing.assert_array_equal(Staircase(2, width).derivative(x), Boxcar(width).derivative(x))


def test_values_of_stairs_are_powers_of_two():
    for levels in range(2, 9):
        values = np.asarray(jax.jit(Staircase(levels).decode)(np.arange(levels, dtype=np.uint8)))
        assert values[0] == 0
        assert (np.frexp(values[1:])[0] == 0.5).all()
        np.testing.assert_array_equal(values[2:], 2 * values[1:-1])


@given(st.sampled_from(sorted(MEMBERS)), st.floats(-100, 100, width=32), st.floats(-100, 100, width=32))
def test_derivative_is_even_and_falls_off(name, one, other):
    member = MEMBERS[name]
    near, far = sorted((abs(one), abs(other)))
    at_near, at_minus, at_far = np.asarray(derivative(member, jnp.array([near, -near, far], jnp.float32)))
    assert at_near == at_minus
    assert 0 <= at_far <= at_near * (1 + 1e-6)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True])
@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (Boxcar, "width"),
        (Boxcar, "height"),
        (Staircase, "width"),
        (Staircase, "height"),
        (Triangular, "width"),
        (Triangular, "height"),
        (Sigmoid, "slope"),
        (Arctan, "slope"),
        (FastSigmoid, "slope"),
        (superspike, "slope"),
    ],
)
def test_bad_numbers_are_named(make, argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be .*got {value!r}$"):
        make(**{argument: value})


@pytest.mark.parametrize("levels", [1, 9, 0, True])
def test_bad_levels_are_named(levels):
    with pytest.raises(ValueError, match=r"^levels must be a whole number of at least 2 and at most 8, got"):
        Staircase(levels=levels)
