"""Fusion: what is folded and what must not be, the arithmetic of scales, random chains of convolutions."""

from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from modicum.mobile.graph import Add, Affine, Conv, Dense, Graph, Other, Pool, Reshape, fuse, run, trace

IMAGES = jax.random.normal(jax.random.key(7), (2, 5, 6, 4))
KERNELS = jax.random.normal(jax.random.key(8), (4, 3, 3, 4, 4)) / 6
SCALE, SHIFT = (jax.random.normal(key, (1, 1, 1, 4)) for key in jax.random.split(jax.random.key(9)))


def conv(kernel, x):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def fused(fun, inputs=IMAGES, params=KERNELS):
    """The fused graph, checked against the function."""
    graph = fuse(trace(fun, params, inputs))
    expected = fun(params, inputs)
    np.testing.assert_allclose(run(graph, inputs), expected, rtol=0, atol=1e-5 * (1 + float(jnp.abs(expected).max())))
    readable = {graph.input}
    for layer in graph.layers:
        assert readable.issuperset(layer.inputs), "a layer reads what is not there yet"
        readable.add(layer.output)
    return graph


def kinds(graph):
    return [type(layer) for layer in graph.layers]


def test_scales_are_combined_in_float64():
    """Factors whose product in float32 would round three times round once."""
    factors = [jnp.full((1, 1, 1, 4), value, jnp.float32) for value in (1.1, 0.7, 1.3)]

    def fun(k, x):
        x = conv(k[0], x)
        for factor in factors:
            x = x * factor + SHIFT
        return x

    (layer,) = fused(fun).layers
    first, second, third = (np.asarray(factor, np.float64)[0, 0, 0] for factor in factors)
    shift = np.asarray(SHIFT, np.float64)[0, 0, 0]
    # products of two round to float32 before the third, as each fold leaves a layer of float32
    np.testing.assert_array_equal(layer.scale, ((first * second).astype(np.float32) * third).astype(np.float32))
    np.testing.assert_allclose(layer.bias, (shift * second + shift) * third + shift, rtol=3e-7)
    np.testing.assert_array_equal(layer.weight, KERNELS[0])


def test_a_bias_alone_leaves_no_scale():
    (layer,) = fused(lambda k, x: jax.nn.relu6(conv(k[0], x) + SHIFT)).layers
    assert layer.scale is None
    assert layer.activation == "relu6"
    np.testing.assert_array_equal(layer.bias, SHIFT[0, 0, 0])


@pytest.mark.parametrize(
    ("fun", "expected"),
    [
        # after a convolution, a product, another affine; activations of each, and of a sum
        (lambda k, x: jax.nn.relu((conv(k[0], x) - SHIFT) * SCALE), [Conv]),
        (lambda k, x: jax.nn.relu((x @ k[0, 0, 0]) * SCALE + SHIFT), [Dense]),
        (lambda k, x: jax.nn.relu((x - SHIFT) * SCALE + 1), [Affine]),
        (lambda k, x: jax.nn.relu(x * x.sum()[None, None, None, None] + x), [Other, Other, Other, Add]),
        # nothing can take in what follows an activation, or an affine of a sum
        (lambda k, x: jax.nn.relu(conv(k[0], x)) * SCALE, [Conv, Affine]),
        (lambda k, x: jax.nn.relu6(jax.nn.relu(conv(k[0], x)) * SCALE), [Conv, Affine]),
        (lambda k, x: (conv(k[0], x) + x) * SCALE, [Conv, Affine]),
        # before a convolution an affine stays
        (lambda k, x: conv(k[0], x * SCALE + SHIFT), [Affine, Conv]),
        # a residual, its activation, and a second one that finds no place
        (lambda k, x: jax.nn.relu(x + conv(k[0], x) * SCALE), [Conv]),
        (lambda k, x: conv(k[0], x) + x + jnp.abs(x), [Conv, Other, Add]),
        (lambda k, x: jax.nn.relu(conv(k[0], x)) + x, [Conv, Add]),
        (lambda k, x: conv(k[0], x) + conv(k[1], x), [Conv, Conv]),
        (lambda k, x: (y := conv(k[0], x)) + y, [Conv, Add]),
        # the value before the fold is read twice
        (lambda k, x: (y := conv(k[0], x)) * SCALE + jnp.abs(y), [Conv, Affine, Other, Add]),
        (lambda k, x: (y := conv(k[0], x)) + jnp.abs(y), [Conv, Other, Add]),
        # reshapes in a row, and there and back
        (lambda k, x: x.reshape(2, 30, 4).reshape(2, 120), [Reshape]),
        (lambda k, x: conv(k[0], x).reshape(2, 30, 4).reshape(2, 5, 6, 4) + SHIFT, [Conv]),
        (lambda k, x: conv(k[0], x).reshape(2, 120).reshape(2, 5, 6, 4), [Conv]),
        (lambda k, x: x.reshape(2, 120).reshape(2, 5, 6, 4), []),
        # a pool keeps what lies before it and after it apart
        (lambda k, x: jax.nn.relu(nn.max_pool(conv(k[0], x), (2, 2))) + SHIFT, [Conv, Pool, Affine, Affine]),
    ],
)
def test_what_is_folded_and_what_is_not(fun, expected):
    assert kinds(fused(fun)) == expected


