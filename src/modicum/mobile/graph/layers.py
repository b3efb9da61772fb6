"""A network as a short list of layers: what the kernel generator, the planner and the report read.

Activations have the batch first and channels last, as Flax has them: images `(b, h, w, c)`, vectors `(b, c)`,
sequences `(b, t, c)`. All weights are float32 NumPy arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ACTIVATIONS = ("none", "relu", "relu6")
"""What a layer may apply to its result on the way out."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One step of a network.

    Attributes:
        name: unique in its graph; the parameter path where it has one.
        inputs: names of the values it reads.
        output: name of the value it makes.
        shape: of its output, batch included.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Layer):
    """A convolution of images; `y = activation(scale * (x * weight) + bias + residual)`.

    Attributes:
        weight: `(kh, kw, i / groups, o)`, as the parameters have it.
        scale: `(o,)`: batch normalization, folded; None for ones.
        bias: `(o,)`, zeros where there is none.
        stride: of height and width.
        padding: zeros before and after, of height and width.
        groups: groups of channels that do not mix.
        activation: one of `ACTIVATIONS`.
        leaf: the parameter that `weight` is, as it stands, or None.

    A second input is the residual, of the output's shape.
    """

    weight: np.ndarray
    scale: np.ndarray | None = None
    bias: np.ndarray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    groups: int = 1
    activation: str = "none"
    leaf: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Layer):
    """A product of rows with a matrix; `y = activation(scale * (x weight) + bias)` on the last axis of `x`.

    Attributes:
        weight: `(i, o)`.
        scale: `(o,)`, None for ones.
        bias: `(o,)`.
        activation: one of `ACTIVATIONS`.
        leaf: the parameter that `weight` is, or None.
    """

    weight: np.ndarray
    scale: np.ndarray | None = None
    bias: np.ndarray
    activation: str = "none"
    leaf: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Layer):
    """Maximum or mean over windows of an image; pads count for neither.

    Attributes:
        kind: "max" or "mean".
        window: height and width.
        stride: of both.
        padding: before and after, of both.
    """

    kind: str
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean(Layer):
    """The mean over all axes between the first and the last: `(b, h, w, c)` or `(b, t, c)` to `(b, c)`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Layer):
    """The sum of two values of one shape, and an activation."""

    activation: str = "none"


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Layer):
    """`activation(scale * x + shift)` for each channel, where no product takes it in."""

    scale: np.ndarray
    shift: np.ndarray
    activation: str = "none"


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Layer):
    """The same numbers, row by row, in another shape of equal batch."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Gru(Layer):
    """A layer of gated recurrent units over `(b, t, i)`, from zeros; see `models.GRULayer` for the equations.

    Attributes:
        input_kernel: `(i, 3 f)`, gates r, z, n side by side.
        recurrent_kernel: `(f, 3 f)`.
        input_bias: `(3 f,)`.
        candidate_bias: `(f,)`.
        leaves: the parameters that the two kernels are, or None.
    """

    input_kernel: np.ndarray
    recurrent_kernel: np.ndarray
    input_bias: np.ndarray
    candidate_bias: np.ndarray
    leaves: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True, eq=False, kw_only=True)
class Other(Layer):
    """An operator that has no kernel here and is left to XLA.

    Attributes:
        operator: name of its primitive.
        function: the values read -> the value made.
    """

    operator: str
    function: Callable[..., Any] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network of one input and one output.

    Attributes:
        input: name of the value that comes in.
        input_shape: its shape, batch included.
        output: name of the value that goes out.
        layers: in an order in which each reads only what is there.
    """

    input: str
    input_shape: tuple[int, ...]
    output: str
    layers: tuple[Layer, ...]
