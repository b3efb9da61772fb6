"""State dicts of torch, against NumPy's account of what torch computes from them."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import interchange, models
from modicum.interchange.slots import slots
from tests.interchange import torch_reference as reference

CASES = {
    "lenet": (models.LeNet5(4, (3, 5), (7, 6)), (12, 20, 2), reference.lenet),
    "vgg, normalized": (
        models.VGG16(4, (3, 4, 5, 4, 3), (7, 6)),
        (64, 96, 3),
        lambda state, x: reference.vgg(state, x, True, 2),
    ),
    "vgg": (models.VGG16(4, (3, 4, 5, 4, 3), (7,)), (64, 64, 3), lambda state, x: reference.vgg(state, x, False, 1)),
    "resnet, bottlenecks": (
        models.ResNet(4, (2, 2), (2, 3), True, True, "7x7/2"),
        (32, 32, 3),
        lambda state, x: reference.bottleneck_resnet(state, x, (2, 2)),
    ),
    "resnet for cifar": (
        models.ResNet(4, (1, 2, 2), (2, 5, 9)),
        (16, 16, 3),
        lambda state, x: reference.cifar_resnet(state, x, (1, 2, 2), True),
    ),
    "mobilenet": (models.MobileNetV2(4, 0.1), (32, 32, 3), reference.mobilenet),
    "gru": (models.GRUClassifier(4, (5, 5)), (6, 3), lambda state, x: reference.gru_classifier(state, x, 2)),
}
NORMALIZED = {"vgg, normalized", "resnet, bottlenecks", "resnet for cifar", "mobilenet"}


def torch_state(model, shape, normalized, rng):
    """Random parameters by torch's names, in its layouts: shapes from our own, names from the reference's needs."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]
    state = {}

    def add(pattern, part, *size, positive=False):
        array = rng.standard_normal(size)
        # biases that keep some units of each layer above zero for some inputs
        state[pattern.format(part)] = 0.5 + np.abs(array) if positive else array * (0.3 if len(size) == 1 else 1)

    for slot in slots(model, normalized):
        name, leaves = slot.names[0], shapes[slot.ours]
        if slot.ours == "Dense_0" and isinstance(model, models.ResNet) and not model.projection:
            name = "linear.{}"
        if slot.kind == "conv":
            height, width, inputs, outputs = leaves["kernel"].shape
            add(name, "weight", outputs, inputs, height, width)
            state[name.format("weight")] /= np.sqrt(inputs * height * width / 2)
            if isinstance(model, models.LeNet5 | models.VGG16):
                add(name, "bias", outputs)
            for part in ("weight", "bias", "running_mean", "running_var") if slot.norm and normalized else ():
                add(slot.norm_names[0], part, outputs, positive=part in ("weight", "running_var"))
        elif slot.kind == "dense":
            inputs, outputs = leaves["kernel"].shape
            add(name, "weight", outputs, inputs)
            state[name.format("weight")] /= np.sqrt(inputs)
            add(name, "bias", outputs)
        else:
            inputs, gates = leaves["input_kernel"].shape
            for part, size in (("weight_ih", (gates, inputs)), ("weight_hh", (gates, gates // 3))):
                add(name, part, *size)
            for part in ("bias_ih", "bias_hh"):
                add(name, part, gates)
    # float32, as torch has it; the reference computes in float64
    return {name: array.astype(np.float32) for name, array in state.items()}


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    model, shape, truth = CASES[request.param]
    rng = np.random.default_rng(len(request.param))
    state = torch_state(model, shape, request.param in NORMALIZED, rng)
    inputs = rng.standard_normal((2, *shape)).astype(np.float32)
    exact = {name: array.astype(np.float64) for name, array in state.items()}
    expected = truth(exact, (np.moveaxis(inputs, -1, 1) if len(shape) == 3 else inputs).astype(np.float64))
    return model, state, inputs, expected


def agree(model, variables, inputs, expected):
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), shapes
    )
    outputs = jax.jit(model.apply)(variables, inputs)
    # outputs that differ between examples, or nothing were tested
    assert np.std(expected) > 1e-2
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def test_the_network_computes_what_torch_computes(case):
    model, state, inputs, expected = case
    agree(model, interchange.from_torch(model, state, inputs), inputs, expected)


def test_from_a_file_with_other_names_and_counters(tmp_path):
    """What `torch.nn.DataParallel` saved, through safetensors, which keeps no order."""
    pytest.importorskip("safetensors")
    model, shape, _ = CASES["lenet"]
    state, inputs = torch_state(model, shape, False, np.random.default_rng(4)), np.zeros(shape, np.float32)
    held = {f"module.{name}": array for name, array in state.items()}
    held["module.bn.num_batches_tracked"] = np.array(7)
    interchange.save(tmp_path / "a.safetensors", held)
    found = interchange.from_torch(model, tmp_path / "a.safetensors", jax.ShapeDtypeStruct(inputs.shape, inputs.dtype))
    direct = interchange.from_torch(model, state, inputs)
    jax.tree.map(np.testing.assert_array_equal, found, direct)


def test_the_naive_order_of_a_flattened_image_is_another_network():
    """The permutation of the first dense layer is needed, and is tested: without it the outputs differ."""
    model, shape, truth = CASES["lenet"]
    rng = np.random.default_rng(1)
    state = torch_state(model, shape, False, rng)
    inputs = rng.standard_normal((2, *shape)).astype(np.float32)
    variables = interchange.from_torch(model, state, inputs)
    variables["params"]["Dense_0"]["kernel"] = state["fc1.weight"].T
    expected = truth(state, np.moveaxis(inputs, -1, 1))
    assert np.abs(jax.jit(model.apply)(variables, inputs) - expected).max() > 1e-2 * np.abs(expected).max()


def test_zeros_of_shortcuts_at_the_end():
    model, shape, _ = CASES["resnet for cifar"]
    rng = np.random.default_rng(2)
    state = torch_state(model, shape, True, rng)
    inputs = rng.standard_normal((2, *shape)).astype(np.float32)
    expected = reference.cifar_resnet(state, np.moveaxis(inputs, -1, 1), model.blocks, False)
    agree(model, interchange.from_torch(model, state, inputs, zero_channels="end"), inputs, expected)
    other = jax.jit(model.apply)(interchange.from_torch(model, state, inputs), inputs)
    assert np.abs(other - expected).max() > 1e-2 * np.abs(expected).max()


def test_another_epsilon():
    model, shape, _ = CASES["vgg, normalized"]
    rng = np.random.default_rng(3)
    state = torch_state(model, shape, True, rng)
    inputs = rng.standard_normal((2, *shape)).astype(np.float32)
    expected = reference.vgg(state, np.moveaxis(inputs, -1, 1), True, 2, epsilon=0.1)
    agree(model, interchange.from_torch(model, state, inputs, epsilon=0.1), inputs, expected)


def test_everything_that_does_not_fit_is_named():
    model, shape, _ = CASES["lenet"]
    state = torch_state(model, shape, False, np.random.default_rng(0))
    del state["fc2.bias"]
    state["conv9.weight"] = state.pop("conv2.weight")
    state["fc3.weight"] = state["fc3.weight"].T
    sentence = (
        "source must hold the parameters of this LeNet5, got one with missing: conv2.weight, fc2.bias; "
        "not used: conv9.weight; fc3.weight must have shape (4, 6), got (6, 4)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        interchange.from_torch(model, state, np.zeros(shape, np.float32))
    mended = {**state, "fc2.bias": np.zeros(6), "fc3.weight": state["fc3.weight"].T}
    interchange.from_torch(model, mended, np.zeros(shape, np.float32), rename={"conv9": "conv2"})
    more = {**mended, "auxiliary.weight": np.zeros(1)}
    interchange.from_torch(model, more, np.zeros(shape, np.float32), rename={"9": "2"}, ignore=["^auxiliary"])


def test_a_folded_network_lacks_no_normalization_by_accident():
    """VGG-16 without batch normalization, one bias missing: not taken for a network with it."""
    model, shape, _ = CASES["vgg"]
    state = torch_state(model, shape, False, np.random.default_rng(0))
    del state["features.5.bias"]
    with pytest.raises(ValueError, match=r"missing: features\.6\.weight, features\.6\.bias, features\.6\.running_mean"):
        interchange.from_torch(model, state, np.zeros(shape, np.float32))


def test_bad_arguments_are_one_sentence(tmp_path, monkeypatch):
    images = np.zeros((8, 8, 1), np.float32)
    with pytest.raises(ValueError, match=r"model must be one of LeNet5, VGG16, .*, got SmallConvNet"):
        interchange.from_torch(models.SmallConvNet(), {}, images)
    with pytest.raises(ValueError, match="zero_channels must be one of 'both', 'end', got 'left'"):
        interchange.from_torch(models.LeNet5(), {}, images, zero_channels="left")
    with pytest.raises(ValueError, match=r"source must be a file \.safetensors, \.pt, \.pth or \.bin, got weights\.h5"):
        interchange.from_torch(models.LeNet5(), "weights.h5", images)
    with pytest.raises(ValueError, match="rename must keep names apart, got a twice"):
        interchange.from_torch(models.LeNet5(), {"a": np.ones(1), "b": np.ones(1)}, images, rename={"b": "a"})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"^this needs the package torch, to read .*a\.pt: install it, or let torch"):
        interchange.from_torch(models.LeNet5(), tmp_path / "a.pt", images)
