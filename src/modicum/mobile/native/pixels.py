"""C text of the second family of kernels: a vector holds pixels of one channel, so every kernel has its own pattern.

A tile of outputs is cut into a grid of `down x across` blocks, one for each lane, and a block into `rows x columns`
pixels, one for each register: any tap of any pixel is then an aligned load at a constant place. What a tile reads of
a chunk of input channels is brought into this order in scratch memory that stays in the near caches, and all filters
use it there; sums that wait for the next chunk lie in scratch memory as well. Activations stay in blocks of channels
before and after, as in the first family, so layers of both families follow each other with no step between.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from modicum.mobile.native.emit import Place, Taps, activated, loop


@dataclass(frozen=True)
class Grid:
    """How the outputs of a tile lie in lanes and registers.

    Attributes:
        down: blocks from top to bottom; `down * across` is the number of lanes.
        across: blocks from left to right.
        rows: rows of outputs in a block.
        columns: outputs in a row of a block.
        chunk: input channels that are read before the next ones, a multiple of the lanes.
        copies: sets of sums, added up at the end: with few sums a processor waits for each one.
        taps: most taps of a piece.
        shapes: most shapes of pieces.
    """

    down: int
    across: int
    rows: int
    columns: int
    chunk: int = 64
    copies: int = 1
    taps: int = 4
    shapes: int = 12

    @property
    def sums(self) -> int:
        """Outputs of a block, each a vector."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Pixels:
    """A convolution as the emitter needs it.

    Attributes:
        lanes: floats in a vector.
        grid: how outputs lie in registers.
        height: rows of outputs.
        width: outputs in a row.
        stride: of both.
        window: rows and columns of weights.
        corner: row and column that the window of the first output begins at.
        last: last row and column that may be read.
        source: steps through the input.
        target: steps through the output.
        residual: steps through what is added, or None.
        library: pieces; kernels of one piece share unrolled code.
        blocks: blocks of `lanes` filters.
        channels: blocks of `lanes` input channels.
        counter: bits of a count of pieces, 8 or 16.
        activation: "none", "relu" or "relu6".
        pool: whether the maximum over 2x2 outputs is stored.
    """

    lanes: int
    grid: Grid
    height: int
    width: int
    stride: tuple[int, int]
    window: tuple[int, int]
    corner: tuple[int, int]
    last: tuple[int, int]
    source: Place
    target: Place
    residual: Place | None
    library: tuple[Taps, ...]
    blocks: int
    channels: int
    counter: int = 8
    activation: str = "none"
    pool: bool = False

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles down and across; the last ones reach over the end."""
        grid = self.grid
        return -(-self.height // (grid.down * grid.rows)), -(-self.width // (grid.across * grid.columns))

    @property
    def items(self) -> int:
        """Pieces of work that threads share: a tile of a block of filters each."""
        return self.tiles[0] * self.tiles[1] * self.blocks

    @property
    def chunks(self) -> int:
        """Chunks of input channels."""
        return -(-self.channels * self.lanes // self.grid.chunk)

    @property
    def patch(self) -> tuple[int, int]:
        """Rows and columns of vectors that a tile reads of one channel."""
        return patch(self.grid, self.stride, self.window)

    @property
    def scratch(self) -> int:
        """Floats of scratch memory of a thread: what is read of a chunk, and sums."""
        rows, columns = self.patch
        waiting = self.blocks if self.chunks > 1 else 1
        chunk = min(self.grid.chunk, self.channels * self.lanes)
        return self.lanes * (chunk * rows * columns + self.grid.sums * waiting * self.lanes)


def patch(grid: Grid, stride: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of vectors that a tile reads of one channel."""
    return (grid.rows - 1) * stride[0] + window[0], (grid.columns - 1) * stride[1] + window[1]


AHEAD = 128
"""Weights between the one that is read and the one that is asked for."""

STRUCT = """
struct pixels {
  const float *weights;
  const uint16_t *index;
  const void *counts;
  const uint32_t *starts;
  const float *scale;
};
"""


def _transpose(lanes: int) -> Iterator[str]:
    """Vectors `v0, v1, ...` as a square, turned: a bit of the place and one of the number change roles, in turn."""
    step = 1
    while step < lanes:
        low = ", ".join(str(lanes + k - step if k & step else k) for k in range(lanes))
        high = ", ".join(str(lanes + k if k & step else k + step) for k in range(lanes))
        for one in range(lanes):
            if not one & step:
                two = one | step
                yield f"{{ const vf s = v{one}, t = v{two};"
                yield f"v{one} = __builtin_shufflevector(s, t, {low});"
                yield f"v{two} = __builtin_shufflevector(s, t, {high}); }}"
        step *= 2


