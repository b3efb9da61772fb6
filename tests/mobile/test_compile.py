"""A compiled network says what the function says, and bad input gives one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import mobile
from modicum.core import leaves_by_path
from tests.mobile.members import Grid, Largest, kernels, projected
from tests.mobile.nets import NETS, conv_net

DENSE = (lambda p, x: x @ p["w"] + p["b"][None]), {"w": jnp.eye(3), "b": jnp.ones(3)}, jnp.ones((2, 3))


def assert_trees_close(actual, expected, tolerance=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for path, leaf in leaves_by_path(actual).items():
        other = leaves_by_path(expected)[path]
        assert leaf.dtype == other.dtype
        np.testing.assert_allclose(leaf, other, rtol=0, atol=tolerance, err_msg=path)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", ["fixed", "any"])
def test_equals_the_function(name, batch, key):
    if name == "equinox_mlp":
        pytest.importorskip("equinox")
    fun, params, inputs = NETS[name](key)
    params, constraints = projected(params, kernels)
    compiled = mobile.compile(fun, params, inputs, constraints=constraints, batch=batch)
    reference = jax.jit(fun)
    assert_trees_close(compiled(inputs), reference(params, inputs))
    assert_trees_close(jax.jit(compiled)(inputs), reference(params, inputs))
    assert "custom_call" not in compiled.stablehlo()
    for size in (1, 7) if batch == "any" else ():
        resized = jax.tree.map(lambda x, size=size: jnp.resize(x, (size, *x.shape[1:])) * 0.5, inputs)
        assert_trees_close(compiled(resized), reference(params, resized))
        # the portable form too, not only the function it came from
        assert_trees_close(compiled.exported.call(resized), reference(params, resized))


def test_packed_leaves_are_what_the_constraints_encode(key):
    fun, params, inputs = conv_net(key)
    params, constraints = projected(params, kernels)
    packed = mobile.compile(fun, params, inputs, constraints=constraints).packed
    leaves = leaves_by_path(params)
    assert list(packed) == list(leaves)
    assert {path: leaf.layout for path, leaf in packed.items()} == {
        "params/Conv_0/bias": "dense",
        "params/Conv_0/kernel": "grid8",
        "params/Conv_1/bias": "dense",
        "params/Conv_1/kernel": "grid8",
        "params/Dense_0/bias": "dense",
        "params/Dense_0/kernel": "bitmask",
    }
    np.testing.assert_array_equal(packed["params/Conv_0/bias"].payload["values"], leaves["params/Conv_0/bias"])
    decoded = Largest(k=640).decode(packed["params/Dense_0/kernel"])
    np.testing.assert_array_equal(decoded, leaves["params/Dense_0/kernel"])


def test_constraints_may_be_a_function_of_the_parameters(key):
    fun, params, inputs = conv_net(key)
    params, constraints = projected(params, kernels)
    by_function = mobile.compile(fun, params, inputs, constraints=lambda p: projected(p, kernels)[1])
    assert by_function.module == mobile.compile(fun, params, inputs, constraints=constraints).module


def test_no_constraints_and_shapes_alone():
    fun, params, inputs = DENSE
    compiled = mobile.compile(fun, params, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype))
    np.testing.assert_array_equal(compiled(inputs), fun(params, inputs))
    empty = mobile.compile(lambda p, x: 2 * x, {}, inputs)
    np.testing.assert_array_equal(empty(inputs), 2 * inputs)
    assert empty.report().total.packed.total == 0


def test_numpy_and_python_leaves():
    params = {"w": np.eye(3), "scale": 2.0, "shift": np.float32(1), "steps": np.arange(3)}

    def fun(p, x):
        return x @ p["w"] * p["scale"] + p["shift"] + p["steps"][None]

    inputs = np.ones((2, 3))  # float64, which jit takes as float32
    compiled = mobile.compile(fun, params, inputs)
    np.testing.assert_array_equal(compiled(inputs), np.ones((2, 3)) * 2 + 1 + np.arange(3))


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ({"target": "aarch64"}, "target must be one of 'host', 'aarch64-linux', 'aarch64-android', got 'aarch64'"),
        ({"threads": 0}, "threads must be a whole number of at least 1 and at most 64, got 0"),
        ({"kernels": "c"}, "kernels must be one of 'auto', 'native', 'xla', got 'c'"),
        ({"tuning_seconds": -1.0}, "tuning_seconds must not be below 0"),
        ({"batch": "some"}, "batch must be one of 'fixed', 'any', got 'some'"),
    ],
)
def test_unknown_options_are_refused(argument, sentence):
    with pytest.raises(ValueError, match=sentence):
        mobile.compile(*DENSE, **argument)


def test_weights_outside_their_set_are_refused():
    fun, params, inputs = DENSE
    outside = {**params, "w": params["w"] + 0.3}
    constraints = {"w": Grid(scale=0.5), "b": None}
    mobile.compile(fun, params, inputs, constraints=constraints)
    with pytest.raises(ValueError, match=r"^params must be members of their .* got violation 0\.\d+ at 'w'"):
        mobile.compile(fun, outside, inputs, constraints=constraints)


def test_a_slightly_violated_set_is_refused():
    fun, params, inputs = DENSE
    nearly = {**params, "w": params["w"].at[0, 1].set(1e-6)}
    with pytest.raises(ValueError, match="got violation"):
        mobile.compile(fun, nearly, inputs, constraints={"w": Grid(scale=0.5), "b": None})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("constrained", [True, False])
def test_numbers_that_are_not_finite_are_refused(bad, constrained):
    fun, params, inputs = DENSE
    broken = {**params, "w": params["w"].at[1, 2].set(bad)}
    constraints = {"w": Grid(scale=0.5), "b": None} if constrained else None
    with pytest.raises(ValueError, match=r"params leaf 'w' must be finite, got 1 NaN .* index \(1, 2\)"):
        mobile.compile(fun, broken, inputs, constraints=constraints)


def test_a_constraint_that_loses_bits_is_refused():
    class Lossy(Grid):
        def decode(self, packed):
            return super().decode(packed) * 1.0000001

    fun, params, inputs = DENSE
    with pytest.raises(ValueError, match="constraints must decode what they encode"):
        mobile.compile(fun, params, inputs, constraints={"w": Lossy(scale=0.5), "b": None})


@pytest.mark.parametrize(
    ("constraints", "sentence"),
    [
        ({"w": "topk", "b": None}, "constraints must hold constraints or None, got 'topk' at 'w'"),
        (
            {"w": None, "v": Grid(scale=1.0)},
            "constraints must be a tree like params, None for dense leaves, got: ",
        ),
        ({"w": Grid(scale=1.0)}, "constraints must be a tree like params"),
        (Grid(scale=1.0), "constraints must be a tree like params"),
        ({"w": {"deeper": Grid(scale=1.0)}, "b": None}, "constraints must hold constraints or None, got {'deeper'"),
    ],
)
def test_constraints_that_do_not_fit_the_tree_are_refused(constraints, sentence):
    with pytest.raises(ValueError, match=sentence):
        mobile.compile(*DENSE, constraints=constraints)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"w": "text"}, "params must hold arrays, got str at 'w'"),
        ({"w": jax.random.key(0)}, "params must hold arrays of numbers, got dtype key"),
        ({"w/v": 1.0, "w": {"v": 2.0}}, "params must have one path per leaf"),
    ],
)
def test_parameters_that_are_not_numbers_are_refused(params, sentence):
    with pytest.raises(ValueError, match=sentence):
        mobile.compile(lambda p, x: x, params, jnp.ones(2))


def test_traced_parameters_are_refused():
    fun, params, inputs = DENSE
    with pytest.raises(ValueError, match="params must be concrete numbers, got a traced value at 'b'"):
        jax.jit(lambda p: mobile.compile(fun, p, inputs)(inputs))(params)


def test_the_models_own_error_stays_as_it_is():
    with pytest.raises(TypeError, match="contracting"):
        mobile.compile(lambda p, x: x @ p["w"].T[:2], DENSE[1], DENSE[2])


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (jnp.ones((2, 4)), r"x must have shape \(2, 3\) and dtype float32, got \(2, 4\) and float32"),
        (jnp.ones(3), r"x must have shape \(2, 3\) and dtype float32, got \(3,\) and float32"),
        (jnp.ones((2, 3), int), r"x must have shape \(2, 3\) and dtype float32, got \(2, 3\) and int32"),
        ({"image": jnp.ones((2, 3))}, "x must have the arrays x and no others"),
        (None, "x must have the arrays x and no others"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, sentence):
    with pytest.raises(ValueError, match=sentence):
        mobile.compile(*DENSE)(x)


def test_inputs_that_do_not_fit_a_free_batch_are_refused(key):
    fun, params, inputs = NETS["two_in_two_out"](key)
    compiled = mobile.compile(fun, params, inputs, batch="any")
    with pytest.raises(ValueError, match=r"x/image must have shape \(any, 5\) and dtype float32, got \(3, 4\)"):
        compiled({**inputs, "image": jnp.ones((3, 4))})
    with pytest.raises(ValueError, match="x must have one batch of at least 1 in all arrays, got 3 and 4"):
        compiled({**inputs, "offset": jnp.ones(4)})
    with pytest.raises(ValueError, match="x must have one batch of at least 1 in all arrays, got 0"):
        compiled({"image": jnp.ones((0, 5)), "offset": jnp.ones(0)})


def test_a_free_batch_needs_a_batch():
    with pytest.raises(ValueError, match="example must have a batch axis"):
        mobile.compile(lambda p, x: x, {}, jnp.float32(1), batch="any")
    with pytest.raises(ValueError, match=r"batch='any'\), got: Cannot divide evenly"):
        mobile.compile(lambda p, x: x.reshape(2, -1), {}, jnp.ones((2, 3)), batch="any")
