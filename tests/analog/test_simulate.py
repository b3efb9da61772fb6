"""Whole networks on chips: exact when ideal, one key one chip, trainable."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modicum import core
from modicum.analog import CrossbarSpec, crossbar, program, read, simulate, site_key
from tests.core.nets import equinox_mlp, scanned_gru, spiking_net

# Powers of two, so that every product of steps and every float32 below is exact.
WEIGHT_STEP, INPUT_STEP = 2.0**-5, 2.0**-6
IDEAL = CrossbarSpec(weight_bits=6, input_bits=8, adc_bits=None, weight_scale=WEIGHT_STEP, input_scale=INPUT_STEP)
NOISY = CrossbarSpec(fragment=4, weight_bits=4, input_bits=4, adc_bits=3, sigma=0.1, input_format="unsigned")


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3), use_bias=False)(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(6, (3, 3), strides=2, padding="VALID", feature_group_count=2, use_bias=False)(x))
        return nn.Dense(3, use_bias=False)(x.reshape(x.shape[0], -1))


def cnn(key):
    inputs = jax.random.normal(key, (2, 8, 8, 2))
    return Cnn().apply, Cnn().init(key, inputs), inputs


def quantized(values, step, largest):
    return np.clip(np.rint(np.asarray(values, np.float64) / step), -largest, largest).astype(np.int64)


def numpy_conv(codes, kernel, stride, groups, pad):
    """Integer NHWC x HWIO convolution by its definition."""
    codes = np.pad(codes, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width, channels, features = kernel.shape
    places = [(codes.shape[axis] - kernel.shape[axis - 1]) // stride + 1 for axis in (1, 2)]
    out = np.zeros((codes.shape[0], *places, features), np.int64)
    for row, column, feature in np.ndindex(*places, features):
        first = feature // (features // groups) * channels
        window = codes[
            :, row * stride : row * stride + height, column * stride : column * stride + width, first : first + channels
        ]
        out[:, row, column, feature] = (window * kernel[..., feature]).sum(axis=(1, 2, 3))
    return out


@pytest.mark.parametrize("adc", [{}, {"adc_bits": 4, "adc_mode": "flip"}], ids=["ideal", "exact adc"])
def test_ideal_chip_is_the_integer_network(key, adc):
    fun, params, images = cnn(key)
    got = jax.jit(simulate(fun, crossbar(IDEAL, **adc)))(key, params, images)
    kernels = [params["params"][name]["kernel"] for name in ("Conv_0", "Conv_1", "Dense_0")]
    first, second, third = (quantized(kernel, WEIGHT_STEP, 31) for kernel in kernels)
    step = np.float32(WEIGHT_STEP * INPUT_STEP)

    x = numpy_conv(quantized(images, INPUT_STEP, 255), first, 1, 1, 1) * step
    x = np.maximum(x, 0).reshape(2, 4, 2, 4, 2, 4).max(axis=(2, 4))
    x = np.maximum(numpy_conv(quantized(x, INPUT_STEP, 255), second, 2, 2, 0) * step, 0)
    x = (quantized(x.reshape(2, -1), INPUT_STEP, 255) @ third) * step
    np.testing.assert_array_equal(np.asarray(got, np.float64), x)
    assert np.abs(x - np.asarray(fun(params, images))).max() > 1e-3  # quantization is visible


def test_one_key_is_one_chip_and_vmap_a_loop(key):
    fun, params, images = cnn(key)
    chip = jax.jit(simulate(fun, crossbar(NOISY)))
    keys = jax.random.split(key, 3)
    apart = np.stack([chip(k, params, images) for k in keys])
    np.testing.assert_array_equal(apart[0], chip(keys[0], params, images))
    assert len({row.tobytes() for row in apart}) == 3
    together = jax.jit(jax.vmap(simulate(fun, crossbar(NOISY)), in_axes=(0, None, None)))(keys, params, images)
    np.testing.assert_array_equal(np.asarray(together), apart)


def test_scanned_gru_keeps_its_chip(key):
    fun, params, sequence = scanned_gru(key)
    got = jax.jit(simulate(fun, crossbar(NOISY, input_format="signed")))(key, params, sequence)
    # step by step in Python, each leaf on a chip that is programmed once
    spec = CrossbarSpec(**{**vars(NOISY), "input_format": "signed"})
    chips = {}
    for site in core.sites(fun, params, sequence):
        programming, _ = jax.random.split(site_key(key, site))
        weight = core.leaves_by_path(params)[site.leaf]
        chips[site.leaf.split("/")[-2]] = program(programming, weight, spec)
    assert set(chips) == {"ir", "iz", "in", "hr", "hz", "hn"}
    cell = params["params"]["cell"]

    def gate(name, vectors):
        return read(key, chips[name], vectors, spec) + cell[name].get("bias", jnp.zeros(12))[None]

    h, states = jnp.zeros((2, 12)), []
    for x in jnp.swapaxes(sequence, 0, 1):
        r = nn.sigmoid(gate("ir", x) + gate("hr", h))
        z = nn.sigmoid(gate("iz", x) + gate("hz", h))
        h = (1.0 - z) * jnp.tanh(gate("in", x) + r * gate("hn", h)) + z * h
        states.append(h)
    np.testing.assert_allclose(got, jnp.stack(states, 1), atol=1e-5)
    assert np.abs(np.asarray(got - fun(params, sequence))).max() > 1e-3


def test_two_sites_on_one_leaf_share_a_chip(key):
    weights = jax.random.normal(key, (8, 4))
    noisy = simulate(lambda w, x: (x @ w, x @ w), crossbar(NOISY))
    first, second = noisy(key, weights, jax.random.normal(key, (3, 8)))
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    pair = {"a": weights, "b": weights}
    rough = simulate(lambda p, x: (x @ p["a"], x @ p["b"]), crossbar(NOISY, sigma=0.5))
    first, second = rough(key, pair, jnp.ones((3, 8)))
    assert np.abs(np.asarray(first - second)).max() > 0


def test_a_function_picks_the_device_of_each_site(key):
    weights = {"a": 0.25 * jnp.array([[3.0], [-2.0]]), "b": 0.1 * jnp.array([[5.0], [4.0]])}
    scales = {"a": 0.25, "b": 0.1}
    inputs = jnp.array([[3.0, 1.0]])

    def fun(params, x):
        return x @ params["a"], x @ params["b"], x @ params["a"].T[:, :1] if x.shape[1] == 1 else x @ params["a"]

    def device(site):
        if site.leaf == "b":
            return None
        return crossbar(weight_bits=4, input_bits=4, adc_bits=None, weight_scale=scales[site.leaf], input_scale=1.0)

    on_chip, digital, _ = simulate(fun, device)(key, weights, inputs)
    np.testing.assert_array_equal(np.asarray(on_chip), [[1.75]])
    np.testing.assert_array_equal(np.asarray(digital), np.asarray(inputs @ weights["b"]))


def test_training_on_a_chip_repairs_it(key):
    # one chip with rough weights; straight-through training adapts the network to that chip
    first, second = jax.random.split(key)
    inputs = jax.random.normal(first, (64, 8))
    labels = (inputs[:, 0] * inputs[:, 1] > 0).astype(jnp.int32)
    params = {"a": 0.5 * jax.random.normal(first, (8, 16)), "b": 0.5 * jax.random.normal(second, (16, 2))}
    chip = simulate(lambda p, x: nn.relu(x @ p["a"]) @ p["b"], crossbar(NOISY, input_format="signed", sigma=0.3))

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(chip(key, params, inputs), labels).mean()

    optimizer = optax.adam(0.02)

    @jax.jit
    def train(params):
        def step(carry, _):
            value, gradient = jax.value_and_grad(loss)(carry[0])
            updates, state = optimizer.update(gradient, carry[1])
            return (optax.apply_updates(carry[0], updates), state), value

        return jax.lax.scan(step, (params, optimizer.init(params)), length=150)[1]

    losses = np.asarray(train(params))
    assert losses[0] > 0.6
    assert losses[-10:].mean() < 0.5 * losses[0]


@pytest.mark.parametrize("net", [equinox_mlp, spiking_net], ids=lambda net: net.__name__)
def test_any_jax_function_runs_on_a_fine_chip(key, net):
    if net is equinox_mlp:
        pytest.importorskip("equinox")
    fun, params, inputs = net(key)
    fine = crossbar(adc_bits=None, weight_bits=16, weight_scale="max", input_bits=14)
    for got, expected in zip(
        jax.tree.leaves(simulate(fun, fine)(key, params, inputs)), jax.tree.leaves(fun(params, inputs)), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=5e-3)


def test_output_keeps_the_programs_dtype(key):
    weights = jnp.ones((8, 2), jnp.bfloat16)
    assert simulate(lambda w, x: x @ w, crossbar())(key, weights, jnp.ones((3, 8), jnp.bfloat16)).dtype == jnp.bfloat16


def test_steps_of_a_loop_draw_their_own_read_noise(key):
    weights = jnp.ones((8, 64))
    steps = jnp.stack([jnp.full((1, 8), 1.0), jnp.full((1, 8), 2.0), jnp.full((1, 8), 1.0)])
    device = crossbar(adc_bits=None, weight_bits=4, input_bits=4, read_noise=0.5, input_format="unsigned")

    def looped(w, x):
        return jax.lax.map(lambda step: step @ w, x)

    noisy, quiet = (
        jax.jit(simulate(looped, crossbar(device.spec, read_noise=noise)))(key, weights, steps) for noise in (0.5, 0)
    )
    # each step is scaled to its own largest input: noise in units of codes doubles with it
    noise = np.asarray(noisy - quiet)[:, 0] / np.array([[1.0], [2.0], [1.0]])
    np.testing.assert_allclose(noise[0], noise[2], rtol=1e-4, atol=1e-5)
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.4
    assert noise[0].std() > 0
