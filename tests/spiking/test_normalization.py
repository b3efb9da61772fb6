"""Batch normalization over time: against float64 NumPy, one gradient in all modes, statistics, folding, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import models
from modicum.spiking import Layer, Normalized, activity_report, batch_moments, fold, init, multi_step, networks
from modicum.spiking.populations import LIF
from modicum.spiking.synapses import Convolution, Dense
from modicum.train import DataConfig, Experiment, OptimizerConfig, train

LAYERS = (
    Layer(Normalized(synapse=Convolution(features=4), gain=1.5), LIF(leak=0.5), over_time=True),
    Layer(Normalized(synapse=Convolution(features=6, pool=2)), LIF(leak=0.5), over_time=True),
    Layer(Normalized(synapse=Dense(features=8, pool=2)), LIF(leak=0.5), over_time=True),
    Layer(Dense(features=3, bias=True)),
)
IMAGES = jax.random.normal(jax.random.key(0), (5, 8, 8, 2))


def params():
    """Scales and shifts away from their initial values, that their gradients count."""
    entries = init(jax.random.key(1), LAYERS, IMAGES.shape[1:])
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), entries)


def test_the_chain_starts_alike_alone_and_in_a_classifier():
    model = networks.SpikingClassifier(LAYERS, steps=3, order="layer")
    made = model.init(jax.random.key(1), IMAGES)["params"]
    alone = init(jax.random.key(1), LAYERS, IMAGES.shape[1:])
    for number, entry in enumerate(alone):
        assert jax.tree.map(jnp.shape, made[f"layer_{number}"]["synapse"]) == jax.tree.map(jnp.shape, entry["synapse"])


def convolved(images, kernel):
    """SAME, stride 1, in float64."""
    images, kernel = np.asarray(images, np.float64), np.asarray(kernel, np.float64)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def test_currents_against_numpy():
    layer, entry = LAYERS[0], params()[0]["synapse"]
    sequence = jax.random.normal(jax.random.key(3), (4, 5, 8, 8, 2)) * 3 + 1
    raw = convolved(sequence.reshape(20, 8, 8, 2), entry["synapse"]["kernel"])
    mean, var = raw.mean((0, 1, 2)), raw.var((0, 1, 2))
    wanted = (raw - mean) / np.sqrt(var + 1e-5) * np.asarray(entry["scale"]) + np.asarray(entry["shift"])
    apply = jax.jit(lambda entry: layer.synapse(layer.synapse.prepare(entry), sequence))
    got = apply(entry)
    np.testing.assert_allclose(got.reshape(20, 8, 8, 4), wanted, atol=2e-5)
    # stored moments in place of the batch's
    stored = {**entry, "mean": jnp.arange(4.0), "var": jnp.arange(4.0) + 0.5}
    wanted = (raw - np.arange(4)) / np.sqrt(np.arange(4) + 0.5 + 1e-5) * np.asarray(entry["scale"])
    got = apply(stored).reshape(20, 8, 8, 4)
    np.testing.assert_allclose(got, wanted + np.asarray(entry["shift"]), atol=5e-5)


def gradient(residuals, entries):
    def loss(entries):
        outputs, _ = multi_step(LAYERS, entries, IMAGES, residuals=residuals, order="layer", steps=3)
        return jnp.sum(outputs**2) + jnp.sum(jnp.sin(outputs))

    return jax.jit(jax.value_and_grad(loss))(entries)


@pytest.mark.parametrize("residuals", ["packed", "remat"])
def test_one_gradient_in_all_modes(residuals):
    (wanted, wanted_gradient), (got, got_gradient) = (gradient(mode, params()) for mode in ("autodiff", residuals))
    assert wanted == pytest.approx(float(got), rel=1e-6)
    flat = jax.tree.leaves(wanted_gradient)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in flat)
    for one, other in zip(flat, jax.tree.leaves(got_gradient), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(one).max()))


def test_gradient_of_the_normalized_current_by_finite_differences():
    """Smooth where no neuron fires: a layer whose output is its current."""
    from jax.test_util import check_grads

    layer = Layer(Normalized(synapse=Dense(features=3)), over_time=True)
    entry = layer.synapse.init(jax.random.key(0), (4,))
    sequence = jax.random.normal(jax.random.key(1), (2, 6, 4))
    target = jax.random.normal(jax.random.key(2), (2, 6, 3))

    def loss(entry):
        entry = jax.tree.map(jnp.asarray, entry)
        outputs, _ = multi_step(
            (layer,), ({"synapse": entry, "neuron": ()},), sequence, residuals="packed", order="layer"
        )
        return jnp.sum(target * outputs)

    check_grads(loss, (entry,), 1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_statistics_are_those_of_the_batch_and_folding_changes_nothing():
    entries = params()
    found = jax.jit(lambda entries: batch_moments(LAYERS, entries, IMAGES, steps=3))(entries)

    def outputs_of(layers, entries, order="layer"):
        return jax.jit(lambda entries: multi_step(layers, entries, IMAGES, order=order, steps=3)[0])(entries)

    raw = convolved(IMAGES, entries[0]["synapse"]["synapse"]["kernel"])
    np.testing.assert_allclose(found[0]["mean"], raw.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(found[0]["var"], raw.var((0, 1, 2)), rtol=1e-5)
    used = [
        {**entry, "synapse": {**entry["synapse"], **found[number]}} if number in found else entry
        for number, entry in enumerate(entries)
    ]
    outputs = outputs_of(LAYERS, used)
    np.testing.assert_allclose(outputs, outputs_of(LAYERS, entries), atol=1e-5)
    layers, plain = fold(LAYERS, entries, found)
    assert not any(layer.over_time for layer in layers)
    for order in ("time", "layer"):
        np.testing.assert_allclose(outputs_of(layers, plain, order), outputs, atol=1e-5)
    # what counts operations step by step takes the folded chain, and no other
    assert all(0 < row.spike_rate < 1 for row in activity_report(layers, plain, IMAGES, steps=3)[:-1])
    with pytest.raises(ValueError, match="synapse of layer 0 must look at one step"):
        activity_report(LAYERS, used, IMAGES, steps=3)


def test_a_classifier_calibrates_and_learns(tmp_path):
    model = networks.spiking_lenet(widths=(16, 32), normalize="batch", gain=2.0, steps=2)
    config = Experiment(
        data=DataConfig(name="digits"), model=model, optimizer=OptimizerConfig(learning_rate=1e-2), epochs=10, batch=64
    )
    result = train(config, tmp_path)
    assert result.summary["test_accuracy"] > 0.93
    variables = result.state.params
    assert set(variables["batch_stats"]) == {"layer_0", "layer_1"}
    again = models.calibrate(model, variables, [jnp.ones((4, 8, 8, 1)) * jnp.arange(4.0)[:, None, None, None]])
    assert not np.allclose(again["batch_stats"]["layer_0"]["mean"], variables["batch_stats"]["layer_0"]["mean"])
    # at work an image's logits do not depend on its neighbours; in training they do
    images = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    np.testing.assert_allclose(model.apply(variables, images)[:2], model.apply(variables, images[:2]), atol=1e-6)
    trained = models.apply_training(model)
    assert not np.allclose(trained(variables, images)[:2], trained(variables, images[:2]), atol=1e-6)


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: Normalized(synapse=Dense(features=2, bias=True)), "synapse must have bias=False in a Normalized"),
        (lambda: Normalized(synapse=Dense(features=2), epsilon=0.0), "epsilon must be"),
        (lambda: networks.spiking_lenet(normalize="layer"), "normalize must be one of"),
        (lambda: fold(LAYERS, params(), {}), "statistics must hold those of layer"),
        (
            lambda: multi_step(LAYERS, params(), IMAGES, residuals="packed", steps=2),
            "order must be 'layer' where a synapse looks over time",
        ),
    ],
)
def test_refusals(act, sentence):
    with pytest.raises(ValueError, match=sentence):
        act()
