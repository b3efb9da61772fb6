"""Graphs compute what the traced functions do, hold the layers that a reader of the model expects, and name leaves."""

from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from modicum.mobile.graph import Add, Affine, Conv, Dense, Gru, Mean, Other, Pool, Reshape, fuse, run, trace
from tests.mobile.zoo import ZOO, random_variables, zoo

EXPECTED = {
    "caffe_lenet": {Conv: 2, Pool: 2, Reshape: 1, Dense: 2},
    "lenet5": {Conv: 2, Pool: 2, Reshape: 1, Dense: 3},
    "lenet5 of digits": {Conv: 2, Pool: 2, Reshape: 1, Dense: 3},
    "small_conv_net": {Conv: 3, Pool: 3, Reshape: 1, Dense: 2},
    "vgg16": {Conv: 13, Pool: 5, Reshape: 1, Dense: 1},
    "vgg16 of ImageNet": {Conv: 13, Pool: 5, Reshape: 1, Dense: 3},
    # 19 convolutions, and two shortcuts that stride and add channels
    "resnet20": {Conv: 21, Mean: 1, Dense: 1},
    "small_resnet": {Conv: 9, Mean: 1, Dense: 1},
    "resnet50": {Conv: 53, Pool: 1, Mean: 1, Dense: 1},
    "mobilenet": {Conv: 52, Mean: 1, Dense: 1},
    "gru": {Gru: 2, Mean: 1, Dense: 1},
}


def kinds(graph):
    return Counter(type(layer) for layer in graph.layers)


def assert_same(actual, expected, tolerance=1e-5):
    """Equal to so many parts of the largest output."""
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * float(jnp.abs(expected).max() + 1e-3))


def traced(fun, inputs, params=()):
    """The graph of a function, checked against it with and without fusion."""
    graph = trace(fun, params, inputs)
    expected = fun(params, inputs)
    assert_same(run(graph, inputs), expected)
    assert_same(run(fuse(graph), inputs), expected)
    assert len({layer.name for layer in graph.layers}) == len(graph.layers)
    assert all(layer.shape == expected.shape for layer in graph.layers[-1:])
    return graph


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name, key):
    fun, params, inputs = zoo(name, key)
    graph = trace(fun, params, inputs)
    fused = fuse(graph)
    expected = jax.jit(fun)(params, inputs)
    assert float(expected.std()) > 1e-2
    assert_same(jax.jit(lambda x: run(graph, x))(inputs), expected)
    assert_same(jax.jit(lambda x: run(fused, x))(inputs), expected, 1e-4)
    assert kinds(graph)[Other] == 0
    assert kinds(fused) == EXPECTED[name]
    named = [layer for layer in fused.layers if isinstance(layer, Conv | Dense) and layer.leaf]
    shortcuts = {"resnet20": 2, "small_resnet": 2}.get(name, 0)
    assert len(named) == kinds(fused)[Conv] + kinds(fused)[Dense] - shortcuts
    for layer in named:
        assert layer.name == layer.leaf
        collection, module, leaf = layer.leaf.split("/")
        np.testing.assert_array_equal(layer.weight, params[collection][module][leaf])


def test_gru_layers_name_both_kernels(key):
    fun, params, inputs = zoo("gru", key)
    first, second = (layer for layer in trace(fun, params, inputs).layers if isinstance(layer, Gru))
    assert first.leaves == ("params/GRULayer_0/input_kernel", "params/GRULayer_0/recurrent_kernel")
    assert first.name == first.leaves[0]
    assert second.inputs == (first.output,)
    weights = params["params"]["GRULayer_1"]
    for name in ("input_kernel", "recurrent_kernel", "input_bias", "candidate_bias"):
        np.testing.assert_array_equal(getattr(second, name), weights[name])


def test_gru_cells_of_flax(key):
    model, inputs = nn.RNN(nn.GRUCell(5)), jax.random.normal(key, (2, 6, 4))
    params = random_variables(jax.eval_shape(model.init, key, inputs), key)
    (layer,) = traced(model.apply, inputs, params).layers
    assert isinstance(layer, Gru)
    cell = params["params"]["cell"]
    expected = np.concatenate([cell[gate]["kernel"] for gate in ("hr", "hz", "hn")], axis=1)
    np.testing.assert_array_equal(layer.recurrent_kernel, expected)
    np.testing.assert_array_equal(layer.candidate_bias, cell["hn"]["bias"])


