"""Torch's arrays in our layouts, operator by operator, with everything that does not fit in one sentence.

Kernels are (output, input / groups, height, width) in torch and (height, width, input / groups, output) here; dense
weights (output, input) there and (input, output) here; what a dense layer gets from images is flattened channels first
there and channels last here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from modicum.core import Params
from modicum.interchange.slots import Slot
from modicum.models import ResNet

_EPSILON = 1e-5
"""What flax's batch normalization adds to the variance, as torch's does unless told otherwise."""
_NORMALIZATION = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


class Assembly:
    """Parameters as they are taken over; `finish` refuses what is not whole.

    Attributes:
        variables: `{"params": ..., "batch_stats": ...}`, NumPy arrays so far.
    """

    def __init__(self, model: nn.Module, example: Any, arrays: Mapping[str, np.ndarray], epsilon: float) -> None:
        self.variables: dict[str, Any] = {}
        self._model, self._arrays, self._epsilon = model, arrays, epsilon
        self._shapes = jax.eval_shape(model.init, jax.random.key(0), example)
        self._example = example
        self._used: set[str] = set()
        self._missing: list[str] = []
        self._wrong: dict[str, str] = {}

    def add(self, slot: Slot) -> None:
        """Takes over what one operator has."""
        {"conv": self._conv, "dense": self._dense, "gru": self._gru}[slot.kind](slot)

    def finish(self, names: Mapping[str, str], ignore: Sequence[str], what: str) -> Params:
        """The variables, as JAX arrays of float32.

        Args:
            names: what others call an array, for the message, where it is not our name for it.
            ignore: patterns of names that may be left over.
            what: what the arrays come from.

        Raises:
            ValueError: if an array is missing, left over, or of a wrong shape; all are named.
        """
        unused = [name for name in self._arrays if name not in self._used]
        unused = [name for name in unused if not any(re.search(pattern, name) for pattern in ignore)]
        parts = [
            f"{text}: {', '.join(names.get(name, name) for name in found)}"
            for text, found in (("missing", self._missing), ("not used", unused))
            if found
        ]
        parts += [f"{names.get(name, name)} {text}" for name, text in self._wrong.items()]
        if parts:
            kind = type(self._model).__name__
            raise ValueError(f"{what} must hold the parameters of this {kind}, got one with {'; '.join(parts)}")
        return jax.tree.map(jnp.asarray, self.variables)

    def _name(self, names: tuple[str, ...], part: str) -> str:
        """The name of a module that the source has, or the usual one."""
        return next((name for name in names if name.format(part) in self._arrays), names[0])

    def _take(self, name: str, shape: Sequence[int]) -> np.ndarray:
        """An array; zeros where it is missing or of a wrong shape, which is remembered."""
        if name not in self._arrays:
            self._missing.append(name)
            return np.zeros(shape, np.float32)
        self._used.add(name)
        array = np.asarray(self._arrays[name]).astype(np.float32)
        if array.shape != tuple(shape):
            self._wrong[name] = f"must have shape {tuple(shape)}, got {array.shape}"
            return np.zeros(shape, np.float32)
        return array

    def _put(self, collection: str, module: str, **arrays: np.ndarray) -> None:
        self.variables.setdefault(collection, {}).setdefault(module, {}).update(arrays)

    def _conv(self, slot: Slot) -> None:
        leaves = self._shapes["params"][slot.ours]
        height, width, inputs, outputs = leaves["kernel"].shape
        name = self._name(slot.names, "weight")
        kernel = self._take(name.format("weight"), (outputs, inputs, height, width))
        self._put("params", slot.ours, kernel=kernel.transpose(2, 3, 1, 0))
        bias = name.format("bias")
        if "bias" in leaves:
            self._put("params", slot.ours, bias=self._take(bias, (outputs,)))
        elif slot.norm:
            self._normalization(slot, self._take(bias, (outputs,)) if bias in self._arrays else None, outputs)

    def _normalization(self, slot: Slot, bias: np.ndarray | None, outputs: int) -> None:
        """Batch normalization: torch's; or none, where a convolution has a bias alone."""
        name = self._name(slot.norm_names, "running_mean")
        held = [name.format(part) for part in _NORMALIZATION]
        if bias is not None and not any(part in self._arrays for part in held):
            # (x - 0) / sqrt(var + epsilon) is x
            ones, zeros = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
            found = {"scale": ones, "bias": bias, "mean": zeros, "var": np.float32(1 - _EPSILON) * ones}
        else:
            found = {ours: self._take(name.format(part), (outputs,)) for part, ours in _NORMALIZATION.items()}
            found["mean"] = found["mean"] - (0 if bias is None else bias)
            found["var"] = found["var"] + np.float32(self._epsilon_of(name) - _EPSILON)
        self._put("params", slot.norm, scale=found["scale"], bias=found["bias"])
        self._put("batch_stats", slot.norm, mean=found["mean"], var=found["var"])

    def _epsilon_of(self, name: str) -> float:
        own = name.format("epsilon")
        if own not in self._arrays:
            return self._epsilon
        self._used.add(own)
        return float(self._arrays[own])

    def _dense(self, slot: Slot) -> None:
        inputs, outputs = self._shapes["params"][slot.ours]["kernel"].shape
        name = self._name(slot.names, "weight")
        weight = self._take(name.format("weight"), (outputs, inputs))
        height, width, channels = self._image() if slot.ours == "Dense_0" else (1, 1, inputs)
        if height * width * channels == inputs:
            # flattened channels first there, channels last here; a mean over the image leaves 1 x 1
            weight = weight.reshape(outputs, channels, height, width).transpose(0, 2, 3, 1).reshape(outputs, inputs)
        self._put("params", slot.ours, kernel=weight.T, bias=self._take(name.format("bias"), (outputs,)))

    def _image(self) -> tuple[int, int, int]:
        """Height, width and channels of what is flattened: the last convolution's output, pooled."""
        convolutions = [name for name in self._shapes["params"] if name.startswith("Conv_")]
        if not convolutions:
            return 1, 1, -1
        last = max(convolutions, key=lambda name: int(name.removeprefix("Conv_")))

        def outputs(variables: Params, example: Any) -> Any:
            chosen = {"capture_intermediates": lambda module, _: module.name == last, "mutable": ["intermediates"]}
            return self._model.apply(variables, example, **chosen)[1]["intermediates"][last]["__call__"][0]

        height, width, channels = jax.eval_shape(outputs, self._shapes, self._example).shape[-3:]
        return height // 2, width // 2, channels

    def _gru(self, slot: Slot) -> None:
        inputs, gates = self._shapes["params"][slot.ours]["input_kernel"].shape
        width = gates // 3
        name = self._name(slot.names, "weight_ih")
        driven = self._take(name.format("weight_ih"), (gates, inputs))
        returned = self._take(name.format("weight_hh"), (gates, width))
        given, fed_back = (self._take(name.format(part), (gates,)) for part in ("bias_ih", "bias_hh"))
        # r and z add both biases; that of the candidate's recurrent product stands inside the reset
        whole = given + np.concatenate([fed_back[: 2 * width], np.zeros(width, np.float32)])
        arrays = {"input_kernel": driven.T, "recurrent_kernel": returned.T, "input_bias": whole}
        self._put("params", slot.ours, **arrays, candidate_bias=fed_back[2 * width :])


