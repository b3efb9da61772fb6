"""The ONNX file of a network folder, channels first, batch 1: `python onnx_model.py FOLDER` writes `model.onnx`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from peers.network import Network, read, shapes

OPSET = 13  # the newest that DeepSparse 1.8 reads; all operators used here are older
IR_VERSION = 8


def channels_first(shape: tuple[int, ...]) -> list[int]:
    """`(b, h, w, c)` as `(b, c, h, w)`; other shapes as they are."""
    return [shape[0], shape[3], *shape[1:3]] if len(shape) == 4 else list(shape)


class _Builder:
    """Nodes and initializers of one ONNX graph while it grows."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.shapes = shapes(network)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        # values flattened with their channels first, and the (h, w, c) they had: the dense layers that read them have
        # their rows in that order instead, so that no engine transposes at run time
        self.flattened: dict[str, tuple[int, ...]] = {}

    def array(self, name: str, value: np.ndarray) -> str:
        """Name of a new initializer."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Name of a new node's output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{operator}:{output}", **attributes))
        return output

    def add(self, layer: dict[str, Any]) -> None:
        """One layer with what follows it: the residual, then the activation."""
        output = layer["output"]
        activation = layer.get("activation", "none")
        steps = ["product"]
        if layer["kind"] == "Conv" and len(layer["inputs"]) == 2:
            steps.append("residual")
        if activation != "none":
            steps.append("activation")
        # the last step bears the value's own name
        names = [f"{output}:{step}" for step in steps[:-1]] + [output]
        getattr(self, f"_{layer['kind'].lower()}")(layer, names[0])
        for before, step, after in zip(names[:-1], steps[1:], names[1:], strict=True):
            if step == "residual":
                self.node("Add", [before, layer["inputs"][1]], after)
            elif activation == "relu":
                self.node("Relu", [before], after)
            else:
                limits = [self.array(f"{after}:{name}", np.float32(value)) for name, value in (("low", 0), ("high", 6))]
                self.node("Clip", [before, *limits], after)

    def _conv(self, layer: dict[str, Any], output: str) -> None:
        weight = self.array(f"{output}:weight", layer["weight"].transpose(3, 2, 0, 1))
        bias = self.array(f"{output}:bias", layer["bias"])
        self.node(
            "Conv",
            [layer["inputs"][0], weight, bias],
            output,
            kernel_shape=layer["weight"].shape[:2],
            strides=layer["stride"],
            pads=_pads(layer),
            group=layer["groups"],
        )

    def _dense(self, layer: dict[str, Any], output: str) -> None:
        source = layer["inputs"][0]
        if len(self.shapes[source]) != 2:
            raise ValueError(f"input of dense layer {layer['name']} must be (b, i), got shape {self.shapes[source]}")
        weight = layer["weight"]
        if source in self.flattened:
            weight = weight.reshape(*self.flattened[source], -1).transpose(2, 0, 1, 3).reshape(weight.shape)
        weight = self.array(f"{output}:weight", weight.T)
        bias = self.array(f"{output}:bias", layer["bias"])
        self.node("Gemm", [source, weight, bias], output, transB=1)

    def _pool(self, layer: dict[str, Any], output: str) -> None:
        operator = "MaxPool" if layer["pool"] == "max" else "AveragePool"
        attributes = {"kernel_shape": layer["window"], "strides": layer["stride"], "pads": _pads(layer)}
        self.node(operator, layer["inputs"], output, **attributes)

    def _mean(self, layer: dict[str, Any], output: str) -> None:
        pooled = self.node("GlobalAveragePool", layer["inputs"], f"{output}:pooled")
        self.node("Flatten", [pooled], output)

    def _add(self, layer: dict[str, Any], output: str) -> None:
        self.node("Add", list(layer["inputs"]), output)

    def _affine(self, layer: dict[str, Any], output: str) -> None:
        source = layer["inputs"][0]
        shape = (1, -1, 1, 1) if len(self.shapes[source]) == 4 else (1, -1)
        scale = self.array(f"{output}:scale", layer["scale"].reshape(shape))
        shift = self.array(f"{output}:shift", layer["shift"].reshape(shape))
        scaled = self.node("Mul", [source, scale], f"{output}:scaled")
        self.node("Add", [scaled, shift], output)

    def _reshape(self, layer: dict[str, Any], output: str) -> None:
        source = layer["inputs"][0]
        before, after = self.shapes[source], layer["shape"]
        readers = [other for other in self.network.layers if layer["output"] in other["inputs"]]
        flat = len(before) == 4 and len(after) == 2
        if flat and readers and all(other["kind"] == "Dense" for other in readers):
            self.flattened[output] = before[1:]
            self.node("Flatten", [source], output)
            return
        if len(before) == 4:
            source = self.node("Transpose", [source], f"{output}:last", perm=(0, 2, 3, 1))
        last = output if len(after) != 4 else f"{output}:reshaped"
        self.node("Reshape", [source, self.array(f"{output}:shape", np.array(after, np.int64))], last)
        if len(after) == 4:
            self.node("Transpose", [last], output, perm=(0, 3, 1, 2))


def _pads(layer: dict[str, Any]) -> list[int]:
    (top, bottom), (left, right) = layer["padding"]
    return [top, left, bottom, right]


def build(network: Network) -> onnx.ModelProto:
    """The ONNX model of a network; its weights are the network's own, zeros included."""
    builder = _Builder(network)
    for layer in network.layers:
        builder.add(layer)
    graph = helper.make_graph(
        builder.nodes,
        "network",
        [helper.make_tensor_value_info(network.input, TensorProto.FLOAT, channels_first(network.input_shape))],
        [helper.make_tensor_value_info(network.output, TensorProto.FLOAT, builder.shapes[network.output])],
        builder.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="modicum")


if __name__ == "__main__":
    onnx.save(build(read(sys.argv[1])), str(Path(sys.argv[1]) / "model.onnx"))