def gru_like(update, *, reverse=False, start=0.0):
    """A loop as `models.GRULayer` has it, with another last line."""

    def fun(params, x):
        def step(h, driven):
            returned = h @ params["u"]
            gates = nn.sigmoid(driven[:, :6] + returned[:, :6])
            r, z = gates[:, :3], gates[:, 3:]
            n = jnp.tanh(driven[:, 6:] + r * returned[:, 6:])
            h = update(z, n, h)
            return h, h

        h = jnp.full((x.shape[0], 3), start)
        _, out = lax.scan(step, h, jnp.moveaxis(x @ params["w"], 1, 0), reverse=reverse)
        return jnp.moveaxis(out, 0, 1)

    return fun


@pytest.mark.parametrize(
    ("fun", "kind"),
    [
        (gru_like(lambda z, n, h: (1 - z) * n + z * h), Gru),
        (gru_like(lambda z, n, h: n + z * (h - n)), Gru),
        (gru_like(lambda z, n, h: z * n + (1 - z) * h), Other),
        (gru_like(lambda z, n, h: (1 - z) * n + 0.999 * z * h), Other),
        (gru_like(lambda z, n, h: jnp.clip((1 - z) * n + z * h, -0.99, 0.99)), Other),
        (gru_like(lambda z, n, h: (1 - z) * n + z * h, reverse=True), Other),
        (gru_like(lambda z, n, h: (1 - z) * n + z * h, start=0.1), Other),
    ],
)
def test_only_loops_that_compute_a_gru_are_one(fun, kind, key):
    w, u, x = (jax.random.normal(part, (4, 9)) for part in jax.random.split(key, 3))
    inputs = jnp.stack([x[:, :4], x[:, 4:8]])
    graph = traced(fun, inputs, {"w": w, "u": u[:3]})
    scans = [layer for layer in graph.layers if isinstance(layer, Other) and layer.operator == "scan"]
    assert (kinds(graph)[Gru], len(scans)) == ((1, 0) if kind is Gru else (0, 1))


IMAGES = jax.random.normal(jax.random.key(7), (2, 6, 7, 4))
ROWS = 4 * jax.random.normal(jax.random.key(8), (5, 8))


@pytest.mark.parametrize(
    "relu",
    [
        jax.nn.relu,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.maximum(0, x),
        lambda x: jnp.where(x > 0, x, 0),
        lambda x: jnp.where(x < 0, 0, x),
        lambda x: jnp.where(x <= 0, 0, x),
        lambda x: jnp.where(jnp.less(0.0, x), x, 0),
        lambda x: jnp.where(jnp.greater_equal(0.0, x), 0, x),
        lambda x: lax.select(x >= 0, x, jnp.zeros_like(x)),
        lambda x: jnp.clip(x, 0),
        lambda x: jax.nn.relu(jax.nn.relu(x)),
    ],
)
@pytest.mark.parametrize("top", [None, 6, 5])
def test_relu_however_written(relu, top):
    graph = traced(lambda p, x: relu(x) if top is None else jnp.minimum(relu(x), top), ROWS)
    activations = [layer.activation for layer in graph.layers if isinstance(layer, Affine)]
    assert activations == [{None: "relu", 6: "relu6", 5: "relu"}[top]]
    assert [layer.operator for layer in graph.layers if isinstance(layer, Other)] == ["min"] * (top == 5)


@pytest.mark.parametrize(
    "relu6",
    [
        jax.nn.relu6,
        lambda x: jnp.clip(x, 0, 6),
        lambda x: jnp.maximum(jnp.minimum(x, 6), 0),
        lambda x: lax.clamp(0.0, x, 6.0),
    ],
)
def test_relu6_however_written(relu6):
    (layer,) = traced(lambda p, x: relu6(x), ROWS).layers
    assert (type(layer), layer.activation) == (Affine, "relu6")


def test_what_only_looks_like_relu_is_not():
    swapped = traced(lambda p, x: jnp.where(x > 0, 0, x), ROWS)  # min(x, 0)
    assert kinds(swapped)[Affine] == 0
    two_values = traced(lambda p, x: jnp.where(x > 0, 2 * x, 0), ROWS)
    assert all(layer.activation == "none" for layer in two_values.layers if isinstance(layer, Affine))
    leaky = traced(lambda p, x: jnp.maximum(x, 0.1 * x), ROWS)
    assert leaky.layers[-1].operator == "max"