def test_the_later_convolution_adds():
    for swapped in (False, True):

        def fun(k, x):
            early, late = conv(k[1], x), conv(k[0], jnp.abs(x))
            return late + early if swapped else early + late  # noqa: B023 - called in this turn

        first, _, second = fused(fun).layers
        assert second.inputs[1] == first.output
        np.testing.assert_array_equal(second.weight, KERNELS[0])


def test_a_convolution_before_another_residual_waits_for_it():
    """The residual is made after the convolution: the layer moves behind it."""
    graph = fused(lambda k, x: conv(k[0], x) + jnp.abs(x * 2))
    assert kinds(graph) == [Affine, Other, Conv]


def test_the_output_is_never_folded_away():
    """A value that goes out and is read as well, as a graph by hand has it."""
    graph = trace(lambda k, x: conv(k[0], x) * SCALE, KERNELS, IMAGES)
    first, _ = graph.layers
    early = Graph(graph.input, graph.input_shape, first.output, graph.layers)
    assert kinds(fuse(early)) == [Conv, Affine]
    np.testing.assert_array_equal(run(fuse(early), IMAGES), run(early, IMAGES))


def test_fusing_twice_changes_nothing():
    graph = fused(lambda k, x: jax.nn.relu(conv(k[1], jax.nn.relu(conv(k[0], x) * SCALE)) + x))
    again = fuse(graph)
    assert [layer.name for layer in again.layers] == [layer.name for layer in graph.layers]
    np.testing.assert_array_equal(run(again, IMAGES), run(graph, IMAGES))


STEPS = st.one_of(
    st.tuples(
        st.just("conv"),
        st.sampled_from([1, 3]),  # side of the kernel
        st.sampled_from([(1, 1), (2, 1)]),
        st.sampled_from(["SAME", "VALID"]),
        st.sampled_from([1, 2, 4]),  # groups
    ),
    st.tuples(st.sampled_from(["scale", "shift", "relu", "relu6", "add", "abs", "flat"])),
)


def chain(steps, values_read, x):
    """A network of such steps; each reads some earlier value, a sum adds another of its shape."""
    values = [x]
    for number, ((kind, *options), (back, other)) in enumerate(zip(steps, values_read, strict=True)):
        y = values[-1 - back % min(len(values), 2)]
        if kind == "conv":
            side, stride, padding, groups = options
            padding = padding if min(y.shape[1:3]) >= side else "SAME"
            kernel = KERNELS[number % 4, :side, :side, : 4 // groups]
            y = lax.conv_general_dilated(
                y, kernel, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
            )
        elif kind == "add":
            fitting = [value for value in values if value.shape == y.shape]
            y = y + fitting[other % len(fitting)]
        else:
            y = {
                "scale": lambda y: y * SCALE,
                "shift": lambda y: y - SHIFT,
                "relu": jax.nn.relu,
                "relu6": jax.nn.relu6,
                "abs": jnp.abs,
                "flat": lambda y: y.reshape(2, -1, 4).reshape(y.shape),
            }[kind](y)
        values.append(y)
    return values[-1]


@settings(max_examples=40)
@given(st.lists(st.tuples(STEPS, st.tuples(st.integers(0, 5), st.integers(0, 5))), min_size=2, max_size=9))
def test_random_chains(plan):
    steps, values_read = zip(*plan, strict=True)
    graph = fused(lambda _, x: chain(steps, values_read, x) + 0.0)
    readers = Counter(name for layer in graph.layers for name in layer.inputs)
    made = {layer.output: layer for layer in graph.layers}
    for layer in graph.layers:
        # whatever could be folded was
        if isinstance(layer, Affine) and isinstance(made.get(layer.inputs[0]), Conv | Affine):
            before = made[layer.inputs[0]]
            residual = len(before.inputs) > 1
            assert readers[before.output] > 1 or before.activation != "none" or residual
