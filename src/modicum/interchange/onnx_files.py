"""Networks in ONNX files, as variables of `modicum.models`: operators with weights, matched in the graph's order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from modicum.core import Params, check, optional
from modicum.interchange.slots import Slot, slots
from modicum.interchange.torch_states import ZEROS, assemble

_NORMALIZATION = ("weight", "bias", "running_mean", "running_var")


@dataclass
class _Operator:
    """A node with weights, in torch's layouts; `names` are those of its initializers."""

    kind: str
    node: str
    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    norm: dict[str, np.ndarray] = field(default_factory=dict)
    norm_names: dict[str, str] = field(default_factory=dict)


def from_onnx(
    model: nn.Module,
    source: str | Path | Any,
    example: Any,
    *,
    ignore: Sequence[str] = (),
    zero_channels: str = "both",
) -> Params:
    """Variables for `model.apply` from the weights of an ONNX file.

    Its convolutions, dense layers (`Gemm`, or `MatMul` and `Add`) and GRUs are taken in the order of the graph,
    whatever their names, and must be those of the model. Batch normalization may be there or folded into the
    convolutions, as torch's exporters fold it; a bias that is not there is 0. Torch's newer exporter takes GRUs apart,
    which is refused: export these with `dynamo=False`. Graphs are channels first; of one that was converted from
    channels last, only a first dense layer behind a mean over the image is right. The rest of the graph is not looked
    at: see `from_torch`.

    Args:
        model: `LeNet5`, `VGG16`, `ResNet`, `MobileNetV2` or `GRUClassifier`, of the trained network's widths.
        source: the file, or an `onnx.ModelProto`.
        example: an input, channels last, or its `jax.ShapeDtypeStruct`.
        ignore: regular expressions of initializers that may be left over.
        zero_channels: see `from_torch`.

    Returns:
        `{"params": ...}`, with `"batch_stats"` where there is batch normalization; float32.

    Raises:
        ValueError: if the graph has other operators, or weights that are left over or of a wrong shape (all are named).
        ImportError: without the extra `interchange`.
    """
    check.one_of(ZEROS, zero_channels=zero_channels)
    onnx = optional.package("onnx", "interchange")
    what = "source" if isinstance(source, onnx.ModelProto) else f"source {source}"
    if not isinstance(source, onnx.ModelProto):
        try:
            source = onnx.load(str(source))
        except OSError:
            raise
        except Exception as error:
            # protobuf and onnx raise types of their own
            raise ValueError(f"source must be an ONNX file, got {source}: {error}") from error
    graph = _Graph(onnx, source.graph)
    operators = graph.operators()
    wanted = slots(model, any(operator.norm for operator in operators))
    # GRUs first: one that was taken apart looks like dense layers
    for kind in ("gru", "conv", "dense"):
        counts = [sum(part.kind == kind for part in parts) for parts in (wanted, operators)]
        if counts[0] != counts[1]:
            nodes = ", ".join(operator.node for operator in operators if operator.kind == kind) or "none"
            hint = "; torch's newer exporter takes GRUs apart, with dynamo=False it does not" if kind == "gru" else ""
            raise ValueError(f"{what} must have {counts[0]} operators of kind {kind}, got {counts[1]}: {nodes}{hint}")
    arrays, names = _named(wanted, operators)
    for left in graph.unused(operators):
        arrays[left] = graph.constant(left)
    return assemble(model, arrays, example, names, ignore, 1e-5, zero_channels, what)


