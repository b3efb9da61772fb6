"""A network as plain files, which an environment without modicum or JAX can read.

A folder holds `network.json` (the layers in order), `weights.npz` (their arrays), `input.npy` (a fixed image, batch 1,
channels last) and `reference.npy` (what the network makes of it, by float64 NumPy).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

KINDS = ("Conv", "Dense", "Pool", "Mean", "Add", "Affine", "Reshape")
"""Kinds of layers that are written; recurrent layers and operators left to XLA are not."""
FIELDS = ("stride", "padding", "groups", "activation", "window")
"""What a layer may state besides its arrays, as `modicum.mobile.graph` names it; a pool's `kind` is its "pool"."""


class Network(NamedTuple):
    """A network of one input and one output, read back.

    Attributes:
        input: name of the value that comes in.
        input_shape: `(1, h, w, c)`.
        output: name of the value that goes out.
        layers: each with "kind", "name", "inputs", "output", "shape" and its settings and arrays, by name. A
            convolution has "weight" `(kh, kw, i / groups, o)` and "bias" `(o,)`, its scale folded in; a dense layer
            "weight" `(i, o)` and "bias"; an affine one "scale" and "shift" `(c,)`.
    """

    input: str
    input_shape: tuple[int, ...]
    output: str
    layers: tuple[dict[str, Any], ...]


def _arrays(layer: Any, kind: str) -> dict[str, np.ndarray]:
    """A layer's float32 arrays, by name, with the scale of a product folded into its weights in float64."""
    if kind == "Affine":
        return {name: np.asarray(getattr(layer, name), np.float32) for name in ("scale", "shift")}
    if kind not in ("Conv", "Dense"):
        return {}
    weight = np.asarray(layer.weight, np.float64)
    if layer.scale is not None:
        weight = weight * np.asarray(layer.scale, np.float64)
    return {"weight": weight.astype(np.float32), "bias": np.asarray(layer.bias, np.float32)}