def reorder_streams(model: ResNet, variables: dict[str, Any]) -> None:
    """Channels of a ResNet without projections, whose shortcuts put zeros on both sides, in our order, in place.

    Ours puts the zeros at the end. The stream of a stage may have its channels in any order, if all that writes to it
    and reads from it agrees: the same network, bit for bit up to the order of sums.

    Args:
        model: the network.
        variables: its variables, as they were trained with zeros on both sides.
    """
    params, stats = variables["params"], variables["batch_stats"]
    order, number = np.arange(model.widths[0]), 1
    growth, parts = (4, 3) if model.bottleneck else (1, 2)
    for count, width in zip(model.blocks, model.widths, strict=True):
        for _ in range(count):
            first, last = params[f"Conv_{number}"], params[f"Conv_{number + parts - 1}"]
            first["kernel"] = first["kernel"][:, :, order]
            order = _widened(order, growth * width)
            last["kernel"] = last["kernel"][..., order]
            norm = f"BatchNorm_{number + parts - 1}"
            for held in (params[norm], stats[norm]):
                held.update({name: array[order] for name, array in held.items()})
            number += parts
    params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"][order]


def _widened(order: np.ndarray, width: int) -> np.ndarray:
    """Their channel at each of ours, after zeros were added on both sides there and at the end here."""
    added = width - len(order)
    left = added // 2
    return np.concatenate([left + order, np.arange(left), np.arange(left + len(order), width)])
