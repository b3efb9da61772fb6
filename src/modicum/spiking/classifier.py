"""A chain of spiking layers as a flax module, `inputs -> logits`: what `train.Experiment` trains."""

import functools
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from modicum.core import Key, Params, check
from modicum.spiking.coding import latency_code
from modicum.spiking.layers import Layer, init_layer, shape_after
from modicum.spiking.normalization import Normalized, Statistics, batch_moments
from modicum.spiking.synapses import Dense
from modicum.spiking.unrolled import ORDERS, RESIDUALS, multi_step

CODES = ("direct", "latency", "pixels", "events")


class SpikingClassifier(nn.Module):
    """A chain of layers over time; logits are the mean over time of what the last layer puts out.

    | code | inputs | what goes in at a step |
    |---|---|---|
    | `direct` | images, `(b, h, w, c)` | the image itself, as a current, at each of `steps` steps |
    | `latency` | images, `(b, h, w, c)` | at most one spike a pixel, the earlier the brighter it is in its image |
    | `pixels` | images, `(b, h, w, c)` | one pixel, row by row: `h * w` steps |
    | `events` | sequences, `(b, t, ...)` | what was recorded in one bin of time: `t` steps |

    Parameters are a plain dict, `layer_0: {"synapse": {...}}` and so on, with an entry `neuron` where neurons train
    something. `residuals` and `order` change memory and time of a training step, not its result. Layers of
    `Normalized` synapses have `batch_stats` besides, which `models.calibrate` fills in after training.

    Attributes:
        layers: the chain; synapses must have a method `init`.
        code: how inputs become a sequence.
        steps: time steps for `direct` and `latency`, at least 1; None for the others, whose inputs say it.
        residuals: how the backward pass gets at the past, see `multi_step`.
        order: which loop is outside, `"time"` or `"layer"`, see `multi_step`.
        crop: side of the middle part of images or events that is looked at; None for all.
        patch: side of the squares of pixels that become the channels of one: a convolution after it is one of stride
            `patch` and of a larger kernel. 1 for none.
        clock: for `pixels`: whether each step also gets its row and its column, two channels more, of which the first
            layer makes something (`ClockedDense`). A chain without recurrence knows of the time only what its neurons
            have not yet forgotten.

    Raises:
        ValueError: if a setting does not exist or fits no other; when called, if the inputs do not fit.

    Example:
        >>> from modicum.spiking.populations import LIF
        >>> model = SpikingClassifier((Layer(Dense(features=16), LIF()), Layer(Dense(features=10))), steps=4)
        >>> logits, variables = model.init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 1)))
        >>> logits.shape, variables["params"]["layer_0"]["synapse"]["kernel"].shape
        ((2, 10), (64, 16))
    """

    layers: tuple[Layer, ...]
    code: str = "direct"
    steps: int | None = None
    residuals: str = "packed"
    order: str = "time"
    crop: int | None = None
    patch: int = 1
    clock: bool = False

    def __post_init__(self) -> None:
        check.one_of(CODES, code=self.code)
        check.one_of(RESIDUALS, residuals=self.residuals)
        check.one_of(ORDERS, order=self.order)
        check.integer(1, patch=self.patch)
        if not self.layers:
            raise ValueError("layers must hold at least 1 layer, got ()")
        if self.code in ("direct", "latency"):
            check.integer(1, steps=self.steps)
        elif self.steps is not None:
            raise ValueError(f"steps must be None with code={self.code!r}, whose inputs say it, got {self.steps}")
        if self.crop is not None:
            check.integer(1, crop=self.crop)
        if self.clock and self.code != "pixels":
            raise ValueError(f"clock must be False with code={self.code!r}, got True: only 'pixels' has one")
        super().__post_init__()

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.layers[-1].synapse.features  # type: ignore[attr-defined]

    @nn.compact
    def __call__(self, inputs: Num[Array, " b *shape"], training: bool = False) -> Float[Array, " b classes"]:
        """Logits of a batch of images or of sequences; in training, `Normalized` synapses go by the batch's moments."""
        spikes, steps = self._encoded(inputs)
        shape = spikes.shape[1:] if steps else spikes.shape[2:]
        params = []
        for number, layer in enumerate(self.layers):
            entry: Any = self.param(f"layer_{number}", functools.partial(_init_layer, layer, number), shape)
            params.append({"neuron": layer.neuron.init_params(), **entry})
            shape = shape_after(layer, entry["synapse"], shape)
        used = self._with_statistics(params, spikes, steps, training)
        outputs, _ = multi_step(self.layers, used, spikes, residuals=self.residuals, order=self.order, steps=steps)
        return outputs.mean(0)

    def _with_statistics(
        self, params: list[dict[str, Any]], spikes: Array, steps: int | None, training: bool
    ) -> list[dict[str, Any]]:
        """The parameters, with the stored statistics at work; in training those of the batch are stored if asked."""
        stored = {
            number: self.variable("batch_stats", f"layer_{number}", _no_statistics, layer.synapse.features)
            for number, layer in enumerate(self.layers)
            if isinstance(layer.synapse, Normalized)
        }
        if not training:
            return [
                {**entry, "synapse": {**entry["synapse"], **stored[number].value}} if number in stored else entry
                for number, entry in enumerate(params)
            ]
        if stored and self.is_mutable_collection("batch_stats"):
            for number, found in batch_moments(self.layers, params, spikes, steps).items():
                stored[number].value = found
        return params

    def _encoded(self, inputs: Array) -> tuple[Array, int | None]:
        """What goes in, with time first; or one step's, and for how many."""
        if self.code != "events":
            check.rank((4,), inputs=inputs)
        else:
            check.rank((3, 5) if self.crop is None else (5,), inputs=inputs)
        if self.crop is not None:
            inputs = _cropped(inputs, self.crop)
        if self.patch > 1:
            inputs = _patched(inputs, self.patch)
        if self.code == "direct":
            return inputs, self.steps
        if self.code == "latency":
            assert self.steps is not None
            return latency_code(_brightness(inputs), self.steps, dtype=jnp.uint8), None
        if self.code == "pixels":
            return _pixel_by_pixel(inputs, self.clock), None
        return jnp.moveaxis(inputs, 1, 0), None