def test_affine_forms():
    channels = jnp.arange(1.0, 9)[None]
    forms = {
        "product": lambda p, x: x * channels,
        "quotient": lambda p, x: x / channels,
        "sum": lambda p, x: channels + x,
        "difference": lambda p, x: x - channels,
        "from": lambda p, x: channels - x,
        "scalar": lambda p, x: 3 * x,
        "whole": lambda p, x: x + jnp.ones((5, 1)) * channels,
        "negative": lambda p, x: -x,
    }
    for name, form in forms.items():
        graph = traced(form, ROWS)
        assert kinds(graph) == {Affine: 1}, name
    rows = jnp.arange(5.0)[:, None]
    assert kinds(traced(lambda p, x: x * rows, ROWS)) == {Other: 1}
    assert kinds(traced(lambda p, x: channels / x, ROWS)) == {Other: 1}
    # its inverse is infinite in float32
    assert kinds(traced(lambda p, x: jnp.ceil(x) / 1e-39, ROWS * 0)) == {Other: 2}


@pytest.mark.parametrize(
    ("pool", "kind"),
    [
        (lambda x: nn.max_pool(x, (3, 2), (2, 1), padding=((1, 1), (0, 1))), "max"),
        (lambda x: nn.max_pool(x, (2, 2), (2, 2), padding="SAME"), "max"),
        (lambda x: nn.avg_pool(x, (2, 3), (2, 3)), "mean"),
        (lambda x: nn.avg_pool(x, (3, 3), (2, 2), padding="SAME", count_include_pad=False), "mean"),
        (lambda x: nn.max_pool(x, (1, 1), (2, 2)), "max"),
        (lambda x: x[:, ::2, ::3], "max"),
        (lambda x: x[:, :, :6].reshape(2, 2, 3, 3, 2, 4).max((2, 4)), "max"),
        (lambda x: x[:, :, :6].reshape(2, 2, 3, 3, 2, 4).mean((2, 4)), "mean"),
    ],
)
def test_pools(pool, kind):
    (layer,) = traced(lambda p, x: pool(x), IMAGES).layers
    assert (type(layer), layer.kind) == (Pool, kind)


@pytest.mark.parametrize(
    ("pool", "operators"),
    [
        # pads that count, a pool over channels, one whose windows are dilated, a crop of more than the rest
        (lambda x: nn.avg_pool(x, (3, 3), (2, 2), padding="SAME"), ["reduce_window_sum"]),
        (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 1, 2), (1, 1, 1, 2), "VALID"), ["reduce_window_max"]),
        (
            lambda x: lax.reduce_window(
                x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", window_dilation=(1, 2, 2, 1)
            ),
            ["reduce_window_max"],
        ),
        (lambda x: x[:, :4, :4].reshape(2, 2, 2, 2, 2, 4).max((2, 4)), ["slice"]),
        (lambda x: x[:, 1:, 1:].reshape(2, 5, 1, 3, 2, 4).max((2, 4)), ["slice"]),
        (lambda x: x[:, 1::2], ["slice"]),
        (lambda x: x.max((1, 2)), ["reduce_max"]),
        (lambda x: x.sum((1, 2)), ["reduce_sum"]),
        (lambda x: x.sum((1, 2)) / 7, ["reduce_sum"]),
        (lambda x: x.mean(3), ["reduce_sum"]),
    ],
)
def test_what_is_no_pool_or_mean(pool, operators):
    graph = traced(lambda p, x: pool(x), IMAGES)
    assert [layer.operator for layer in graph.layers if isinstance(layer, Other)] == operators


def test_means():
    assert kinds(traced(lambda p, x: x.mean((1, 2)), IMAGES)) == {Mean: 1}
    assert kinds(traced(lambda p, x: x.sum((1, 2)) * (1 / 42), IMAGES)) == {Mean: 1}
    assert kinds(traced(lambda p, x: x.mean((1, 2), keepdims=True), IMAGES)) == {Mean: 1, Reshape: 1}
    # the squeeze of a squeeze's opposite is nothing
    squeezed = traced(lambda p, x: x.mean((1, 2), keepdims=True)[:, 0, 0], IMAGES)
    assert kinds(fuse(squeezed)) == {Mean: 1}


