"""What of a weight is not zero, in the order in which a kernel reads it: filter-kernel reorder, read off the zeros.

A block of filters reads a position of an input channel if any of its filters has a weight there. The positions of one
channel are cut into **pieces**; pieces of one shape share unrolled code, so kernels are ordered by (block of filters,
chunk of input channels, shape of piece). Whatever set the weights lie in, only its zeros matter here.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from modicum.mobile.native.emit import Taps
from modicum.mobile.native.layout import whole


@dataclass(frozen=True, eq=False)
class Structure:
    """The weights of a layer in reading order.

    Attributes:
        library: shapes of the pieces.
        lanes: filters in a vector.
        vectors: vectors in a block.
        blocks: blocks of filters.
        chunks: chunks of input channels.
        counts: pieces of each block, chunk and shape, `(blocks, chunks, shapes)`.
        channels: input channel of each piece.
        corners: row and column of each piece's corner in the window, `(pieces, 2)`.
        shapes: shape of each piece.
        values: its weights, `[taps][vectors][lanes]` one piece after the other.
    """

    library: tuple[Taps, ...]
    lanes: int
    vectors: int
    blocks: int
    chunks: int
    counts: np.ndarray
    channels: np.ndarray
    corners: np.ndarray
    shapes: np.ndarray
    values: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Taps of each shape."""
        return np.array([len(taps) for taps in self.library])

    @property
    def starts(self) -> np.ndarray:
        """First piece and first weight of each block, `(blocks, 2)`."""
        pieces = self.counts.sum(axis=(1, 2))
        weights = (self.counts.sum(axis=1) @ self.sizes) * self.vectors * self.lanes
        ends = np.stack([np.cumsum(pieces), np.cumsum(weights)], axis=1)
        return np.concatenate([np.zeros((1, 2), ends.dtype), ends[:-1]])


