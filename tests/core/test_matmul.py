"""`matmul_form`: every site as a matrix product, against the operator itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum import core
from tests.core.nets import lenet, scanned_gru


def check(site, w, x):
    form = core.matmul_form(site)

    @jax.jit
    def looked_at(w, x):
        matrix = form.weight(w)
        return matrix, form.inputs(x), site.apply(w, x), form.weight_back(matrix)

    matrix, rows, expected, back = looked_at(w, x)
    assert matrix.shape == (form.groups, form.rows, form.columns)
    assert rows.shape == (form.groups, form.batch, form.rows)
    product = np.einsum("gbk,gkn->gbn", np.asarray(rows, np.float64), np.asarray(matrix, np.float64))
    ours = jax.jit(form.output)(product.astype(np.float32))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(back, w)


@pytest.mark.parametrize("net", [lenet, scanned_gru])
def test_networks(net, key):
    fun, params, x = net(key)
    for site in core.sites(fun, params, x):
        first, second = jax.random.split(key)
        check(site, jax.random.normal(first, site.weight.shape), jax.random.normal(second, site.inputs.shape))


@given(
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 3)),
    lhs_dilation=st.integers(1, 2),
    rhs_dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    layout=st.sampled_from([("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("NHWC", "OIHW", "NCHW")]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_any_convolution(stride, pads, lhs_dilation, rhs_dilation, groups, layout, seed):
    numbers = jax.lax.conv_dimension_numbers((2, 8, 8, 8), (8, 8, 8, 8), layout)
    shapes = {"N": 2, "H": 7, "W": 6, "C": 4}, {"H": 3, "W": 2, "I": 4 // groups, "O": 8}

    def fun(w, x):
        return jax.lax.conv_general_dilated(
            x,
            w,
            stride,
            [pads, pads],
            lhs_dilation=(lhs_dilation, 1),
            rhs_dilation=(1, rhs_dilation),
            dimension_numbers=numbers,
            feature_group_count=groups,
        )

    x_shape = tuple(shapes[0][letter] for letter in layout[0])
    w_shape = tuple(shapes[1][letter] for letter in layout[1])
    rng = np.random.default_rng(seed)
    w, x = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (w_shape, x_shape))
    (site,) = core.sites(fun, w, x)
    check(site, w, x)


@given(
    spec=st.sampled_from(
        [
            "bi,io->bo",
            "io,bi->bo",
            "bthd,hdo->bto",
            "hij,bhj->bhi",
            "bhj,hij->bhi",
            "ij,bcj->bci",
            "gi,gio->go",
            "i,i->",
        ]
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=24)
def test_any_dot(spec, seed):
    left, right = spec.split("->")[0].split(",")
    sizes = dict(zip("bcdghijot", (2, 3, 4, 5, 3, 6, 4, 7, 2), strict=True))
    rng = np.random.default_rng(seed)
    arrays = [jnp.asarray(rng.normal(size=[sizes[axis] for axis in side]), jnp.float32) for side in (left, right)]
    weight = 0 if "b" not in left and len(left) >= len(right) else 1
    if "b" in right:
        weight = 0
    fun = lambda w, x: jnp.einsum(spec, *((w, x) if weight == 0 else (x, w)))  # noqa: E731
    (site,) = core.sites(fun, arrays[weight], arrays[1 - weight])
    first, second = (jnp.asarray(rng.normal(size=s.shape), jnp.float32) for s in (site.weight, site.inputs))
    check(site, first, second)


def test_rows_run_kernel_major():
    """Row `i * kh * kw + y * kw + x`, as crossbar fragments and patterns expect."""
    w = jnp.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    fun = lambda p, x: jax.lax.conv_general_dilated(  # noqa: E731
        x, p, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    (site,) = core.sites(fun, w, jnp.ones((1, 6, 6, 4)))
    matrix = core.matmul_form(site).weight(w)
    for channel, y, x, out in np.ndindex(4, 2, 3, 5):
        assert matrix[0, channel * 6 + y * 3 + x, out] == w[y, x, channel, out]


def test_integers_stay_exact(key):
    x = jax.random.randint(key, (2, 5, 5, 3), 0, 2**30)
    fun = lambda p, v: jax.lax.conv_general_dilated(  # noqa: E731
        v, p, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    (site,) = core.sites(fun, jnp.ones((3, 3, 3, 2)), jnp.ones(x.shape))
    patches = core.matmul_form(site).inputs(x)
    assert patches.dtype == jnp.int32
    assert int(patches.max()) == int(x.max())


def test_unsupported_convolutions_are_refused():
    def by_batch(w, x):
        return jax.lax.conv_general_dilated(x, w, (1,), [(0, 0)], batch_group_count=2)

    (site,) = core.sites(by_batch, jnp.ones((4, 3, 2)), jnp.ones((4, 3, 5)))
    with pytest.raises(ValueError, match="batch_group_count 1 to become a matrix product, got 2"):
        core.matmul_form(site)

    def kernel_is_data(w, x):
        return jax.lax.conv_general_dilated(w, x, (1,), [(0, 0)])

    (site,) = core.sites(kernel_is_data, jnp.ones((4, 3, 5)), jnp.ones((4, 3, 2)))
    with pytest.raises(ValueError, match="must have its weight as the convolution kernel"):
        core.matmul_form(site)


def test_gradient_passes_through_the_form(key):
    fun, params, x = lenet(key)

    def product(site, w, inputs):
        form = core.matmul_form(site)
        return form.output(jnp.einsum("gbk,gkn->gbn", form.inputs(inputs), form.weight(w)))

    ours = jax.grad(lambda p: jnp.sum(jnp.sin(core.rewrite(fun, product)(p, x))))(params)
    theirs = jax.grad(lambda p: jnp.sum(jnp.sin(fun(p, x))))(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