def _places(pixels: Pixels) -> Iterator[str]:
    """Where the rows and columns that a tile reads lie. Those over the end do not matter, but must be there."""
    grid = pixels.grid
    counts, steps = (grid.down, grid.across), (pixels.source.row, pixels.source.pixel)
    for axis, (name, first) in enumerate((("down", "y0"), ("across", "x0"))):
        size, side = pixels.patch[axis], (grid.rows, grid.columns)[axis]
        yield f"ptrdiff_t {name}[{counts[axis] * size}];"
        yield f"for (int b = 0; b < {counts[axis]}; ++b) for (int i = 0; i < {size}; ++i) {{"
        yield f"const int at = ({first} + b * {side}) * {pixels.stride[axis]} + i + ({pixels.corner[axis]});"
        yield f"{name}[b * {size} + i] = (ptrdiff_t)least(at, {pixels.last[axis]}) * {steps[axis]}; }}"


def _pack(pixels: Pixels) -> Iterator[str]:
    """What the tile reads of a chunk, out of blocks of channels: `[channel][row][column][lanes]` at `pack`."""
    grid, lanes, (rows, columns) = pixels.grid, pixels.lanes, pixels.patch
    yield f"for (int v = 0; v < vectors; ++v) {{ const float *p = from + (size_t)v * {pixels.source.vector};"
    yield f"vf *to = pack + (size_t)v * {lanes * rows * columns};"
    yield f"for (int r = 0; r < {rows}; ++r) for (int c = 0; c < {columns}; ++c, ++to) {{"
    for lane in range(lanes):
        y, x = divmod(lane, grid.across)
        yield f"vf v{lane} = *(const vf *)(p + down[{y * rows} + r] + across[{x * columns} + c]);"
    yield from _transpose(lanes)
    for lane in range(lanes):
        yield f"to[{lane * rows * columns}] = v{lane};"
    yield "} }"


def _sums(grid: Grid, copy: int) -> list[str]:
    return [f"a{row}_{column}_{copy}" for row in range(grid.rows) for column in range(grid.columns)]


def reads(grid: Grid, stride: tuple[int, int], taps: Taps) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """Row, column and tap of each sum that wants an input, by the input's row and column in the patch."""
    uses: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for row in range(grid.rows):
        for column in range(grid.columns):
            for tap, (dy, dx) in enumerate(taps):
                uses.setdefault((row * stride[0] + dy, column * stride[1] + dx), []).append((row, column, tap))
    return uses


def _piece(pixels: Pixels, taps: Taps, copy: int) -> Iterator[str]:
    """One piece on the whole tile: each input is loaded once and used by every tap that wants it."""
    # weights come but once from afar; some thirty pieces ahead there is time for that
    yield f"{{ const vf *b = pack + *o++; __builtin_prefetch(w + {AHEAD});"
    for tap in range(len(taps)):
        yield f"const vf w{tap} = zero() + w[{tap}];"
    yield f"w += {len(taps)};"
    for (y, x), uses in sorted(reads(pixels.grid, pixels.stride, taps).items()):
        yield f"{{ const vf s = b[{y * pixels.patch[1] + x}];"
        for row, column, tap in uses:
            yield f"a{row}_{column}_{copy} += s * w{tap};"
        yield "}"
    yield "}"


def _finish(pixels: Pixels) -> Iterator[str]:
    """Scale and bias of one filter, and the maximum over 2x2 outputs, which lie in four registers."""
    grid, names = pixels.grid, _sums(pixels.grid, 0)
    yield "const vf scale = zero() + factor[0], bias = zero() + factor[1];"
    for name in names:
        yield f"{name} = {name} * scale + bias;"
    if pixels.pool:
        corners = [(row, column) for row in range(0, grid.rows, 2) for column in range(0, grid.columns, 2)]
        for number, (row, column) in enumerate(corners):
            a, b, c, d = (f"a{row + i}_{column + j}_0" for i in (0, 1) for j in (0, 1))
            yield f"sums[{number}] = vmax(vmax({a}, {b}), vmax({c}, {d}));"
    else:
        yield from (f"sums[{number}] = {name};" for number, name in enumerate(names))


