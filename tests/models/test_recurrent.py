"""GRU layers: NumPy in float64, the cell of Flax with the same weights, and the sites that compression finds."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import core
from modicum.models import GRUClassifier, GRULayer, rtmobile_gru


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(layer, frames):
    """Equations 5-8 of Cho et al., gate by gate, with the reset after the recurrent product; states in float64."""
    w, u, b, c = (
        np.float64(layer[name]) for name in ("input_kernel", "recurrent_kernel", "input_bias", "candidate_bias")
    )
    f = len(u)
    gate = {"r": slice(0, f), "z": slice(f, 2 * f), "n": slice(2 * f, 3 * f)}
    state, states = np.zeros(f), []
    for frame in frames:
        r, z = (sigmoid(frame @ w[:, gate[g]] + b[gate[g]] + state @ u[:, gate[g]]) for g in "rz")
        n = np.tanh(frame @ w[:, gate["n"]] + b[gate["n"]] + r * (state @ u[:, gate["n"]] + c))
        state = (1 - z) * n + z * state
        states.append(state)
    return np.array(states)


def test_two_layers_against_numpy(key):
    model = GRUClassifier(features=(6, 5), classes=3)
    frames = jax.random.normal(key, (11, 4))
    params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(model.init)(key, frames))
    layers = params["params"]
    states = reference(layers["GRULayer_1"], reference(layers["GRULayer_0"], np.float64(frames)))
    head = {name: np.float64(value) for name, value in layers["Dense_0"].items()}
    expected = states.mean(0) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(model.apply(params, frames), expected, rtol=1e-4, atol=1e-5)


def flax_cell(layer):
    """The parameters as `flax.linen.GRUCell` names them."""
    names, cell = ("r", "z", "n"), {}
    for i, name in enumerate(names):
        columns = slice(i * len(layer["recurrent_kernel"]), (i + 1) * len(layer["recurrent_kernel"]))
        cell[f"i{name}"] = {"kernel": layer["input_kernel"][:, columns], "bias": layer["input_bias"][columns]}
        cell[f"h{name}"] = {"kernel": layer["recurrent_kernel"][:, columns]}
    cell["hn"]["bias"] = layer["candidate_bias"]
    return {"cell": cell}


def test_a_layer_is_that_of_flax_and_so_is_its_gradient(key):
    frames, weights = jax.random.normal(key, (3, 9, 5)), jax.random.normal(jax.random.fold_in(key, 1), (3, 9, 7))
    layer, peer = GRULayer(7), nn.RNN(nn.GRUCell(7))
    params = jax.tree.map(lambda leaf: leaf + 0.05, jax.jit(layer.init)(key, frames)["params"])

    def ours(params, frames):
        return (layer.apply({"params": params}, frames) * weights).sum()

    def theirs(params, frames):
        return (peer.apply({"params": flax_cell(params)}, frames) * weights).sum()

    np.testing.assert_allclose(
        jax.jit(layer.apply)({"params": params}, frames),
        jax.jit(peer.apply)({"params": flax_cell(params)}, frames),
        atol=1e-6,
    )
    found, expected = (jax.jit(jax.grad(fn, argnums=(0, 1)))(params, frames) for fn in (ours, theirs))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_each_gate_starts_orthogonal(key):
    kernel = np.float64(GRULayer(16).init(key, jnp.zeros((2, 3)))["params"]["recurrent_kernel"])
    assert kernel.shape == (16, 48)
    for gate in np.split(kernel, 3, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(16), atol=1e-5)
    assert np.abs(kernel[:, :16] - kernel[:, 16:32]).max() > 0.1


def test_rtmobile_has_the_weights_of_the_paper():
    params = jax.eval_shape(rtmobile_gru().init, jax.random.key(0), jnp.zeros((32, 39)))["params"]
    matrices = [
        params[layer][name].size
        for layer in ("GRULayer_0", "GRULayer_1")
        for name in ("input_kernel", "recurrent_kernel")
    ]
    assert sum(matrices) == 3 * 1024 * (39 + 3 * 1024) == 9_556_992


@pytest.mark.parametrize("train", [False, True])
def test_sites_are_single_leaves(train):
    """Compression and crossbars find each matrix once, as the leaf it is, and know how often it is read."""
    model, frames = GRUClassifier(features=(8, 6)), jnp.zeros((4, 32, 39))
    params = jax.jit(model.init)(jax.random.key(0), frames)
    fun = (lambda p, x: jax.grad(lambda x: model.apply(p, x).sum())(x)) if train else model.apply
    forward = {site.name: site for site in core.sites(fun, params, frames)}
    expected = {"input_kernel": (1, 4 * 32), "recurrent_kernel": (32, 4)}
    for i, (inputs, width) in enumerate(((39, 8), (8, 6))):
        for name, (calls, rows) in expected.items():
            site = forward[f"params/GRULayer_{i}/{name}"]
            k = inputs if name == "input_kernel" else width
            assert (site.leaf, site.calls, site.macs) == (site.name, calls, rows * k * 3 * width)
    assert forward["params/Dense_0/kernel"].leaf is not None


def test_no_layer_or_an_empty_one_is_refused(key):
    with pytest.raises(ValueError, match="layers must be a whole number of at least 1, got 0"):
        GRUClassifier(features=()).init(key, jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match="features must be a whole number of at least 1, got 0"):
        GRUClassifier(features=(4, 0)).init(key, jnp.zeros((3, 4)))
