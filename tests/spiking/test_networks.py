"""Spiking classifiers: shapes, parameters, one result in all modes, codes, refusals, and that they learn."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.spiking import networks
from modicum.spiking.adaptive import ParametricLIF
from modicum.spiking.circle import Carry
from modicum.spiking.classifier import ClockedDense, SpikingClassifier
from modicum.spiking.fixed_point import FixedPointLIF
from modicum.spiking.layers import Layer
from modicum.spiking.populations import IF, LIF
from modicum.spiking.smooth_surrogates import Arctan
from modicum.spiking.synapses import Dense
from modicum.spiking.unrolled import multi_step
from modicum.train import (
    DataConfig,
    Experiment,
    OptimizerConfig,
    classification_loss,
    describe,
    flatten,
    parse_overrides,
    train,
)

NEURONS = {
    "lif": (LIF(leak=0.5), ("autodiff", "packed")),
    "arctan": (LIF(leak=0.5, surrogate=Arctan()), ("autodiff", "sqrt")),
    "carry": (Carry(), ("autodiff", "packed", "reversible")),
    "fixed point": (FixedPointLIF(), ("autodiff", "reversible")),
}
IMAGES = {"mnist": (28, 28, 1), "cifar": (32, 32, 3), "nmnist": (6, 34, 34, 2)}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(model, shape):
    inputs = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    return jax.eval_shape(lambda inputs: model.init_with_output(jax.random.key(0), inputs), inputs)


@pytest.mark.parametrize(
    ("build", "data", "parameters"),
    [
        (networks.spiking_lenet, "mnist", 34_906),
        (networks.event_convnet, "nmnist", 23_978),
        (networks.spiking_convnet, "cifar", 101_194),
        (networks.spiking_vgg9, "cifar", 5_943_242),
        (networks.spiking_vgg11, "cifar", 9_754_698),
        (networks.sequential_mlp, "mnist", 25_482),
    ],
)
def test_builders_have_the_documented_size(build, data, parameters):
    logits, variables = shapes(build(), IMAGES[data])
    assert logits.shape == (3, 10)
    assert count(variables["params"]) == parameters
    assert f"{parameters:,} parameters" in build.__doc__
    model = build(Carry(), classes=7, residuals="reversible")
    assert model.classes == 7
    assert shapes(model, IMAGES[data])[0].shape == (3, 7)
    assert all(layer.neuron == Carry() for layer in model.layers[:-1])


@pytest.mark.parametrize(
    ("build", "data", "neurons"),
    [
        (networks.spiking_lenet, "mnist", 7_056),
        (networks.event_convnet, "nmnist", 11_264),
        (networks.spiking_convnet, "cifar", 14_336),
        (networks.spiking_vgg9, "cifar", 246_784),
        (networks.spiking_vgg11, "cifar", 152_576),
    ],
)
def test_builders_have_the_documented_neurons(build, data, neurons):
    model = build(residuals="autodiff")
    total = []

    @dataclasses.dataclass(frozen=True)
    class Counting(LIF):
        def init_state(self, shape):
            total.append(int(np.prod(shape)) // 3)
            return super().init_state(shape)

    layers = tuple(
        Layer(layer.synapse, Counting()) if isinstance(layer.neuron, LIF) else layer for layer in model.layers
    )
    model = dataclasses.replace(model, layers=layers)
    jax.eval_shape(model.apply, shapes(model, IMAGES[data])[1], jnp.zeros((3, *IMAGES[data])))
    # once for init, once for apply
    assert sum(total) == 2 * neurons
    assert f"{neurons:,} neurons" in build.__doc__


def test_parameters_are_a_plain_dict_by_layer(key):
    layers = (Layer(Dense(features=5, bias=True), ParametricLIF()), Layer(Dense(features=3)))
    model = SpikingClassifier(layers, steps=3, residuals="autodiff")
    params = model.init(key, jnp.ones((2, 4, 4, 1)))["params"]
    assert set(params) == {"layer_0", "layer_1"}
    assert set(params["layer_0"]) == {"synapse", "neuron"}
    assert params["layer_0"]["synapse"]["kernel"].shape == (16, 5)
    assert set(params["layer_1"]) == {"synapse"}
    # what the neurons train has a gradient, too
    gradient = jax.grad(lambda params: model.apply({"params": params}, jnp.ones((2, 4, 4, 1))).sum())(params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)


def test_logits_are_the_mean_over_time_of_multi_step(key):
    layers = networks.chain(LIF(leak=0.5), (), (2,), (6,), 3)
    model = SpikingClassifier(layers, steps=5)
    images = jax.random.normal(key, (2, 4, 4, 1))
    variables = model.init(key, images)
    params = [{"neuron": (), **variables["params"][f"layer_{number}"]} for number in range(len(layers))]
    outputs, _ = multi_step(layers, params, images, steps=5)
    np.testing.assert_allclose(model.apply(variables, images), outputs.mean(0), rtol=1e-6)


def gradients(model, variables, batch):
    loss = classification_loss(model.apply)
    return jax.jit(jax.value_and_grad(lambda variables: loss(variables, batch)[0]))(variables)


@pytest.mark.parametrize("name", NEURONS)
def test_one_result_in_all_modes(name, key):
    """On a grid of weights, and of images: sums are exact, and each mode sees the same bits."""
    neuron, modes = NEURONS[name]
    images = jnp.round(16 * jax.random.normal(key, (4, 8, 8, 1))) / 16
    batch = images, jnp.arange(4) % 3
    # few layers: compiling their gradients takes most of the time
    widths = ((4,), (1, 2), ()) if name == "lif" else ((), (2,), (6, 5))
    layers = networks.chain(neuron, *widths, 3, gain=2.0, grid_bits=8)
    model = SpikingClassifier(layers, steps=5, residuals="autodiff")
    variables = model.init(key, images)
    loss, expected = gradients(model, variables, batch)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(expected["params"]["layer_0"]))
    for settings in ({"residuals": residuals} for residuals in modes[1:]):
        other, gradient = gradients(dataclasses.replace(model, **settings), variables, batch)
        assert float(other) == pytest.approx(float(loss), rel=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient, expected)


def test_events_are_any_whole_or_floating_counts(key):
    events = jax.random.poisson(key, 2.0, (2, 3, 34, 34, 2)).astype(jnp.uint8)
    model = networks.event_convnet(widths=(4,), residuals="autodiff")
    variables = jax.jit(model.init)(key, events)
    apply = jax.jit(model.apply)
    logits = apply(variables, events)
    np.testing.assert_array_equal(logits, apply(variables, events.astype(jnp.float32)))
    # the border of one pixel is not looked at
    np.testing.assert_array_equal(logits, apply(variables, events.at[:, :, 0].set(9).at[:, :, :, -1].set(9)))
    assert np.any(logits != apply(variables, events[:, ::-1]))
    plain = SpikingClassifier((Layer(Dense(features=3)),), code="events", residuals="autodiff")
    sequence = jax.random.normal(key, (2, 5, 4))
    variables = plain.init(key, sequence)
    expected = sequence.mean(1) @ variables["params"]["layer_0"]["synapse"]["kernel"]
    np.testing.assert_allclose(plain.apply(variables, sequence), expected, rtol=1e-5)


def seen(model, inputs):
    """What goes in at each step."""
    spikes, steps = model.bind({})._encoded(inputs)
    return spikes if steps is None else jnp.broadcast_to(spikes, (steps, *spikes.shape))


def test_pixels_come_row_by_row_with_a_clock():
    images = jnp.arange(12.0).reshape(2, 3, 2, 1)
    layers = (Layer(Dense(features=3)),)
    plain = seen(SpikingClassifier(layers, code="pixels"), images)
    np.testing.assert_array_equal(plain[:, 1, 0], np.arange(6, 12))
    timed = seen(SpikingClassifier(layers, code="pixels", clock=True), images)
    assert timed.shape == (6, 2, 1 + 2)
    np.testing.assert_array_equal(timed[..., :1], plain)
    np.testing.assert_array_equal(timed[3, 0], [3, 1, 1])
    # the pixels of colored images keep their channels
    assert seen(SpikingClassifier(layers, code="pixels"), jnp.zeros((2, 3, 2, 3))).shape == (6, 2, 3)


def test_a_clocked_synapse_sees_ones_for_row_and_column(key):
    clocked = ClockedDense(features=4, rows=3, columns=2, bias=True)
    params = clocked.init(key, (1 + 2,))
    assert params["kernel"].shape == (1 + 3 + 2, 4)
    spikes = jnp.array([[0.5, 2, 1], [-1.0, 0, 0]])
    spread = jnp.array([[0.5, 0, 0, 1, 0, 1], [-1.0, 1, 0, 0, 1, 0]])
    dense = Dense(features=4, bias=True)
    np.testing.assert_array_equal(clocked(params, spikes), dense(params, spread))
    cotangent = jax.random.normal(key, (2, 4))
    ours, theirs = (synapse.pull(params, values, cotangent) for synapse, values in ((clocked, spikes), (dense, spread)))
    jax.tree.map(np.testing.assert_array_equal, ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], np.pad(theirs[1][:, :1], ((0, 0), (0, 2))))
    assert clocked.pull(params, spikes, cotangent, False)[1] is None
    with pytest.raises(ValueError, match=r"shape must be \(channels \+ 2,\) before a ClockedDense, got \(4, 4, 1\)"):
        clocked.init(key, (4, 4, 1))


def test_brightest_pixels_spike_first_however_images_are_standardized():
    images = jnp.array([0.0, 0.5, 1.0, 0.25]).reshape(1, 2, 2, 1)
    model = SpikingClassifier((Layer(Dense(features=3)),), code="latency", steps=5)
    expected = np.zeros((5, 4))
    expected[[2, 0, 3], [1, 2, 3]] = 1
    for scale, shift in ((1, 0), (2, -0.5), (0.25, 8)):
        np.testing.assert_array_equal(seen(model, scale * images + shift).reshape(5, 4), expected)
    assert not np.any(seen(model, jnp.full((1, 2, 2, 1), 3.0)))


def test_squares_of_pixels_become_channels():
    images = jnp.arange(16.0).reshape(1, 4, 4, 1)
    model = SpikingClassifier((Layer(Dense(features=3)),), steps=1, patch=2)
    np.testing.assert_array_equal(seen(model, images)[0, 0, 0, 1], [2, 3, 6, 7])
    np.testing.assert_array_equal(seen(dataclasses.replace(model, crop=2), images)[0, 0, 0, 0], [5, 6, 9, 10])


LAYERS = (Layer(Dense(features=4), LIF()), Layer(Dense(features=3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": (), "steps": 1}, r"layers must hold at least 1 layer, got \(\)"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({}, "steps must be a whole number of at least 1, got None"),
        ({"steps": 3, "code": "events"}, "steps must be None with code='events', whose inputs say it, got 3"),
        ({"code": "rate"}, "code must be one of 'direct', 'latency', 'pixels', 'events', got 'rate'"),
        ({"steps": 3, "residuals": "none"}, "residuals must be one of .*, got 'none'"),
        ({"steps": 3, "order": "depth"}, "order must be one of 'time', 'layer', got 'depth'"),
        ({"steps": 3, "crop": 0}, "crop must be a whole number of at least 1, got 0"),
        ({"steps": 3, "patch": 0}, "patch must be a whole number of at least 1, got 0"),
        ({"steps": 3, "clock": True}, "clock must be False with code='direct', got True: only 'pixels' has one"),
    ],
)
def test_refused_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpikingClassifier(**{"layers": LAYERS, **arguments})


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (networks.spiking_lenet(), (9, 8, 1), "height must be a multiple of 2, got 9"),
        (networks.spiking_lenet(), (6, 6, 1), "height must be a multiple of 2, got 3"),
        (networks.spiking_lenet(), (8, 8), r"inputs must have 4 axes, got shape \(2, 8, 8\)"),
        (networks.event_convnet(), (34, 34, 2), r"inputs must have 5 axes, got shape \(2, 34, 34, 2\)"),
        (networks.event_convnet(), (3, 28, 28, 2), "crop must be .* at most 28, got 32"),
        (SpikingClassifier((Layer(jnp.tanh),), steps=1), (8, 8, 1), "synapse of layer 0 must have a method init"),
        (networks.spiking_lenet(residuals="reversible"), (8, 8, 1), "needs neurons with an exact inverse, got LIF"),
    ],
)
def test_refused_inputs(model, shape, message, key):
    with pytest.raises(ValueError, match=message):
        model.init(key, jnp.zeros((2, *shape)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (networks.spiking_lenet(classes=9), "model.classes must be 10 for data 'digits', got 9"),
        (
            networks.event_convnet(),
            "model must take inputs of shape .*, got SpikingClassifier: inputs must have 5 axes",
        ),
    ],
)
def test_models_that_do_not_fit_the_data_are_refused_before_training(model, message):
    with pytest.raises(ValueError, match=message) as error:
        train(Experiment(model=model))
    assert "\n" not in str(error.value)


def test_settings_on_the_command_line_and_in_the_run_folder():
    config = Experiment(model=networks.spiking_lenet(Carry()))
    changed = parse_overrides(config, ["model.residuals=reversible", "model.steps=6", "model.patch=1"])
    assert (changed.model.residuals, changed.model.steps, changed.model.patch) == ("reversible", 6, 1)
    assert changed.model.layers == config.model.layers
    assert flatten(changed)["model.steps"] == 6
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        parse_overrides(config, ["model.steps=0"])
    with pytest.raises(ValueError, match=r"model.layers must be set in the config file"):
        parse_overrides(config, ["model.layers=3"])
    described = [describe(Experiment(model=networks.spiking_lenet(neuron))) for neuron in (Carry(), LIF(), IF())]
    assert len({json.dumps(text, allow_nan=False) for text in described}) == 3
    first = described[1]["model"]["layers"][0]
    assert first["neuron"]["class"] == "LIF"
    assert first["neuron"]["surrogate"] == {"class": "Boxcar", "width": 1.0, "height": None}
    assert first["synapse"]["class"] == "Convolution"
    assert "class" not in first


def test_learns_digits():
    model = SpikingClassifier(networks.chain(Carry(), (), (1,), (64,)), steps=4, residuals="reversible")
    config = Experiment(
        data=DataConfig(name="digits"), model=model, optimizer=OptimizerConfig(learning_rate=1e-2), epochs=6, batch=32
    )
    assert train(config).summary["test_accuracy"] > 0.9