def _bits(mask: int, window: tuple[int, int]) -> list[tuple[int, int]]:
    return [(at // window[1], at % window[1]) for at in range(window[0] * window[1]) if mask >> at & 1]


def _normal(taps: list[tuple[int, int]]) -> tuple[Taps, tuple[int, int]]:
    """A piece from its own corner, and where the corner lies."""
    top, left = min(y for y, _ in taps), min(x for _, x in taps)
    return tuple((y - top, x - left) for y, x in sorted(taps)), (top, left)


def _cut(taps: list[tuple[int, int]], most: int) -> list[list[tuple[int, int]]]:
    """Taps in pieces of at most so many: whole, or row by row."""
    if len(taps) <= most:
        return [taps] if taps else []
    rows: dict[int, list[tuple[int, int]]] = {}
    for y, x in taps:
        rows.setdefault(y, []).append((y, x))
    pieces = []
    for row in rows.values():
        parts = -(-len(row) // most)
        size = -(-len(row) // parts)
        pieces += [row[at : at + size] for at in range(0, len(row), size)]
    return pieces


def _covered(taps: list[tuple[int, int]], library: set[Taps], window: tuple[int, int]) -> list[list[tuple[int, int]]]:
    """Taps as one piece whose shape is in the library: their own, or the smallest that holds them; else tap by tap."""
    best: list[tuple[int, int]] | None = None
    for shape in library:
        height, width = (max(tap[axis] for tap in shape) + 1 for axis in (0, 1))
        for top in range(window[0] - height + 1):
            for left in range(window[1] - width + 1):
                placed = [(y + top, x + left) for y, x in shape]
                if set(taps) <= set(placed) and (best is None or len(placed) < len(best)):
                    best = placed
    return [best] if best is not None and len(best) <= 2 * len(taps) else [[tap] for tap in taps]


def _pieces(masks: Counter, window: tuple[int, int], taps: int, shapes: int) -> dict[int, list[list[tuple[int, int]]]]:
    """How the positions of each kind of kernel are cut, with at most so many taps in a piece and shapes in all."""
    cut = {mask: _cut(_bits(mask, window), taps) for mask in masks}
    votes: Counter = Counter()
    for mask, count in masks.items():
        votes.update({_normal(piece)[0]: 0 for piece in cut[mask]})
        for piece in cut[mask]:
            votes[_normal(piece)[0]] += count * len(piece)
    single: Taps = ((0, 0),)
    if len(votes) <= shapes:
        return cut
    ranked = sorted(votes, key=lambda shape: (-votes[shape], shape))
    library = {*ranked[: shapes - 1], single}
    return {
        mask: [
            part
            for piece in pieces
            for part in ([piece] if _normal(piece)[0] in library else _covered_alone(piece, pieces, library, window))
        ]
        for mask, pieces in cut.items()
    }


def _covered_alone(
    piece: list[tuple[int, int]], pieces: list[list[tuple[int, int]]], library: set[Taps], window: tuple[int, int]
) -> list[list[tuple[int, int]]]:
    # a larger shape may reach over other pieces of the same kernel, whose weights would then count twice
    return _covered(piece, library, window) if len(pieces) == 1 else [[tap] for tap in piece]


def structure(
    weight: np.ndarray, lanes: int, vectors: int, *, taps: int = 4, shapes: int = 12, chunk: int = 64
) -> Structure:
    """The reading order of a weight.

    Args:
        weight: `(kh, kw, i, o)`.
        lanes: filters in a vector.
        vectors: vectors of filters that are computed together; they share what they read.
        taps: most taps of a piece.
        shapes: most shapes of pieces.
        chunk: input channels that are read before the next ones.
    """
    height, width, inputs, outputs = weight.shape
    window, size = (height, width), lanes * vectors
    blocks = -(-outputs // size)
    padded = np.zeros((height * width, inputs, blocks * size), np.float32)
    padded[:, :, :outputs] = weight.reshape(height * width, inputs, outputs)
    tiled = padded.reshape(height * width, inputs, blocks, vectors, lanes)
    used = (tiled != 0).any(axis=(3, 4))
    # a window of up to 63 positions as one number
    masks = np.einsum("pib,p->ib", used.astype(np.int64), np.int64(1) << np.arange(height * width, dtype=np.int64))
    kinds, inverse, counts = np.unique(masks, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(masks.shape)
    cuts = _pieces(Counter(dict(zip(kinds.tolist(), counts.tolist(), strict=True))), window, taps, shapes)
    library = tuple(sorted({_normal(piece)[0] for pieces in cuts.values() for piece in pieces}))
    numbers = {shape: at for at, shape in enumerate(library)}
    columns: list[np.ndarray] = []
    for at, kind in enumerate(kinds.tolist()):
        channel, block = np.nonzero(inverse == at)
        for piece in cuts[kind]:
            shape, corner = _normal(piece)
            same = [np.full_like(channel, number) for number in (numbers[shape], *corner)]
            columns.append(np.stack([block, channel // chunk, same[0], channel, same[1], same[2]]))
    table = np.concatenate(columns, axis=1) if columns else np.zeros((6, 0), np.int64)
    table = table[:, np.lexsort((table[5], table[4], table[3], table[2], table[1], table[0]))]
    block, part, shape, channel, top, left = table
    chunks = -(-inputs // chunk)
    number_of = np.zeros((blocks, chunks, len(library)), np.int64)
    np.add.at(number_of, (block, part, shape), 1)
    sizes = np.array([len(taps) for taps in library], np.int64)
    begins = np.concatenate([[0], np.cumsum(sizes[shape])]) if len(shape) else np.zeros(1, np.int64)
    values = np.zeros((int(begins[-1]), vectors, lanes), np.float32)
    for kind, offsets in enumerate(library):
        mine = np.flatnonzero(shape == kind)
        for tap, (y, x) in enumerate(offsets):
            position = (top[mine] + y) * width + left[mine] + x
            values[begins[mine] + tap] = tiled[position, channel[mine], block[mine]]
    corners = np.stack([top, left], axis=1)
    return Structure(library, lanes, vectors, blocks, chunks, number_of, channel, corners, shape, values.reshape(-1))


def vectors_of(outputs: int, lanes: int) -> int:
    """Vectors that hold so many filters."""
    return whole(outputs, lanes) // lanes
