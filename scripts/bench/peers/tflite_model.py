"""The LiteRT file of a network folder, channels last: `python tflite_model.py FOLDER` writes `model.tflite`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from peers.network import Network, is_padded, is_same, read


def _padded(x: tf.Tensor, layer: dict[str, Any], fill: float) -> tuple[tf.Tensor, str]:
    """The input of a window operator, and TensorFlow's name for the padding it still needs."""
    if not is_padded(layer):
        return x, "VALID"
    if is_same(layer, tuple(x.shape)):
        return x, "SAME"
    return tf.pad(x, [[0, 0], *layer["padding"], [0, 0]], constant_values=fill), "VALID"


def _convolve(x: tf.Tensor, layer: dict[str, Any]) -> tf.Tensor:
    weight, groups = layer["weight"], layer["groups"]
    x, padding = _padded(x, layer, 0.0)
    if groups == 1 or weight.shape[2] != 1:
        # groups follow from the filter's shape
        return tf.nn.conv2d(x, weight, layer["stride"], padding)
    # a filter of TensorFlow's depthwise convolution: (kh, kw, i, o / i)
    return tf.nn.depthwise_conv2d(x, weight.reshape(*weight.shape[:2], groups, -1), [1, *layer["stride"], 1], padding)


def _pool(x: tf.Tensor, layer: dict[str, Any], positive: bool) -> tf.Tensor:
    if layer["pool"] == "mean":
        if is_padded(layer) and not is_same(layer, tuple(x.shape)):
            raise ValueError(f"padding of mean pool {layer['name']} must be SAME or none, got {layer['padding']}")
        return tf.nn.avg_pool2d(x, layer["window"], layer["stride"], "SAME" if is_padded(layer) else "VALID")
    # zeros behind a ReLU change no maximum, and XNNPACK takes a pad of zeros alone
    x, padding = _padded(x, layer, 0.0 if positive else float(np.finfo(np.float32).min))
    return tf.nn.max_pool2d(x, layer["window"], layer["stride"], padding)


def function(network: Network) -> Callable[[tf.Tensor], tf.Tensor]:
    """The network as a function of an image `(1, h, w, c)`, in TensorFlow's operators."""

    def run(image: tf.Tensor) -> tf.Tensor:
        values = {network.input: image}
        positive: set[str] = set()
        for layer in network.layers:
            x, *more = (values[name] for name in layer["inputs"])
            match layer["kind"]:
                case "Conv":
                    y = tf.nn.bias_add(_convolve(x, layer), layer["bias"])
                    y = y + more[0] if more else y
                case "Dense":
                    y = tf.nn.bias_add(tf.matmul(x, layer["weight"]), layer["bias"])
                case "Pool":
                    y = _pool(x, layer, layer["inputs"][0] in positive)
                case "Mean":
                    y = tf.reduce_mean(x, axis=list(range(1, len(x.shape) - 1)))
                case "Add":
                    y = x + more[0]
                case "Affine":
                    y = x * layer["scale"] + layer["shift"]
                case _:
                    y = tf.reshape(x, layer["shape"])
            activation = layer.get("activation", "none")
            if activation != "none":
                y = tf.nn.relu(y) if activation == "relu" else tf.nn.relu6(y)
                positive.add(layer["output"])
            values[layer["output"]] = y
        return values[network.output]

    return run


def convert(network: Network) -> bytes:
    """The flat buffer that LiteRT loads; float32 throughout."""
    signature = tf.TensorSpec(network.input_shape, tf.float32)
    concrete = tf.function(function(network), input_signature=[signature]).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


if __name__ == "__main__":
    (Path(sys.argv[1]) / "model.tflite").write_bytes(convert(read(sys.argv[1])))
