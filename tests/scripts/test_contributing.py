"""The skeletons of CONTRIBUTING.md are whole: each is run as it stands there, and does what its contract asks."""

import itertools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import analog, core, spiking, train

ROOT = Path(__file__).parents[2]


def block(title):
    """The first Python block under a heading."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split(f"## {title}\n")[1]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)


def names(title):
    found = {}
    exec(block(title), found)
    return found


def test_a_constraint():
    binary = names("A new constraint")["Binary"](0.5)
    assert isinstance(binary, core.Constraint)
    w = jnp.array([[0.3, -0.2, 0.0], [-0.9, 0.6, 4.0]])
    nearest = binary.project(w)
    choices = np.array(list(itertools.product((-0.5, 0.5), repeat=w.size))).reshape(-1, *w.shape)
    distances = ((choices - np.asarray(w)[None]) ** 2).sum((1, 2))
    assert float(((nearest - w) ** 2).sum()) == pytest.approx(distances.min())
    assert binary.violation(nearest) == 0 < binary.violation(w)
    assert float(binary.gain(w)) == pytest.approx(float((w**2).sum()) - distances.min(), rel=1e-5)
    theta, build = binary.chart(w)
    np.testing.assert_array_equal(build(theta + 1), nearest)
    packed = jax.jit(binary.encode)(w)
    np.testing.assert_array_equal(jax.jit(binary.decode)(packed), nearest)
    # six signs, and a scale
    assert packed.nbytes == core.Bytes(1, 0, 4)


def test_a_device():
    spread = names("A new device")["spread"]
    rng = np.random.default_rng(0)
    weights, inputs = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((64, 48), (5, 64)))

    def fun(params, x):
        return x @ params

    key = jax.random.key(0)
    ideal = analog.simulate(fun, spread(sigma=0.0))(key, weights, inputs)
    np.testing.assert_allclose(ideal, inputs @ weights, rtol=1e-5, atol=1e-5)
    chip = analog.simulate(fun, spread(sigma=0.2))(key, weights, jnp.eye(64))
    factors = np.asarray(chip / weights) - 1
    # 3,072 factors: the deviation is known to 1.3%
    assert factors.std() == pytest.approx(0.2, rel=0.06)
    assert factors.std() != pytest.approx(0.15, rel=0.06)
    report = analog.report(fun, spread(), weights, inputs)
    assert report.total.energy_joules == pytest.approx(5 * 64 * 48 * 1e-14)
    with pytest.raises(ValueError, match="sigma must not be below 0, got -1"):
        spread(sigma=-1)


def test_a_neuron():
    neuron = names("A new neuron")["Halving"]()
    layers = (spiking.Layer(spiking.Dense(features=3), neuron),)
    inputs = jnp.asarray(np.random.default_rng(0).standard_normal((6, 2, 4)), jnp.float32)
    params = spiking.init(jax.random.key(1), layers, inputs.shape[2:])
    modes = ("autodiff", "remat", "sqrt")
    spikes = [np.asarray(spiking.multi_step(layers, params, inputs, residuals=mode)[0]) for mode in modes]
    # the recurrence in float64, driven by the same currents
    (held,) = (leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2)
    bias = sum(np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params) if leaf.shape == (3,))
    potential, expected = np.zeros((2, 3)), []
    for step in np.asarray(inputs, np.float64):
        potential = potential / 2 + step @ np.asarray(held, np.float64) + bias
        expected.append((potential >= 1).astype(float))
        potential = potential - expected[-1]
    assert 0 < np.mean(expected) < 1
    for found in spikes:
        np.testing.assert_array_equal(found, np.array(expected))


def test_a_config(tmp_path):
    path = tmp_path / "digits_small.py"
    path.write_text(block("A new config"))
    config = train.parse_overrides(train.load_config(path), ["steps=2", "model.widths=2,2"])
    result = train.train(config, tmp_path / "run")
    assert result.summary["steps"] == 2