def _no_statistics(features: int) -> Statistics:
    return {"mean": jnp.zeros((features,)), "var": jnp.ones((features,))}


def _init_layer(layer: Layer, number: int, key: Key, shape: tuple[int, ...]) -> dict[str, Params]:
    """The layer's parameters, without an entry for neurons that train nothing."""
    return {name: params for name, params in init_layer(key, layer, number, shape).items() if jax.tree.leaves(params)}


def _cropped(inputs: Array, side: int) -> Array:
    """The middle `side x side` pixels of the two axes before the last."""
    height, width = inputs.shape[-3:-1]
    check.integer(1, min(height, width), crop=side)
    top, left = (height - side) // 2, (width - side) // 2
    return inputs[..., top : top + side, left : left + side, :]


def _patched(inputs: Array, side: int) -> Array:
    """Squares of pixels as channels."""
    *batch, height, width, channels = inputs.shape
    check.divides(side, height=height, width=width)
    squares = inputs.reshape(*batch, height // side, side, width // side, side, channels)
    return squares.swapaxes(-4, -3).reshape(*batch, height // side, width // side, side * side * channels)


def _brightness(images: Float[Array, " b h w i"]) -> Float[Array, " b h w i"]:
    """Each image from 0 at its darkest to 1 at its brightest value, whatever it was standardized by."""
    least, most = (extreme(images, axis=(1, 2, 3), keepdims=True) for extreme in (jnp.min, jnp.max))
    return (images - least) / jnp.maximum(most - least, jnp.finfo(images.dtype).tiny)


def _pixel_by_pixel(images: Array, clock: bool) -> Array:
    """`(h w, b, i)`; where there is a clock, `(h w, b, i + 2)` with row and column as whole numbers."""
    batch, height, width, channels = images.shape
    pixels = images.reshape(batch, height * width, channels).swapaxes(0, 1)
    if not clock:
        return pixels
    hands = jnp.stack(jnp.divmod(jnp.arange(height * width), width), axis=-1)
    hands = jnp.broadcast_to(hands[:, None], (height * width, batch, 2))
    return jnp.concatenate([pixels, hands.astype(pixels.dtype)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class ClockedDense(Dense):
    """A `Dense` synapse whose last two inputs are a row and a column, each made a one among zeros at its own step.

    So that the whole sequence is not kept as `rows + columns` channels.

    Attributes:
        rows: how many rows there are.
        columns: how many columns.
    """

    rows: int = 28
    columns: int = 28

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer(1, rows=self.rows, columns=self.columns)

    def _spread(self, spikes: Float[Array, " b i"]) -> Float[Array, " b j"]:
        row, column = (spikes[:, place].astype(jnp.int32) for place in (-2, -1))
        hands = jax.nn.one_hot(row, self.rows), jax.nn.one_hot(column, self.columns)
        return jnp.concatenate([spikes[:, :-2], *hands], axis=1)

    def init(self, key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
        """Parameters for incoming spikes of `shape`, `(channels + 2,)`."""
        if len(shape) != 1 or shape[0] < 3:
            raise ValueError(f"shape must be (channels + 2,) before a ClockedDense, got {shape}")
        return super().init(key, (shape[0] - 2 + self.rows + self.columns,))

    def __call__(self, weights: dict[str, Array], spikes: Float[Array, " b i"]) -> Float[Array, " b o"]:
        """The current, `(b, features)`."""
        return super().__call__(weights, self._spread(spikes))

    def pull(
        self, weights: dict[str, Array], spikes: Array, cotangent: Array, spikes_needed: bool = True
    ) -> tuple[dict[str, Array], Array | None]:
        """The vector-Jacobian product; rows and columns, which are whole numbers, have a cotangent of zero."""
        params, back = super().pull(weights, self._spread(spikes), cotangent, spikes_needed)
        if back is None:
            return params, None
        channels = spikes.shape[1] - 2
        return params, jnp.pad(back[:, :channels], ((0, 0), (0, 2)))
