"""`sites`: what is found, what is not, under which name, and how many operations it takes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modicum import core
from tests.core.nets import NETS, controlled, equinox_mlp, lenet, nnx_mlp, scanned_gru, spiking_net, with_while


def names(fun, params, *args):
    return [site.name for site in core.sites(fun, params, *args)]


def test_lenet_sites(key):
    fun, params, x = lenet(key)
    found = core.sites(fun, params, x)
    assert [site.name for site in found] == [
        "params/Conv_0/kernel",
        "params/Conv_1/kernel",
        "params/Dense_0/kernel",
        "params/Dense_1/kernel",
        "params/Dense_2/kernel",
    ]
    assert [site.primitive for site in found] == ["conv_general_dilated"] * 2 + ["dot_general"] * 3
    assert all(site.leaf == site.name and site.calls == 1 for site in found)
    # 14x14 and 5x5 pooled maps; same padding of the first convolution drops the taps outside 28x28.
    inside = sum(0 <= y + dy - 2 < 28 for y in range(28) for dy in range(5))
    assert found[0].macs == 2 * 6 * inside**2
    assert found[1].macs == 2 * 10 * 10 * 16 * 25 * 6
    assert [site.macs for site in found[2:]] == [2 * 400 * 120, 2 * 120 * 84, 2 * 84 * 10]


def test_scanned_gru_sites(key):
    found = core.sites(*scanned_gru(key))
    assert sorted(site.name.split("/")[-2] for site in found) == ["hn", "hr", "hz", "in", "ir", "iz"]
    assert all(site.calls == 7 for site in found)
    assert sum(site.macs * site.calls for site in found) == 7 * 2 * 3 * 12 * (5 + 12)


def test_nnx_and_equinox_sites(key):
    assert [site.macs for site in core.sites(*nnx_mlp(key))] == [4 * 6 * 8, 4 * 8 * 3]
    assert all("kernel" in name for name in names(*nnx_mlp(key)))
    pytest.importorskip("equinox")
    found = core.sites(*equinox_mlp(key))
    assert [site.macs for site in found] == [5 * 4 * 8, 5 * 8 * 8, 5 * 8 * 3]
    assert [site.leaf for site in found] == ["layers/0/weight", "layers/1/weight", "layers/2/weight"]


def test_spiking_sites(key):
    assert [(site.name, site.calls, site.macs) for site in core.sites(*spiking_net(key))] == [
        ("hidden", 9, 4 * 6 * 16),
        ("out", 9, 4 * 16 * 3),
    ]


def test_control_flow(key):
    found = {site.name: site for site in core.sites(*controlled(key))}
    assert set(found) == {"jit", "remat", "yes", "no", "stack"}
    assert found["stack"].calls == 3
    assert found["stack"].leaf is None, "a slice of a stacked leaf is not the leaf"
    assert found["yes"].leaf == "yes"


def test_data_dependent_loop(key):
    found = {site.name: site for site in core.sites(*with_while(key))}
    assert set(found) == {"test", "body"}
    assert found["test"].calls is None
    assert found["body"].calls is None


def test_while_inside_scan_has_unknown_calls():
    def fun(w, x):
        def body(c, _):
            return jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: v @ w, c), None

        return jax.lax.scan(body, x, None, length=4)[0]

    assert [site.calls for site in core.sites(fun, jnp.eye(2), jnp.ones((1, 2)))] == [None]


@pytest.mark.parametrize(
    ("fun", "expected"),
    [
        (lambda p, x: x @ p["a"].T, ["a"]),
        (lambda p, x: x @ p["a"].reshape(4, 4).astype(jnp.bfloat16).astype(jnp.float32), ["a"]),
        (lambda p, x: x @ jnp.tanh(p["a"]), [None]),
        (lambda p, x: x @ (p["a"] + p["b"]), [None]),
        (lambda p, x: x @ (p["a"] @ p["b"]), [None]),
        (lambda p, x: x @ jnp.eye(4), []),
        (lambda p, x: (x @ x.T) @ x, []),
        (lambda p, x: x @ (p["a"] * x.mean()), []),
        (lambda p, x: x @ p["a"] @ p["b"], ["a", "b"]),
        (lambda p, x: p["a"] @ p["b"] + 0 * x[:4], []),
    ],
)
def test_what_is_a_site(fun, expected):
    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4))}
    assert [site.leaf for site in core.sites(fun, params, jnp.ones((8, 4)))] == expected


def test_names_are_unique_and_joined():
    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4))}
    fun = lambda p, x: x @ p["a"] @ (p["a"] + p["b"]) @ p["a"].T  # noqa: E731
    assert names(fun, params, jnp.ones((2, 4))) == ["a", "a+b", "a#1"]


def test_weight_carried_by_a_loop_becomes_data():
    """A carry that starts as a parameter but mixes with data is data after the first turn."""

    def mixed(w, x):
        return jax.lax.scan(lambda c, v: (c + v.sum(), v @ c), w, x)[1]

    def kept(w, x):
        return jax.lax.scan(lambda c, v: (c * 0.5, v @ c), w, x)[1]

    x = jnp.ones((3, 2, 4))
    assert names(mixed, jnp.eye(4), x) == []
    assert names(kept, jnp.eye(4), x) == [""]


def test_a_weight_chosen_by_data_is_data():
    def fun(p, x):
        chosen = jax.lax.cond(x.sum() > 0, lambda: p["a"], lambda: p["b"])
        return x @ chosen

    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4))}
    assert names(fun, params, jnp.ones((2, 4))) == []


def test_a_weight_chosen_by_a_parameter_is_a_parameter():
    def fun(p, x):
        return x @ jax.lax.cond(p["gate"] > 0, lambda: p["a"], lambda: p["b"])

    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4)), "gate": jnp.ones(())}
    (site,) = core.sites(fun, params, jnp.ones((2, 4)))
    assert site.leaf is None


def test_attention_products_between_data_are_no_sites(key):
    model = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)
    x = jax.random.normal(key, (1, 5, 8))
    found = names(model.apply, model.init(key, x), x)
    assert sorted(name.split("/")[-2] for name in found) == ["key", "out", "query", "value"]


def test_shapes_serve_instead_of_arrays(key):
    fun, params, x = lenet(key)
    shapes = jax.eval_shape(lambda: (params, x))
    assert names(fun, *shapes) == names(fun, params, x)


def flops(fun, *args):
    """What XLA's own analysis of the unoptimized program counts."""
    analysis = jax.jit(fun).lower(*args).cost_analysis()
    return float(analysis.get("flops", 0.0))