def _write(pixels: Pixels) -> Iterator[str]:
    """The results of a block of filters back into blocks of channels, as far as they are in the image."""
    grid, lanes, half = pixels.grid, pixels.lanes, 2 if pixels.pool else 1
    rows, columns = grid.rows // half, grid.columns // half
    target, residual = pixels.target, pixels.residual
    yield f"for (int r = 0; r < {rows}; ++r) for (int c = 0; c < {columns}; ++c) {{"
    for lane in range(lanes):
        yield f"vf v{lane} = results[{lane * grid.sums} + r * {columns} + c];"
    yield from _transpose(lanes)
    yield f"const int y = y0 / {half} + r, x = x0 / {half} + c;"
    for name, base, place in (("q", "out", target), ("e", "add", residual)):
        if place is not None:
            kind = "float" if name == "q" else "const float"
            yield f"{kind} *{name} = {base} + (size_t)block * {place.vector} + (ptrdiff_t)y * {place.row}"
            yield f"  + (ptrdiff_t)x * {place.pixel};"
    for lane in range(lanes):
        dy, dx = lane // grid.across * rows, lane % grid.across * columns
        yield f"if (y + {dy} < {pixels.height // half} && x + {dx} < {pixels.width // half}) {{"
        if residual is not None:
            yield f"v{lane} += *(const vf *)(e + {dy * residual.row + dx * residual.pixel});"
        yield from activated(f"v{lane}", pixels.activation)
        yield f"*(vf *)(q + {dy * target.row + dx * target.pixel}) = v{lane}; }}"
    yield "}"


def _filter(pixels: Pixels) -> Iterator[str]:
    """One filter on a chunk: its sums in registers, from scratch memory and back."""
    grid, kinds = pixels.grid, len(pixels.library)
    first, every = _sums(grid, 0), [name for copy in range(grid.copies) for name in _sums(grid, copy)]
    yield f"vf {', '.join(f'{name} = zero()' for name in every)};"
    if pixels.chunks > 1:
        yield "if (chunk) {"
        yield from (f"{name} = sums[{number}];" for number, name in enumerate(first))
        yield "}"
    for kind, taps in enumerate(pixels.library):
        yield from loop(kind, grid.copies, functools.partial(_piece, pixels, taps))
    yield f"n += {kinds};"
    for copy in range(1, grid.copies):
        yield from (f"{name} += {other};" for name, other in zip(first, _sums(grid, copy), strict=True))
    if pixels.chunks > 1:
        yield f"if (chunk < {pixels.chunks - 1}) {{"
        yield from (f"sums[{number}] = {name};" for number, name in enumerate(first))
        yield "continue; }"
    yield from _finish(pixels)


def pixels_kernel(name: str, pixels: Pixels) -> str:
    """A function over work items, tile by tile; see `Pixels.items`.

    Args:
        name: of the function.
        pixels: what it computes.
    """
    grid, lanes = pixels.grid, pixels.lanes
    across, (rows, columns) = pixels.tiles[1], pixels.patch
    each = min(grid.chunk // lanes, pixels.channels)
    waiting = f"(size_t)block * {lanes * grid.sums}" if pixels.chunks > 1 else "0"
    line, count = "\n".join, f"uint{pixels.counter}_t"
    return f"""
static void {name}(const float *restrict in, float *restrict out, const float *restrict add,
                   const struct pixels *d, vf *restrict pack, int first, int last) {{
  vf *restrict wait = pack + {each * lanes * rows * columns};
  for (int item = first; item < last;) {{
    const int tile = item / {pixels.blocks}, begin = item % {pixels.blocks};
    const int end = least({pixels.blocks}, begin + last - item);
    item += end - begin;
    const int y0 = tile / {across} * {grid.down * grid.rows}, x0 = tile % {across} * {grid.across * grid.columns};
{line(_places(pixels))}
    for (int chunk = 0; chunk < {pixels.chunks}; ++chunk) {{
      const int vectors = least({each}, {pixels.channels} - chunk * {each});
      const float *from = in + (size_t)chunk * {each * pixels.source.vector};
{line(_pack(pixels))}
      const size_t group = (size_t)chunk * {pixels.blocks} + begin;
      const uint16_t *o = d->index + d->starts[2 * group];
      const float *w = d->weights + d->starts[2 * group + 1];
      const {count} *n = (const {count} *)d->counts + group * {lanes * len(pixels.library)};
      for (int block = begin; block < end; ++block) {{
        vf *results = wait + {waiting};
        for (int lane = 0; lane < {lanes}; ++lane) {{
          vf *sums = results + lane * {grid.sums};
          const float *factor = d->scale + ((size_t)block * {lanes} + lane) * 2;
{line(_filter(pixels))}
        }}
        if (chunk < {pixels.chunks - 1}) continue;
{line(_write(pixels))}
      }}
    }}
  }}
}}
"""