def export(graph: Any, folder: str | Path, seed: int = 0) -> Network:
    """Writes a graph, an image and the network's answer to it.

    Args:
        graph: a `modicum.mobile.graph.Graph` of image layers, batch 1.
        folder: made where it is absent.
        seed: of the image, standard normal.

    Returns:
        The network, as `read` returns it.

    Raises:
        ValueError: if a layer is of a kind that no peer gets, or the batch is not 1.
    """
    if graph.input_shape[0] != 1:
        raise ValueError(f"batch of the graph must be 1, got input shape {graph.input_shape}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layers: list[dict[str, Any]] = []
    stored: dict[str, np.ndarray] = {}
    for index, layer in enumerate(graph.layers):
        kind = type(layer).__name__
        if kind not in KINDS:
            raise ValueError(f"layer {layer.name} must be one of {', '.join(KINDS)}, got {kind}")
        entry = {"kind": kind, "name": layer.name, "inputs": layer.inputs, "output": layer.output}
        entry["shape"] = layer.shape
        entry |= {field: getattr(layer, field) for field in FIELDS if hasattr(layer, field)}
        if kind == "Pool":
            entry["pool"] = layer.kind
        for name, array in _arrays(layer, kind).items():
            stored[f"{index}.{name}"] = array
        layers.append(entry)
    head = {"input": graph.input, "input_shape": graph.input_shape, "output": graph.output, "layers": layers}
    (folder / "network.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    np.savez(folder / "weights.npz", **stored)
    image = np.random.default_rng(seed).standard_normal(graph.input_shape, np.float32)
    np.save(folder / "input.npy", image)
    network = read(folder)
    np.save(folder / "reference.npy", evaluate(network, image))
    return network


def read(folder: str | Path) -> Network:
    """The network that a folder holds."""
    folder = Path(folder)
    head = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    with np.load(folder / "weights.npz") as stored:
        for key in stored.files:
            index, name = key.split(".")
            head["layers"][int(index)][name] = stored[key]
    return Network(head["input"], tuple(head["input_shape"]), head["output"], tuple(head["layers"]))


def multiply_accumulates(network: Network) -> int:
    """Multiply-accumulates of one image, zeros among the weights included."""
    total = 0
    for layer in network.layers:
        if layer["kind"] == "Conv":
            total += layer["weight"].size * layer["shape"][1] * layer["shape"][2]
        elif layer["kind"] == "Dense":
            total += layer["weight"].size
    return total


def is_same(layer: dict[str, Any], shape: tuple[int, ...]) -> bool:
    """Whether a layer's padding is what TensorFlow calls "SAME" for an input of shape `(b, h, w, c)`."""
    window = layer["window"] if layer["kind"] == "Pool" else layer["weight"].shape[:2]
    for size, extent, stride, (before, after) in zip(
        shape[1:3], window, layer["stride"], layer["padding"], strict=True
    ):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        if (before, after) != (total // 2, total - total // 2):
            return False
    return True


def is_padded(layer: dict[str, Any]) -> bool:
    """Whether a layer pads its input at all."""
    return any(pad for pads in layer["padding"] for pad in pads)


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Shapes of all values, by name, channels last."""
    return {network.input: network.input_shape, **{layer["output"]: tuple(layer["shape"]) for layer in network.layers}}


def _activate(x: np.ndarray, activation: str) -> np.ndarray:
    if activation == "none":
        return x
    return np.clip(x, 0, 6 if activation == "relu6" else None)


def _windows(x: np.ndarray, layer: dict[str, Any], window: tuple[int, int], fill: float) -> list[np.ndarray]:
    """What each position of a window sees: `kh kw` arrays `(b, h', w', c)`."""
    rows, columns = layer["shape"][1:3]
    down, right = layer["stride"]
    x = np.pad(x, ((0, 0), *layer["padding"], (0, 0)), constant_values=fill)
    return [
        x[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _convolve(x: np.ndarray, layer: dict[str, Any]) -> np.ndarray:
    weight = layer["weight"].astype(np.float64)
    height, width, inputs, outputs = weight.shape
    groups = layer["groups"]
    taps = weight.reshape(height * width, inputs, groups, outputs // groups)
    total = np.zeros(layer["shape"])
    for seen, tap in zip(_windows(x, layer, (height, width), 0.0), taps, strict=True):
        if groups == 1:
            total += seen @ tap[:, 0]
        else:
            parts = seen.reshape(*seen.shape[:3], groups, inputs)
            total += np.einsum("bhwgi,igo->bhwgo", parts, tap).reshape(total.shape)
    return total + layer["bias"]


def _pool(x: np.ndarray, layer: dict[str, Any]) -> np.ndarray:
    if layer["pool"] == "max":
        return np.max(_windows(x, layer, layer["window"], -np.inf), axis=0)
    counts = np.sum(_windows(np.ones_like(x), layer, layer["window"], 0.0), axis=0)
    return np.sum(_windows(x, layer, layer["window"], 0.0), axis=0) / counts


def evaluate(network: Network, image: np.ndarray) -> np.ndarray:
    """The network's answer by float64 NumPy.

    Args:
        network: what to run.
        image: `(1, h, w, c)`.

    Returns:
        Its output, float64.
    """
    values = {network.input: np.asarray(image, np.float64)}
    for layer in network.layers:
        x, *more = (values[name] for name in layer["inputs"])
        match layer["kind"]:
            case "Conv":
                y = _convolve(x, layer) + (more[0] if more else 0.0)
            case "Dense":
                y = x @ layer["weight"].astype(np.float64) + layer["bias"]
            case "Pool":
                y = _pool(x, layer)
            case "Mean":
                y = x.mean(axis=tuple(range(1, x.ndim - 1)))
            case "Add":
                y = x + more[0]
            case "Affine":
                y = x * layer["scale"].astype(np.float64) + layer["shift"]
            case _:
                y = x.reshape(layer["shape"])
        values[layer["output"]] = _activate(y, layer.get("activation", "none"))
    return values[network.output]
