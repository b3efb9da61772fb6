"""ONNX files as torch's exporters write them, against ONNX's own reference evaluator."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import interchange, models

onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402


class Builder:
    """A graph, node by node, on random weights."""

    def __init__(self, seed=0):
        self.rng, self.nodes, self.initializers = np.random.default_rng(seed), [], []

    def weights(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def random(self, name, *shape, scale=0.5):
        return self.weights(name, scale * self.rng.standard_normal(shape))

    def node(self, kind, inputs, outputs=None, **attributes):
        outputs = [f"{kind}_{len(self.nodes)}"] if outputs is None else outputs
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=f"node_{len(self.nodes)}", **attributes))
        return outputs[0]

    def conv(self, x, name, shape, bias=True, **attributes):
        inputs = [x, self.random(f"{name}.w", *shape, scale=1 / np.sqrt(np.prod(shape[1:])))]
        inputs += [self.random(f"{name}.b", shape[0])] if bias else []
        return self.node("Conv", inputs, kernel_shape=shape[2:], **attributes)

    def norm(self, x, name, size, **attributes):
        inputs = [x, *(self.random(f"{name}.{part}", size) for part in ("scale", "shift", "mean"))]
        inputs.append(self.weights(f"{name}.var", 0.5 + self.rng.random(size)))
        return self.node("BatchNormalization", inputs, **attributes)

    def model(self, output, shape):
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["batch", "classes"])],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def lenet():
    """Dense layers in all three forms: Gemm, Gemm with a transposed weight, MatMul of a transposed constant and Add."""
    made = Builder()
    x = made.conv("x", "first", (3, 1, 5, 5), pads=[2, 2, 2, 2])
    x = made.node("MaxPool", [made.node("Relu", [x])], kernel_shape=[2, 2], strides=[2, 2])
    x = made.node("Relu", [made.conv(x, "second", (5, 3, 5, 5))])
    x = made.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = made.node("Flatten", [x])
    x = made.node("Gemm", [x, made.random("a.w", 7, 30), made.random("a.b", 7)], transB=1)
    # exporters leave out a bias of zeros
    x = made.node("Gemm", [made.node("Relu", [x]), made.random("b.w", 7, 6)])
    turned = made.node("Transpose", [made.random("c.w", 4, 6)], perm=[1, 0])
    x = made.node("MatMul", [made.node("Relu", [x]), turned])
    return made, made.node("Add", [made.random("c.b", 4), x]), models.LeNet5(4, (3, 5), (7, 6)), (16, 20, 1)


def resnet(folded):
    """Shortcuts A; batch normalization with an epsilon of its own, or folded into the convolutions' biases."""
    made = Builder(1)

    def unit(x, name, shape, stride=1):
        pads = [1, 1, 1, 1]
        x = made.conv(x, name, shape, bias=folded, strides=[stride, stride], pads=pads)
        return x if folded else made.norm(x, f"{name}.norm", shape[0], epsilon=1e-3)

    x = made.node("Relu", [unit("x", "stem", (2, 3, 3, 3))])
    y = unit(made.node("Relu", [unit(x, "a", (2, 2, 3, 3))]), "b", (2, 2, 3, 3))
    x = made.node("Relu", [made.node("Add", [x, y])])
    y = unit(made.node("Relu", [unit(x, "c", (4, 2, 3, 3), 2)]), "d", (4, 4, 3, 3))
    integers = {"starts": [0, 0], "ends": [99, 99], "axes": [2, 3], "steps": [2, 2], "pads": [0, 1, 0, 0, 0, 1, 0, 0]}
    for name, values in integers.items():
        made.initializers.append(numpy_helper.from_array(np.array(values), name))
    x = made.node("Pad", [made.node("Slice", [x, "starts", "ends", "axes", "steps"]), "pads"])
    x = made.node("Relu", [made.node("Add", [x, y])])
    x = made.node("Flatten", [made.node("GlobalAveragePool", [x])])
    x = made.node("Gemm", [x, made.random("head.w", 3, 4), made.random("head.b", 3)], transB=1)
    return made, x, models.ResNet(3, (1, 1), (2, 4)), (8, 8, 3)


def gru():
    """Two layers; torch puts time first."""
    made = Builder(2)
    x = made.node("Transpose", ["x"], perm=[1, 0, 2])
    made.initializers.append(numpy_helper.from_array(np.array([1]), "axis"))
    for layer, width in enumerate((3, 5)):
        inputs = [x, made.random(f"{layer}.w", 1, 15, width), made.random(f"{layer}.r", 1, 15, 5)]
        inputs.append(made.random(f"{layer}.b", 1, 30))
        output = [f"y{layer}"]
        made.node("GRU", inputs, output, hidden_size=5, linear_before_reset=1)
        x = made.node("Squeeze", [output[0], "axis"])
    x = made.node("ReduceMean", [x], axes=[0], keepdims=0)
    x = made.node("Gemm", [x, made.random("head.w", 4, 5), made.random("head.b", 4)], transB=1)
    return made, x, models.GRUClassifier(4, (5, 5)), (6, 3)


@pytest.mark.parametrize(
    "build", [lenet, lambda: resnet(False), lambda: resnet(True), gru], ids=["lenet", "resnet", "folded", "gru"]
)
def test_the_network_computes_what_the_file_computes(build, tmp_path):
    made, output, model, shape = build()
    inputs = np.random.default_rng(3).standard_normal((2, *shape)).astype(np.float32)
    given = np.moveaxis(inputs, -1, 1) if len(shape) == 3 else inputs
    file = made.model(output, given.shape)
    onnx.checker.check_model(file)
    (expected,) = ReferenceEvaluator(file).run(None, {"x": given})
    onnx.save(file, tmp_path / "a.onnx")
    variables = interchange.from_onnx(model, tmp_path / "a.onnx", inputs)
    shapes = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(model.init, jax.random.key(0), inputs))
    assert jax.tree.map(lambda leaf: leaf.shape, variables) == shapes
    outputs = jax.jit(model.apply)(variables, jnp.asarray(inputs))
    assert np.abs(expected[0] - expected[1]).max() > 1e-2
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def refused(file, model, shape):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is compared below
        interchange.from_onnx(model, file, np.zeros(shape, np.float32))
    return str(caught.value)


def test_what_does_not_fit_is_named_as_the_file_names_it():
    made, output, model, shape = lenet()
    made.random("normalization", 3)
    file = made.model(output, (1, 1, 16, 20))
    sentence = refused(file, models.LeNet5(4, (3, 5), (7, 8)), shape)
    assert "not used: normalization" in sentence
    assert "b.w must have shape (8, 7), got (6, 7)" in sentence
    assert "c.w must have shape (4, 8), got (4, 6)" in sentence
    interchange.from_onnx(model, file, np.zeros(shape, np.float32), ignore=["^normalization$"])
    sentence = refused(file, models.LeNet5(4, (3, 5), (7,)), shape)
    assert re.search(r"source must have 2 operators of kind dense, got 3: node_\d+, node_\d+, node_\d+$", sentence)


def test_a_gru_that_is_another_is_refused():
    made, output, model, shape = gru()
    made.nodes[1].attribute[1].i = 0
    assert "GRU must run forward, with linear_before_reset=1" in refused(made.model(output, (1, 6, 3)), model, shape)


def test_no_onnx_file_is_one_sentence(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"nothing of the kind")
    assert "source must be an ONNX file, got" in refused(tmp_path / "a.onnx", models.LeNet5(), (28, 28, 1))
