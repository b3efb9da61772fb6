"""`rewrite`: bit-equal under the identity rule, exact under others, honest about custom derivatives."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import core
from tests.core.nets import NETS, lenet, scanned_gru, spike, spiking_net


@pytest.fixture(params=NETS)
def net(request, key):
    if request.param == "equinox_mlp":
        pytest.importorskip("equinox")
    return NETS[request.param](key)


def assert_bit_equal(left, right):
    chex.assert_trees_all_equal_structs(left, right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def total(fun):
    return lambda params, x: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(fun(params, x)))


def test_identity_is_bit_equal(net):
    fun, params, x = net
    assert_bit_equal(core.rewrite(fun, core.identity_rule)(params, x), fun(params, x))


def test_identity_is_bit_equal_under_jit(net):
    fun, params, x = net
    assert_bit_equal(jax.jit(core.rewrite(fun, core.identity_rule))(params, x), jax.jit(fun)(params, x))


def test_identity_is_bit_equal_under_grad(net, request):
    fun, params, x = net
    if "with_while" in request.node.name:
        pytest.skip("JAX has no reverse mode for while loops")
    rewritten = core.rewrite(fun, core.identity_rule)
    assert_bit_equal(jax.jit(jax.grad(total(rewritten)))(params, x), jax.jit(jax.grad(total(fun)))(params, x))
    assert_bit_equal(jax.grad(total(rewritten))(params, x), jax.grad(total(fun))(params, x))


def test_identity_is_bit_equal_under_vmap(net):
    fun, params, x = net
    stacked = jnp.stack([x, 2 * x, -x])
    rewritten = jax.vmap(core.rewrite(fun, core.identity_rule), in_axes=(None, 0))
    assert_bit_equal(rewritten(params, stacked), jax.vmap(fun, in_axes=(None, 0))(params, stacked))


def test_identity_is_bit_equal_under_vmap_over_parameters(net):
    fun, params, x = net
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * 0.5]), params)
    rewritten = jax.vmap(core.rewrite(fun, core.identity_rule), in_axes=(0, None))
    assert_bit_equal(rewritten(stacked, x), jax.vmap(fun, in_axes=(0, None))(stacked, x))


def test_forward_mode_agrees(key):
    fun, params, x = spiking_net(key)
    tangent = jax.tree.map(jnp.ones_like, params)
    ours = jax.jvp(lambda p: core.rewrite(fun, core.identity_rule)(p, x), (params,), (tangent,))
    theirs = jax.jvp(lambda p: fun(p, x), (params,), (tangent,))
    assert_bit_equal(ours, theirs)


def test_surrogate_gradient_survives(key):
    """Without the surrogate the gradient through a Heaviside step would be exactly zero."""
    fun, params, x = spiking_net(key)
    gradient = jax.grad(total(core.rewrite(fun, core.identity_rule)))(params, x)
    assert float(jnp.abs(gradient["hidden"]).max()) > 1e-3


def test_rule_sees_every_site_and_replaces_it(key):
    fun, params, x = lenet(key)
    halved = jax.tree.map(lambda leaf: leaf * 0.5 if leaf.ndim > 1 else leaf, params)
    result = core.rewrite(fun, lambda site, w, inputs: site.apply(w * 0.5, inputs))(params, x)
    np.testing.assert_allclose(result, fun(halved, x), rtol=1e-5, atol=1e-6)


def test_rule_in_a_scan_matches_changed_weights(key):
    fun, params, x = scanned_gru(key)
    quantize = lambda w: jnp.round(w * 4) / 4  # noqa: E731
    changed = jax.tree.map(lambda leaf: quantize(leaf) if leaf.ndim > 1 else leaf, params)
    result = core.rewrite(fun, lambda site, w, inputs: site.apply(quantize(w), inputs))(params, x)
    np.testing.assert_allclose(result, fun(changed, x), rtol=1e-5, atol=1e-6)


def test_gradient_flows_through_a_custom_rule(key):
    """Finite differences in float64-sized steps of a smooth rule."""
    fun, params, x = lenet(key)
    rewritten = total(core.rewrite(fun, lambda site, w, inputs: site.apply(jnp.tanh(w), inputs)))
    gradient = jax.grad(rewritten)(params, x)
    direction = jax.tree.map(lambda leaf: jax.random.normal(key, leaf.shape), params)
    shifted = [jax.tree.map(lambda a, d, s=sign: a + s * 1e-3 * d, params, direction) for sign in (1, -1)]
    numeric = (rewritten(shifted[0], x) - rewritten(shifted[1], x)) / 2e-3
    analytic = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(numeric, analytic, rtol=2e-2)


def test_nested_rewrites_compose(key):
    fun, params, x = lenet(key)
    double = lambda site, w, inputs: 2 * site.apply(w, inputs)  # noqa: E731
    once = core.rewrite(fun, lambda site, w, inputs: 4 * site.apply(w, inputs))(params, x)
    np.testing.assert_allclose(core.rewrite(core.rewrite(fun, double), double)(params, x), once, rtol=1e-6)


def test_keyword_and_pytree_arguments():
    def fun(params, batch, *, scale):
        return {"y": batch["x"] @ params * scale}

    rewritten = core.rewrite(fun, core.identity_rule)
    batch = {"x": jnp.arange(6.0).reshape(2, 3)}
    assert_bit_equal(rewritten(jnp.eye(3), batch, scale=2.0), fun(jnp.eye(3), batch, scale=2.0))


@pytest.mark.parametrize("wrong", [lambda y: y[:1], lambda y: y.astype(jnp.bfloat16), lambda y: None])
def test_rule_with_another_shape_or_dtype_is_refused(wrong):
    rewritten = core.rewrite(lambda w, x: x @ w, lambda site, w, x: wrong(site.apply(w, x)))
    with pytest.raises(ValueError, match=r"rule must return shape \(2, 3\) and dtype float32 for site"):
        rewritten(jnp.eye(3), jnp.ones((2, 3)))


def _custom_vjp_block():
    @jax.custom_vjp
    def block(w, x):
        return jnp.tanh(x @ w)

    block.defvjp(lambda w, x: (block(w, x), (w, x)), lambda kept, g: kept)
    return block


def _custom_jvp_block():
    @jax.custom_jvp
    def block(w, x):
        return jnp.tanh(x @ w)

    block.defjvp(lambda primals, tangents: (block(*primals), tangents[1]))
    return block


@pytest.mark.parametrize(("make", "kind"), [(_custom_vjp_block, "custom_vjp"), (_custom_jvp_block, "custom_jvp")])
def test_site_inside_a_custom_derivative(make, kind):
    """Forward it is rewritten; for training it is refused in one sentence."""
    block = make()
    rewritten = core.rewrite(lambda w, x: block(w["dense"], x), core.identity_rule)
    w, x = {"dense": jnp.eye(3)}, jnp.ones((2, 3))
    assert_bit_equal(rewritten(w, x), block(w["dense"], x))
    with pytest.raises(ValueError, match=f"site dense lies inside a {kind} and cannot be rewritten for training"):
        jax.grad(total(rewritten))(w, x)


def test_custom_vjp_without_sites_keeps_its_rule():
    @jax.custom_vjp
    def loud(x):
        return x

    loud.defvjp(lambda x: (x, None), lambda _, g: (100 * g,))
    fun = lambda w, x: loud(x @ w).sum()  # noqa: E731
    gradient = jax.grad(core.rewrite(fun, core.identity_rule))(jnp.eye(2), jnp.ones((1, 2)))
    np.testing.assert_array_equal(gradient, np.full((2, 2), 100.0))


def test_second_call_compiles_nothing(key):
    fun, params, x = spiking_net(key)
    traces = []

    def counting(p, v):
        traces.append(1)
        return core.rewrite(fun, core.identity_rule)(p, v)

    jitted = jax.jit(counting)
    jitted(params, x)
    jitted(params, x + 1)
    assert len(traces) == 1


def test_integer_and_key_arguments_pass_through(key):
    def fun(params, x, seed, n):
        noise = jax.random.normal(seed, x.shape)
        return (x + noise) @ params * n

    x = jnp.ones((2, 3))
    assert_bit_equal(core.rewrite(fun, core.identity_rule)(jnp.eye(3), x, key, 3), fun(jnp.eye(3), x, key, 3))


def test_spike_function_is_a_step():
    np.testing.assert_array_equal(spike(jnp.array([-1.0, 0.0, 2.0])), [0, 0, 1])
