"""C text of the kernels: every shape, stride and address in it is a number, only weights and counts are data."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Taps = tuple[tuple[int, int], ...]
"""Row and column of each tap of a piece, from its own corner."""


@dataclass(frozen=True)
class Tile:
    """What a kernel holds in registers: so many rows and columns of outputs, of so many vectors of filters.

    Attributes:
        rows: rows of outputs.
        columns: outputs in a row.
        vectors: vectors of filters.
        copies: sets of sums, added up at the end: with few sums a processor waits for each one.
        together: blocks of filters that are computed for a tile before the next tile: their input stays near.
    """

    rows: int
    columns: int
    vectors: int = 1
    copies: int = 1
    together: int = 1

    @property
    def sums(self) -> int:
        """Registers that hold sums."""
        return self.rows * self.columns * self.vectors * self.copies


@dataclass(frozen=True)
class Place:
    """Steps in floats through an activation: from a row, a pixel, a vector of channels to the next."""

    row: int
    pixel: int
    vector: int


@dataclass(frozen=True)
class Product:
    """A convolution or product as the emitter needs it.

    Attributes:
        lanes: floats in a vector.
        tile: register tile.
        height: rows of outputs.
        width: outputs in a row.
        stride: of both.
        source: steps through the input.
        target: steps through the output.
        residual: steps through what is added, or None.
        library: pieces; kernels of one piece share unrolled code.
        depthwise: whether lanes of input meet lanes of weights, channel by channel.
        stored: a kind in `stored.BYTES`.
        activation: "none", "relu" or "relu6".
        pool: whether the maximum over 2x2 outputs is stored.
    """

    lanes: int
    tile: Tile
    height: int
    width: int
    stride: tuple[int, int]
    source: Place
    target: Place
    residual: Place | None
    library: tuple[Taps, ...]
    depthwise: bool = False
    stored: str = "float32"
    activation: str = "none"
    pool: bool = False

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles down and across; the last ones overlap those before where they do not fit."""
        return -(-self.height // self.tile.rows), -(-self.width // self.tile.columns)

    def fresh(self, row: int, column: int) -> str:
        """C text before the store of a tile's output: the last tiles leave alone what those before them write.

        The number would be the same, but two threads must not write one place, whatever they write.
        """
        down, across = self.tiles
        tests = []
        if row < down * self.tile.rows - self.height:
            tests.append(f"ty < {down - 1}")
        if column < across * self.tile.columns - self.width:
            tests.append(f"tx < {across - 1}")
        return f"if ({' && '.join(tests)}) " if tests else ""


PRODUCT = """
struct product {
  const void *weights;
  const int32_t *offsets;
  const uint16_t *counts;
  const uint32_t *starts;
  const float *scale;
  int blocks, chunks;
};
"""


def header(lanes: int) -> str:
    """Types and helpers that all kernels use."""
    return f"""#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include <stdint.h>
#include <stddef.h>
typedef float vf __attribute__((vector_size({4 * lanes}), aligned({4 * lanes})));
typedef float vfu __attribute__((vector_size({4 * lanes}), aligned(4)));
typedef int32_t vi __attribute__((vector_size({4 * lanes})));
typedef int8_t vb __attribute__((vector_size({lanes}), aligned(1)));
#define LANES {lanes}
static inline vf vmax(vf a, vf b) {{ vi m = a > b; return (vf)((m & (vi)a) | (~m & (vi)b)); }}
static inline vf vmin(vf a, vf b) {{ vi m = a < b; return (vf)((m & (vi)a) | (~m & (vi)b)); }}
static inline int least(int a, int b) {{ return a < b ? a : b; }}
static inline vf zero(void) {{ return (vf){{0}}; }}
/* Waits for all threads of a run, which must all call it; nothing where there is one. */
static void meet(int parts);
{PRODUCT}"""


def _weights(product: Product, taps: int) -> Iterator[str]:
    """Loads of a piece's weights, `w<tap>_<vector>`, and the step to the next piece."""
    vectors, lanes = product.tile.vectors, product.lanes
    number = 0
    halves = product.stored == "int4"
    for tap in range(taps):
        for vector in range(vectors):
            at = number // 2 if halves else number
            if product.stored == "float32":
                loaded = f"*(const vf *)(w + {at * lanes})"
            else:
                loaded = f"*(const vb *)(w + {at * lanes})"
                # shifts of signed bytes keep the sign
                loaded = f"({loaded} << 4) >> 4" if halves and number % 2 == 0 else loaded
                loaded = f"{loaded} >> 4" if halves and number % 2 else loaded
                loaded = f"__builtin_convertvector({loaded}, vf)"
            yield f"const vf w{tap}_{vector} = {loaded};"
            number += 1
    yield f"w += {(-(-number // 2) if halves else number) * lanes};"


def _piece(product: Product, taps: Taps, copy: int) -> Iterator[str]:
    """One piece on the whole tile: each input is loaded once and used by every tap and filter that wants it."""
    tile, (down, across) = product.tile, product.stride
    uses: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for row in range(tile.rows):
        for column in range(tile.columns):
            for tap, (dy, dx) in enumerate(taps):
                uses.setdefault((row * down + dy, column * across + dx), []).append((row, column, tap))
    yield "{ const float *b = p + *o++;"
    yield from _weights(product, len(taps))
    for y, x in sorted(uses):
        at = y * product.source.row + x * product.source.pixel
        yield f"{{ const vf s = *(const vf *)(b + {at});" if product.depthwise else f"{{ const float s = b[{at}];"
        for row, column, tap in uses[y, x]:
            for vector in range(tile.vectors):
                yield f"a{row}_{column}_{vector}_{copy} += s * w{tap}_{vector};"
        yield "}"
    yield "}"


def loop(kind: int, copies: int, piece: Callable[[int], Iterator[str]]) -> Iterator[str]:
    """All pieces of one shape, several at a time where there are several sets of sums.

    Args:
        kind: number of the shape, whose count is `n[kind]`.
        copies: sets of sums.
        piece: C text of a piece that adds to one of them.
    """
    yield f"unsigned k{kind} = n[{kind}];"
    if copies > 1:
        yield f"for (; k{kind} >= {copies}; k{kind} -= {copies}) {{"
        for copy in range(copies):
            yield from piece(copy)
        yield "}"
    yield f"for (; k{kind}; --k{kind})"
    yield from piece(0)


def activated(name: str, activation: str) -> Iterator[str]:
    """C text that applies an activation to a vector."""
    if activation in ("relu", "relu6"):
        yield f"{name} = vmax({name}, zero());"
    if activation == "relu6":
        yield f"{name} = vmin({name}, zero() + 6.0f);"


def _store(product: Product) -> Iterator[str]:
    tile, target = product.tile, product.target
    for vector in range(tile.vectors):
        scale = f"*(const vf *)(scale + {2 * vector * product.lanes})"
        bias = f"*(const vf *)(scale + {(2 * vector + 1) * product.lanes})"
        yield f"const vf m{vector} = {scale}, t{vector} = {bias};"
    for row in range(tile.rows):
        for column in range(tile.columns):
            for vector in range(tile.vectors):
                name = f"a{row}_{column}_{vector}_0"
                for copy in range(1, tile.copies):
                    yield f"{name} += a{row}_{column}_{vector}_{copy};"
                yield f"{name} = {name} * m{vector} + t{vector};"
                if product.residual is not None:
                    place = product.residual
                    at = row * place.row + column * place.pixel + vector * place.vector
                    yield f"{name} += *(const vf *)(r + {at});"
                if not product.pool:
                    yield from activated(name, product.activation)
                    at = row * target.row + column * target.pixel + vector * target.vector
                    yield f"{product.fresh(row, column)}*(vf *)(q + {at}) = {name};"
    if product.pool:
        for row in range(0, tile.rows, 2):
            for column in range(0, tile.columns, 2):
                for vector in range(tile.vectors):
                    a, b, c, d = (f"a{row + i}_{column + j}_{vector}_0" for i in (0, 1) for j in (0, 1))
                    yield f"{a} = vmax(vmax({a}, {b}), vmax({c}, {d}));"
                    yield from activated(a, product.activation)
                    at = row // 2 * target.row + column // 2 * target.pixel + vector * target.vector
                    yield f"{product.fresh(row, column)}*(vf *)(q + {at}) = {a};"


def product_kernel(name: str, product: Product) -> str:
    """A function over work items: an item is one tile of `tile.together` blocks of filters.

    With all blocks together items follow each other through the image, so that threads share it out by place: what
    one has written it mostly reads itself in the next layer.

    Args:
        name: of the function.
        product: what it computes.
    """
    tile, lanes = product.tile, product.lanes
    down, across = product.tiles
    half = 2 if product.pool else 1
    stored = "float" if product.stored == "float32" else "int8_t"
    sums = [
        f"a{row}_{column}_{vector}_{copy}"
        for row in range(tile.rows)
        for column in range(tile.columns)
        for vector in range(tile.vectors)
        for copy in range(tile.copies)
    ]
    source, target, residual = product.source, product.target, product.residual
    kinds = len(product.library)
    down_step, across_step = product.stride[0] * source.row, product.stride[1] * source.pixel
    pieces = "\n".join(
        line
        for kind, taps in enumerate(product.library)
        for line in loop(kind, tile.copies, functools.partial(_piece, product, taps))
    )
    depth = f" + (size_t)block * {tile.vectors * source.vector}" if product.depthwise else ""
    add = ""
    if residual is not None:
        add = (
            f"const float *r = add + (size_t)block * {tile.vectors * residual.vector} + y * {residual.row}"
            f" + x * {residual.pixel};"
        )
    return f"""
static void {name}(const float *restrict in, float *restrict out, const float *restrict add,
                   const struct product *d, int first, int last) {{
  for (int item = first; item < last; ++item) {{
    const int group = item / {down * across}, ty = item / {across} % {down}, tx = item % {across};
    const int y = least(ty * {tile.rows}, {product.height - tile.rows});
    const int x = least(tx * {tile.columns}, {product.width - tile.columns});
    const int stop = least((group + 1) * {tile.together}, d->blocks);
    for (int block = group * {tile.together}; block < stop; ++block) {{
      const float *p = in + y * {down_step} + x * {across_step}{depth};
      const uint32_t *start = d->starts + 2 * block;
      const int32_t *o = d->offsets + start[0];
      const {stored} *w = (const {stored} *)d->weights + start[1];
      const uint16_t *n = d->counts + (size_t)block * d->chunks * {kinds};
      vf {", ".join(f"{sum_} = zero()" for sum_ in sums)};
      for (int chunk = 0; chunk < d->chunks; ++chunk, n += {kinds}) {{
{pieces}
      }}
      const float *scale = d->scale + (size_t)block * {2 * tile.vectors * lanes};
      float *q = out + (size_t)block * {tile.vectors * target.vector}
                 + y / {half} * {target.row} + x / {half} * {target.pixel};
      {add}
{chr(10).join(_store(product))}
    }}
  }}
}}
"""