@pytest.mark.parametrize(
    ("kernel", "specification", "strides", "padding", "groups"),
    [
        ((3, 2, 4, 5), "HWIO", (1, 1), "VALID", 1),
        ((3, 2, 4, 6), "HWIO", (2, 3), [(2, 0), (1, 1)], 1),
        ((6, 4, 3, 3), "OIHW", (1, 2), "SAME", 1),
        ((3, 3, 1, 8), "HWIO", (1, 1), "SAME", 4),
        ((3, 3, 2, 6), "HWIO", (2, 1), "SAME", 2),
    ],
)
def test_convolutions(kernel, specification, strides, padding, groups, key):
    params = {"kernel": jax.random.normal(key, kernel)}

    def fun(params, x):
        return lax.conv_general_dilated(
            x,
            params["kernel"],
            strides,
            padding,
            dimension_numbers=("NHWC", specification, "NHWC"),
            feature_group_count=groups,
        )

    (layer,) = traced(fun, IMAGES, params).layers
    assert (type(layer), layer.stride, layer.groups) == (Conv, strides, groups)
    assert layer.leaf == ("kernel" if specification == "HWIO" else None)


@pytest.mark.parametrize(
    "options",
    [
        {"rhs_dilation": (2, 1)},
        {"lhs_dilation": (1, 2), "padding": [(1, 1), (1, 1)]},
        {"padding": [(-1, 0), (0, 0)]},
        {"dimension_numbers": ("NWHC", "HWIO", "NHWC")},
        {"dimension_numbers": ("NHWC", "HWIO", "NCHW")},
        {"batch_group_count": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_unusual_convolutions_are_left_to_jax(options, key):
    kernel = jax.random.normal(key, (3, 3, 4, 6))
    options = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    graph = traced(lambda p, x: lax.conv_general_dilated(x, p, (1, 1), **options), IMAGES, kernel)
    (layer,) = graph.layers
    assert layer.operator == "conv_general_dilated"


def test_products(key):
    w = jax.random.normal(key, (8, 3))
    assert kinds(traced(lambda p, x: x @ p, ROWS, w)) == {Dense: 1}
    assert kinds(traced(lambda p, x: jnp.einsum("bi,oi->bo", x, p), ROWS, w.T)) == {Dense: 1}
    assert kinds(traced(lambda p, x: x @ p, IMAGES, w[:4])) == {Dense: 1}
    assert Dense not in kinds(traced(lambda p, x: p.T @ x.T, ROWS, w))
    assert Dense not in kinds(traced(lambda p, x: x @ x.T, ROWS))
    assert Dense not in kinds(traced(lambda p, x: jnp.einsum("bi,ijk->bjk", x, p), ROWS, jnp.ones((8, 2, 3))))


def test_leaves_by_origin(key):
    """A leaf is one by where it comes from: equal numbers do not make one, and neither does another order of them."""
    square = jax.random.normal(key, (8, 8))
    symmetric = square + square.T
    forms = {
        "as it stands": (lambda w: w, "w"),
        "there and back": (lambda w: w.T.reshape(64).reshape(8, 8).T, "w"),
        "flattened and back": (lambda w: jnp.squeeze(w.reshape(1, 64)).reshape(8, 8), "w"),
        "reordered": (lambda w: lax.reshape(w, (8, 8), dimensions=(1, 0)), None),
        "constrained": (lambda w: lax.stop_gradient(jnp.copy(w)), "w"),
        "transposed": (lambda w: w.T, None),
        "computed": (lambda w: w * 1, None),
        "rounded": (lambda w: w.astype(jnp.bfloat16).astype(jnp.float32), None),
        "copied": (lambda w: jnp.asarray(np.asarray(symmetric)), None),
    }
    for name, (form, leaf) in forms.items():
        (layer,) = traced(lambda p, x: x @ form(p["w"]), ROWS, {"w": symmetric}).layers  # noqa: B023 - called here
        assert layer.leaf == leaf, name
        assert layer.name == (leaf or "dense_1"), name
        np.testing.assert_array_equal(layer.weight, form(symmetric))


def test_a_leaf_used_twice_is_told_apart(key):
    graph = traced(lambda p, x: (x @ p["w"]) @ p["w"], ROWS, {"w": jax.random.normal(key, (8, 8))})
    assert [layer.name for layer in graph.layers] == ["w", "w#1"]
    assert [layer.leaf for layer in graph.layers] == ["w", "w"]


@pytest.mark.parametrize(
    ("fun", "operators"),
    [
        (lambda x: jnp.sort(x, axis=1), ["sort"]),
        (jnp.tanh, ["tanh"]),
        (
            nn.softmax,
            ["reduce_max", "max", "broadcast_in_dim", "sub", "exp", "reduce_sum", "broadcast_in_dim", "div"],
        ),
        (lambda x: lax.top_k(x, 3)[0], ["top_k"]),
        # both results of one operation, each an operator of its own
        (lambda x: sum(lax.sort_key_val(x, x * x)), ["mul", "sort", "sort"]),
        (lambda x: x * x.argmax(1, keepdims=True), ["argmax", "broadcast_in_dim", "convert_element_type", "mul"]),
        (lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), ["reduce_sum", "gt", "convert_element_type", "cond"]),
        (lambda x: lax.fori_loop(0, 3, lambda _, y: y * y, x), ["scan"]),
        (lambda x: x.T, ["transpose"]),
        (lambda x: x.reshape(-1, 4), ["reshape"]),
        (lambda x: x[0] + 1, ["slice", "squeeze", "add"]),
        (lambda x: x + jax.random.normal(jax.random.key(3), x.shape), ["add"]),
    ],
)
def test_other_operators_keep_their_name(fun, operators):
    graph = traced(lambda p, x: fun(x), ROWS)
    assert [layer.operator for layer in graph.layers if isinstance(layer, Other)] == operators


def test_calls_are_inlined_and_constants_computed(key):
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (g,))

    @jax.jit
    def fun(params, x):
        weight = jnp.take(params["book"], params["codes"], axis=0).reshape(8, 4)
        return jax.checkpoint(jax.nn.relu)(doubled(x @ weight))

    params = {"book": jax.random.normal(key, (4, 2)), "codes": jnp.arange(16) % 4}
    graph = traced(fun, ROWS, params)
    assert [layer.name for layer in graph.layers] == ["dense_1", "affine_1", "affine_2"]
    assert [layer.name for layer in fuse(graph).layers] == ["dense_1"]


def test_what_changes_nothing_is_dropped():
    def fun(params, x):
        x = lax.stop_gradient(jnp.copy(x)).astype(jnp.float32).reshape(x.shape)
        x = lax.optimization_barrier(jnp.transpose(x, (0, 1)))
        return jnp.broadcast_to(x, x.shape)[:, :]

    graph = traced(fun, ROWS)
    assert graph.layers == ()
    assert graph.output == graph.input


def test_a_value_read_by_a_pattern_and_by_another_stays():
    graph = traced(lambda p, x: jnp.minimum(jax.nn.relu(x), 6) + jax.nn.relu(x) * x.mean(1, keepdims=True), ROWS)
    assert sorted(layer.activation for layer in graph.layers if isinstance(layer, Affine))[-2:] == ["relu", "relu6"]


def test_no_batch_is_left_to_jax(key):
    graph = traced(lambda p, x: jax.nn.relu(x @ p), ROWS[0], jax.random.normal(key, (8, 3)))
    assert kinds(graph) == {Other: 2}


def test_shapes_stand_for_arrays(key):
    fun, params, inputs = zoo("lenet5 of digits", key)
    graph = trace(fun, params, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype))
    assert_same(run(graph, inputs), fun(params, inputs))
    with pytest.raises(ValueError, match=r"^x must have shape \(3, 8, 8, 1\), got \(2, 8, 8, 1\)"):
        run(graph, inputs[:2])