def _named(wanted: Sequence[Slot], operators: Sequence[_Operator]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The operators' arrays under torch's names, and which initializer each was."""
    arrays, names = {}, {}
    for kind in ("conv", "dense", "gru"):
        pairs = zip(
            (slot for slot in wanted if slot.kind == kind),
            (operator for operator in operators if operator.kind == kind),
            strict=True,
        )
        for slot, operator in pairs:
            # without a bias, or with one of zeros that an exporter left out: the same network
            if kind != "gru" and not operator.norm:
                operator.arrays.setdefault("bias", np.zeros(len(operator.arrays["weight"]), np.float32))
            for pattern, held, known in (
                (slot.names, operator.arrays, operator.names),
                (slot.norm_names, operator.norm, operator.norm_names),
            ):
                for part, array in held.items():
                    name = pattern[0].format(part) if pattern else f"{operator.node}.{part}"
                    arrays[name], names[name] = array, known.get(part, name)
    return arrays, names


class _Graph:
    """What feeds each node of an ONNX graph."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self._onnx, self._graph = onnx, graph
        self._initializers = {entry.name: entry for entry in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes by name."""
        return {entry.name: self._onnx.helper.get_attribute_value(entry) for entry in node.attribute}

    def origin(self, name: str) -> str | None:
        """The initializer or constant that a value is, through `Identity` and `Transpose`; None where it is data."""
        if name in self._initializers:
            return name
        maker = self._makers.get(name)
        if maker is None:
            return None
        if maker.op_type == "Constant":
            return name
        return self.origin(maker.input[0]) if maker.op_type in ("Identity", "Transpose") else None

    def constant(self, name: str) -> np.ndarray:
        """The value of what `origin` found."""
        if name in self._initializers:
            return self._onnx.numpy_helper.to_array(self._initializers[name])
        maker = self._makers[name]
        if maker.op_type == "Constant":
            return self._onnx.numpy_helper.to_array(self.attributes(maker)["value"])
        held = self.constant(maker.input[0])
        return held.transpose(self.attributes(maker).get("perm")) if maker.op_type == "Transpose" else held

    def operators(self) -> list[_Operator]:
        """Nodes with weights, in the graph's order."""
        by_output: dict[str, _Operator] = {}
        for node in self._graph.node:
            reads = {"Conv": self._conv, "Gemm": self._gemm, "MatMul": self._matmul, "GRU": self._gru}
            if node.op_type == "BatchNormalization":
                self._normalize(node, by_output)
            elif node.op_type in reads and len(node.input) > 1 and self.origin(node.input[1]) is not None:
                by_output[node.output[0]] = reads[node.op_type](node)
        return list(by_output.values())

    def unused(self, operators: Sequence[_Operator]) -> list[str]:
        """Initializers of real numbers that no operator has; single numbers are bounds and the like."""
        used = {name for part in operators for name in (*part.names.values(), *part.norm_names.values())}
        return [
            name
            for name in self._initializers
            if name not in used and (value := self.constant(name)).ndim and np.issubdtype(value.dtype, np.floating)
        ]

    def _inputs(self, node: Any, **places: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """A node's constant inputs by what they are; those that are absent are left out."""
        arrays, names = {}, {}
        for part, place in places.items():
            if place < len(node.input) and node.input[place]:
                origin = self.origin(node.input[place])
                if origin is None:
                    raise ValueError(f"weights must be constants of the graph, got computed ones at {_label(node)}")
                arrays[part], names[part] = self.constant(node.input[place]), origin
        return arrays, names

    def _conv(self, node: Any) -> _Operator:
        arrays, names = self._inputs(node, weight=1, bias=2)
        return _Operator("conv", _label(node), arrays, names)

    def _normalize(self, node: Any, by_output: dict[str, _Operator]) -> None:
        behind = by_output.get(node.input[0])
        if behind is None:
            raise ValueError(
                f"batch normalization must follow a convolution, got {_label(node)} behind {node.input[0]}"
            )
        places = {part: place for place, part in enumerate(_NORMALIZATION, 1)}
        behind.norm, behind.norm_names = self._inputs(node, **places)
        behind.norm["epsilon"] = np.asarray(self.attributes(node).get("epsilon", 1e-5))

    def _gemm(self, node: Any) -> _Operator:
        arrays, names = self._inputs(node, weight=1, bias=2)
        found = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | self.attributes(node)
        if (found["alpha"], found["beta"], found["transA"]) != (1.0, 1.0, 0):
            raise ValueError(f"Gemm must have alpha 1, beta 1 and transA 0, got others at {_label(node)}")
        if not found["transB"]:
            arrays["weight"] = arrays["weight"].T
        return _Operator("dense", _label(node), arrays, names)

    def _matmul(self, node: Any) -> _Operator:
        arrays, names = self._inputs(node, weight=1)
        arrays["weight"] = arrays["weight"].T
        for other in self._graph.node:
            if other.op_type == "Add" and node.output[0] in other.input:
                (bias,) = (name for name in other.input if name != node.output[0])
                if (origin := self.origin(bias)) is not None:
                    arrays["bias"], names["bias"] = self.constant(bias), origin
        return _Operator("dense", _label(node), arrays, names)

    def _gru(self, node: Any) -> _Operator:
        found = {"direction": b"forward", "linear_before_reset": 0} | self.attributes(node)
        if found["direction"] != b"forward" or not found["linear_before_reset"] or "activations" in found:
            raise ValueError(
                "GRU must run forward, with linear_before_reset=1 and the usual activations, "
                f"got others at {_label(node)}"
            )
        arrays, names = self._inputs(node, weight_ih=1, weight_hh=2, bias=3)
        size = arrays["weight_hh"].shape[2]
        names["bias_ih"] = names["bias_hh"] = names.pop("bias", "no bias")
        biases = arrays.pop("bias", np.zeros((1, 6 * size), np.float32))
        # one direction; gates are z, r, h there and r, z, n in torch
        halves = {"weight_ih": arrays["weight_ih"][0], "weight_hh": arrays["weight_hh"][0]}
        halves |= {"bias_ih": biases[0, : 3 * size], "bias_hh": biases[0, 3 * size :]}
        order = np.concatenate([np.arange(size, 2 * size), np.arange(size), np.arange(2 * size, 3 * size)])
        return _Operator("gru", _label(node), {part: array[order] for part, array in halves.items()}, names)


def _label(node: Any) -> str:
    return node.name or f"{node.op_type} -> {node.output[0]}"
