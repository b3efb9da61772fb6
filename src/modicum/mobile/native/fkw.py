"""The filter-kernel-weight format: the weights of a convolution in which each kernel has its own pattern.

A **kernel** is what one filter holds of one input channel. It is stored as pieces of shapes that many kernels share
(a pattern is one piece); the arrays are those of PatDNN's format, with these differences: filters keep their places,
which are those of the next layer's input channels, so that only kernels are reordered and no array says how; and the
order is (chunk of input channels, filter, shape), so that what a chunk needs stays near.
"""

from dataclasses import dataclass

import numpy as np

from modicum.mobile.native.emit import Taps
from modicum.mobile.native.layout import whole
from modicum.mobile.native.structure import structure


@dataclass(frozen=True, eq=False)
class FKW:
    """The arrays.

    Attributes:
        library: shapes of the pieces.
        dense: shape of the weight, `(kh, kw, i, o)`.
        chunk: input channels in a chunk.
        patch: rows and columns that a reader holds of each channel.
        offset: first piece and first weight of each chunk and block of filters, `(chunks, blocks, 2)`.
        stride: pieces of each chunk, filter and shape, `(chunks, filters, shapes)`; filters fill whole blocks.
        index: of each piece, `((channel % chunk) * patch rows + row) * patch columns + column`, with the row and
            column of its corner in the window.
        weight: one piece after the other.
    """

    library: tuple[Taps, ...]
    dense: tuple[int, int, int, int]
    chunk: int
    patch: tuple[int, int]
    offset: np.ndarray
    stride: np.ndarray
    index: np.ndarray
    weight: np.ndarray

    @property
    def index_bytes(self) -> int:
        """Bytes of everything but the weights."""
        return self.offset.nbytes + self.stride.nbytes + self.index.nbytes

    def decode(self) -> np.ndarray:
        """The weight, `(kh, kw, i, o)`."""
        shape = np.tile(np.arange(len(self.library)), self.stride.shape[0] * self.stride.shape[1])
        shape = np.repeat(shape, self.stride.reshape(-1))
        per = self.stride.sum(axis=2, dtype=np.int64)
        chunk, filter_ = (np.repeat(grid.reshape(-1), per.reshape(-1)) for grid in np.indices(per.shape))
        channel, place = np.divmod(self.index.astype(np.int64), self.patch[0] * self.patch[1])
        top, left = np.divmod(place, self.patch[1])
        sizes = np.array([len(taps) for taps in self.library], np.int64)
        begins = np.cumsum(sizes[shape]) - sizes[shape]
        weight = np.zeros(self.dense, np.float32)
        for kind, taps in enumerate(self.library):
            mine = np.flatnonzero(shape == kind)
            for tap, (dy, dx) in enumerate(taps):
                at = (top[mine] + dy, left[mine] + dx, channel[mine] + chunk[mine] * self.chunk, filter_[mine])
                weight[at] = self.weight[begins[mine] + tap]
        return weight


def encode(
    weight: np.ndarray, lanes: int, patch: tuple[int, int], *, chunk: int = 64, taps: int = 4, shapes: int = 12
) -> FKW:
    """The format of a weight.

    Args:
        weight: `(kh, kw, i, o)`.
        lanes: filters in a block.
        patch: rows and columns that the reader holds of each channel, at least the window.
        chunk: input channels that are read before the next ones.
        taps: most taps of a piece.
        shapes: most shapes of pieces.

    Raises:
        ValueError: if a chunk holds more than 65,536 places.
    """
    if chunk * patch[0] * patch[1] > 1 << 16:
        raise ValueError(f"chunk must have at most 65536 places, got {chunk} channels of {patch}")
    # a block of one filter: what it reads is exactly what is not zero in it
    chosen = structure(weight, 1, 1, taps=taps, shapes=shapes, chunk=chunk)
    filters = whole(weight.shape[3], lanes)
    owner = np.repeat(np.arange(chosen.blocks), chosen.counts.sum(axis=(1, 2)))
    order = np.lexsort((np.arange(len(owner)), owner, chosen.channels // chunk))
    sizes = chosen.sizes[chosen.shapes] if len(owner) else np.zeros(0, np.int64)
    begins = np.cumsum(sizes) - sizes
    # the weights of each piece, in the new order of pieces
    ends = np.cumsum(sizes[order])
    inside = np.arange(len(chosen.values)) - np.repeat(ends - sizes[order], sizes[order])
    values = chosen.values[np.repeat(begins[order], sizes[order]) + inside]
    corner = chosen.corners[order]
    index = (chosen.channels[order] % chunk * patch[0] + corner[:, 0]) * patch[1] + corner[:, 1]
    stride = np.zeros((chosen.chunks, filters, len(chosen.library)), np.int64)
    stride[:, : chosen.blocks] = chosen.counts.transpose(1, 0, 2)
    blocks = stride.reshape(chosen.chunks, filters // lanes, lanes, -1).sum(axis=2)
    both = np.stack([blocks.sum(axis=2), blocks @ chosen.sizes], axis=-1)
    offset = (np.cumsum(both.reshape(-1, 2), axis=0) - both.reshape(-1, 2)).reshape(both.shape)
    counter = np.uint8 if stride.max(initial=0) < 1 << 8 else np.uint16
    return FKW(
        chosen.library,
        weight.shape,
        chunk,
        patch,
        offset.astype(np.uint32),
        stride.astype(counter),
        index.astype(np.uint16),
        values,
    )