@pytest.mark.parametrize("name", [name for name in NETS if name not in ("controlled", "with_while")])
def test_macs_equal_xla_cost_analysis(name, key):
    """Flops of the net, less those of the net with its sites taken out, are two per MAC."""
    if name == "equinox_mlp":
        pytest.importorskip("equinox")
    fun, params, x = NETS[name](key)
    found = core.sites(fun, params, x)
    # A broadcast of one element costs nothing and, unlike a constant, is not folded away with what follows it.
    without = core.rewrite(fun, lambda site, w, v: jnp.broadcast_to(v.ravel()[0] + w.ravel()[0], site.output.shape))
    # XLA counts the body of a loop once: so does the sum without the trip counts.
    ours = sum(site.macs for site in found)
    theirs = (flops(fun, params, x) - flops(without, params, x)) / 2
    np.testing.assert_allclose(ours, theirs, rtol=0.01)


def test_calls_equal_an_unrolled_loop(key):
    """Trip counts times MACs against XLA's count of the same net without a loop."""
    fun, params, x = spiking_net(key)

    products = lambda p, current: [(current[t] @ p["hidden"]) @ p["out"] for t in range(9)]  # noqa: E731
    ours = sum(site.macs * site.calls for site in core.sites(fun, params, x))
    np.testing.assert_allclose(ours, flops(products, params, x) / 2, rtol=0.01)


@given(
    size=st.integers(3, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    low=st.integers(0, 3),
    high=st.integers(0, 3),
    lhs_dilation=st.integers(1, 2),
    rhs_dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
)
@settings(max_examples=60)
def test_convolution_macs_equal_xla(size, kernel, stride, low, high, lhs_dilation, rhs_dilation, groups):
    spread = (size - 1) * lhs_dilation + 1 + low + high
    if (kernel - 1) * rhs_dilation + 1 > spread:
        return

    def fun(w, x):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (stride, 1),
            [(low, high), (1, 1)],
            lhs_dilation=(lhs_dilation, 1),
            rhs_dilation=(rhs_dilation, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    w, x = jnp.ones((kernel, 3, 4 // groups, 6)), jnp.ones((2, size, 5, 4))
    (site,) = core.sites(fun, w, x)
    assert site.macs == flops(fun, w, x) / 2