@pytest.mark.parametrize(
    ("fun", "example", "message"),
    [
        (lambda p, x: x["a"], {"a": ROWS}, r"^example must be one float32 array, got a dict with 1 leaves$"),
        (lambda p, x: x, ROWS.astype(jnp.int32), r"^example must .* got shape \(5, 8\) and dtype int32$"),
        (lambda p, x: (x, x), ROWS, r"^fun must return one float32 array, got a tuple with 2 leaves$"),
        (lambda p, x: x > 0, ROWS, r"^fun must return one float32 array, got shape \(5, 8\) and dtype bool$"),
        (lambda p, x: jnp.ones(3), ROWS, r"^fun must return an array that depends on its input, got a constant$"),
    ],
)
def test_one_float32_array_in_and_one_out(fun, example, message):
    with pytest.raises(ValueError, match=message):
        trace(fun, (), example)


def test_sums():
    assert kinds(traced(lambda p, x: x + x * 2, ROWS)) == {Affine: 1, Add: 1}
    assert kinds(traced(lambda p, x: x + x, ROWS)) == {Add: 1}
    assert kinds(traced(lambda p, x: x + x[:1], ROWS)) == {Other: 2}
    assert kinds(traced(lambda p, x: x - x * x, ROWS)) == {Other: 2}


def test_a_repeated_mean_is_no_mean():
    """The sum over the image, repeated, and then divided: more numbers than the mean has."""
    graph = traced(lambda p, x: jnp.broadcast_to(x.sum((1, 2))[:, None], (2, 3, 4)) / 42, IMAGES)
    assert "reduce_sum" in [layer.operator for layer in graph.layers if isinstance(layer, Other)]
