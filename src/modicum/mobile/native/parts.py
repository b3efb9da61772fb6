"""What a program is made of: values, steps, weights, memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modicum.mobile.graph import Add, Affine, Conv, Dense, Gru, Layer, Mean, Pool, Reshape
from modicum.mobile.native.choose import Choice
from modicum.mobile.native.layout import Planes, whole
from modicum.mobile.native.memory import ALIGNMENT
from modicum.mobile.native.pixels import Grid


@dataclass(frozen=True, eq=False)
class Value:
    """An activation: its layout, where it begins in the arena, and whether it is read as one flat vector."""

    planes: Planes
    buffer: str
    flat: bool = False


@dataclass(frozen=True)
class Built:
    """What became of a layer.

    Attributes:
        name: of the layer.
        kernel: kind of kernel, with its tile.
        choice: how it is computed, None where it is no product.
        macs: multiply-accumulates on weights that are not skipped, for one image.
        dense_macs: those of the layer without zeros.
        payload: bytes of weights.
        index: bytes of offsets and counts.
        source: bytes of activations read, at least once each.
        target: bytes written.
    """

    name: str
    kernel: str
    choice: Choice | Grid | None = None
    macs: int = 0
    dense_macs: int = 0
    payload: int = 0
    index: int = 0
    source: int = 0
    target: int = 0


@dataclass(frozen=True, eq=False)
class Program:
    """A network in C.

    Attributes:
        name: prefix of its functions.
        source: C text.
        header: C text of its declarations.
        weights: bytes that `run` reads.
        arena: bytes of scratch memory.
        input_shape: batch included.
        output_shape: batch included.
        built: what became of each layer.
    """

    name: str
    source: str = field(repr=False)
    header: str = field(repr=False)
    weights: np.ndarray = field(repr=False)
    arena: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    built: tuple[Built, ...]


class Blob:
    """Arrays one after the other, each at a multiple of 64 bytes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, array: np.ndarray) -> int:
        """Where the array begins."""
        at, data = self.size, np.ascontiguousarray(array).tobytes()
        data += bytes(-len(data) % ALIGNMENT)
        self.parts.append(data)
        self.size += len(data)
        return at

    def array(self) -> np.ndarray:
        """All of it."""
        return np.frombuffer(b"".join(self.parts) or bytes(ALIGNMENT), np.uint8)


def kernel_exists(layer: Layer) -> bool:
    """Whether a layer of that kind and shape can be computed here."""
    return isinstance(layer, (Conv, Dense, Pool, Mean, Add, Affine, Reshape, Gru)) and 2 <= len(layer.shape) <= 4


def sizes_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a value without its batch."""
    inner = shape[1:]
    if len(inner) == 3:
        return inner[2], inner[0], inner[1]
    if len(inner) == 2:
        return inner[1], 1, inner[0]
    if len(inner) == 1:
        return inner[0], 1, 1
    raise ValueError(f"values must be vectors, sequences or images after the batch, got shape {shape}")


def is_depthwise(layer: Layer) -> bool:
    """Whether each channel has a filter of its own."""
    return (
        isinstance(layer, Conv)
        and layer.groups > 1
        and layer.weight.shape[2] == 1
        and (layer.groups == layer.weight.shape[3])
    )


def whole_weight(layer: Conv) -> np.ndarray:
    """The weight of a convolution in groups as one of all channels, zero between groups; depthwise as it is."""
    if layer.groups == 1 or is_depthwise(layer):
        return layer.weight
    height, width, inputs, outputs = layer.weight.shape
    full = np.zeros((height, width, inputs * layer.groups, outputs), np.float32)
    step = outputs // layer.groups
    for group in range(layer.groups):
        mine = slice(group * step, (group + 1) * step)
        full[:, :, group * inputs : (group + 1) * inputs, mine] = layer.weight[..., mine]
    return full


def pairs(scale: np.ndarray, shift: np.ndarray, lanes: int, vectors: int) -> np.ndarray:
    """Scale and shift in turns, vector by vector, zeros where there is no channel."""
    size = whole(len(scale), lanes * vectors)
    both = np.zeros((2, size), np.float32)
    both[0, : len(scale)], both[1, : len(shift)] = scale, shift
    return both.reshape(2, -1, lanes).transpose(1, 0, 2)


def flat_offsets(planes: Planes) -> Callable[[np.ndarray], np.ndarray]:
    """Where the numbers of a flattened image lie, by their place in the vector."""

    def offsets(at: np.ndarray) -> np.ndarray:
        pixel, channel = at // planes.channels, at % planes.channels
        y, x = pixel // planes.width, pixel % planes.width
        inside = (y + planes.halo) * planes.row + (x + planes.halo) * planes.lanes
        return channel // planes.lanes * planes.plane + inside + channel % planes.lanes

    return offsets


def placed(sizes: Mapping[str, int], spans: Mapping[str, Sequence[int]]) -> tuple[dict[str, int], int]:
    """Where each buffer of the arena lies, the largest first: those that are never alive together may share bytes.

    Args:
        sizes: bytes of each.
        spans: first and last step that needs it.

    Returns:
        Where each begins, and the bytes of all.
    """
    begins: dict[str, int] = {}
    for buffer in sorted(sizes, key=lambda name: (-sizes[name], name)):
        first, last = spans[buffer]
        others = sorted(
            (begins[other], begins[other] + sizes[other])
            for other in begins
            if not (spans[other][1] < first or last < spans[other][0])
        )
        at = 0
        for begin, end in others:
            if at + sizes[buffer] <= begin:
                break
            at = max(at, end)
        begins[buffer] = at
    return begins, max((begins[name] + sizes[name] for name in begins), default=0) + ALIGNMENT
