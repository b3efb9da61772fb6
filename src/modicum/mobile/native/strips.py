"""A sparse matrix times one vector: rows that read the same columns lie together, wherever they stand in the matrix.

Made for block-pruned matrices (`constraints.BlockColumnRow`), in which the rows of a strip share their columns and
whole rows are zero, but only the zeros are read: whatever set the weights lie in, rows without weights are left out
and the rest is reordered into vectors of rows with alike columns. One program computes all of them; vectors, columns
and places are data.

Reference:
    RTMobile (Dong et al., DAC 2020): matrix reorder and redundant load elimination.
"""

from dataclasses import dataclass

import numpy as np

MOST = 8
"""Vectors of a block: so many sums hide the latency of multiply-adds, and an input is loaded once for all."""

_OPEN = 16
"""Vectors with room that a row may still join; more would only cost time."""


@dataclass(frozen=True, eq=False)
class Strips:
    """A matrix in reading order.

    Attributes:
        lanes: rows of a vector.
        blocks: vectors, columns, first offset, first weight, first row, whether the rows of each vector follow each
            other; int32 `(blocks, 6)`.
        offsets: columns of each block, uint16; blocks in a row that share them name the same ones.
        rows: where each lane goes, uint16 `(vectors, lanes)`; lanes that are left over repeat the first one.
        values: weights of each block, `[columns][vectors][lanes]`.
        covered: whether every row is computed; the others are zero.
    """

    lanes: int
    blocks: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray
    values: np.ndarray
    covered: bool

    @property
    def index_bytes(self) -> int:
        """Bytes of all that is no weight."""
        return self.blocks.nbytes + self.offsets.nbytes + self.rows.nbytes


@dataclass(eq=False)
class _Rows:
    """Rows that are computed together, and the columns that any of them reads."""

    rows: list[int]
    columns: np.ndarray

    @property
    def count(self) -> int:
        return int(self.columns.sum())


def _vectors(used: np.ndarray, lanes: int) -> list[_Rows]:
    """Rows in vectors: equal ones first, then each remainder with the one that it adds the fewest columns to.

    Args:
        used: whether a row reads a column, `(rows, columns)`.
        lanes: rows of a vector.
    """
    alike: dict[bytes, list[int]] = {}
    for row, signature in enumerate(np.packbits(used, axis=1)):
        if signature.any():
            alike.setdefault(signature.tobytes(), []).append(row)
    placed: list[tuple[int, _Rows]] = []
    room: list[_Rows] = []
    for rows in alike.values():
        whole = len(rows) // lanes * lanes
        columns = used[rows[0]]
        placed += [(rows[0], _Rows(rows[at : at + lanes], columns)) for at in range(0, whole, lanes)]
        rest = rows[whole:]
        if not rest:
            continue
        fits = [vector for vector in room[-_OPEN:] if len(vector.rows) + len(rest) <= lanes]
        added = [int((columns & ~vector.columns).sum()) for vector in fits]
        # a vector of its own beside equal ones costs a load for each column, elsewhere it loads the input as well
        alone = int(columns.sum()) * (1 if whole else 2)
        if fits and 2 * min(added) < alone:
            best = fits[int(np.argmin(added))]
            best.rows += rest
            best.columns = best.columns | columns
        else:
            best = _Rows(rest, columns)
            room.append(best)
            placed.append((rows[0], best))
        if len(best.rows) == lanes:
            room = [vector for vector in room if vector is not best]
    return [vector for _, vector in sorted(placed, key=lambda pair: pair[0])]


def _blocks(vectors: list[_Rows], lanes: int) -> list[_Rows]:
    """Vectors in blocks that share their columns, where loading the input once saves more than zeros cost."""
    blocks: list[_Rows] = []
    sizes: list[int] = []
    for vector in vectors:
        rows = vector.rows + vector.rows[:1] * (lanes - len(vector.rows))
        if blocks and sizes[-1] < MOST:
            both = blocks[-1].columns | vector.columns
            if int(both.sum()) * (sizes[-1] + 2) <= blocks[-1].count * (sizes[-1] + 1) + 2 * vector.count:
                blocks[-1] = _Rows(blocks[-1].rows + rows, both)
                sizes[-1] += 1
                continue
        blocks.append(_Rows(rows, vector.columns))
        sizes.append(1)
    return blocks


def strips(weight: np.ndarray, lanes: int, free: np.ndarray | None = None) -> Strips:
    """A matrix in reading order.

    Args:
        weight: `(inputs, outputs)`; its outputs are the rows.
        lanes: rows of a vector.
        free: outputs that nobody reads, `(outputs,)`: they may be computed with the one before them, so that vectors
            stay where they are.

    Raises:
        ValueError: if there are too many inputs or outputs for offsets of 16 bits.
    """
    if max(weight.shape) > 1 << 16:
        raise ValueError(f"weight must have at most {1 << 16} inputs and outputs, got shape {weight.shape}")
    used = np.ascontiguousarray(weight.T != 0)
    for row in [] if free is None else np.flatnonzero(free):
        used[row] = used[row - 1]
    table, offsets, values, rows, number = [], [], [], [], 0
    first_offset, begin, weights = 0, 0, 0
    last: np.ndarray | None = None
    for block in _blocks(_vectors(used, lanes), lanes):
        columns = np.flatnonzero(block.columns)
        if last is None or not np.array_equal(columns, last):
            begin, last = first_offset, columns
            first_offset += len(columns)
            offsets.append(columns)
        places = np.array(block.rows).reshape(-1, lanes)
        straight = bool((places == places[:, :1] + np.arange(lanes)).all())
        table.append((len(places), len(columns), begin, weights, number, straight))
        values.append(weight[np.ix_(columns, block.rows)].reshape(-1))
        rows.append(places)
        number += len(places)
        weights += len(columns) * len(block.rows)
    none = np.zeros(0)
    return Strips(
        lanes,
        np.array(table, np.int32).reshape(-1, 6),
        np.concatenate(offsets or [none]).astype(np.uint16),
        np.concatenate(rows or [none.reshape(0, lanes)]).astype(np.uint16),
        np.concatenate(values or [none]).astype(np.float32),
        bool(used.any(axis=1).all()),
    )


def _case(vectors: int, lanes: int) -> str:
    """A block of so many vectors: several sets of sums where there are few, since a sum waits for its last addition."""
    copies = -(-MOST // vectors)
    every = range(vectors)

    def columns(count: int) -> str:
        text = "".join(
            f"{{ const vf s = zero() + in[o[{copy}]];\n"
            + "\n".join(f"a{v}_{copy} += s * *(const vf *)(w + {(copy * vectors + v) * lanes});" for v in every)
            + " }\n"
            for copy in range(count)
        )
        return f"{{\n{text}o += {count}; w += {count * vectors * lanes}; }}"

    sums = ", ".join(f"a{v}_{copy} = zero()" for v in every for copy in range(copies))
    several = f"for (; n >= {copies}; n -= {copies}) {columns(copies)}\n" if copies > 1 else ""
    ends = "\n".join(f"a[{v}] = {' + '.join(f'a{v}_{copy}' for copy in range(copies))};" for v in every)
    return f"case {vectors}: {{\nvf {sums};\n{several}for (; n; --n) {columns(1)}\n{ends}\nbreak; }}\n"


def kernels(lanes: int) -> str:
    """C text: the product of some blocks with a vector, and the share of blocks of a thread."""
    cases = "".join(_case(vectors, lanes) for vectors in range(1, MOST + 1))
    return f"""
struct strip {{ int32_t vectors, columns, offset, weight, row, straight; }};
struct strips {{
  const float *weights;
  const uint16_t *offsets, *rows;
  const struct strip *blocks;
  int count, size;
}};

/* First block of a part, by weights; that of the part after the last one is their number. */
static int strips_from(const struct strips *d, int part, int parts) {{
  int block = 0;
  if (part == parts) return d->count;
  while (block < d->count && (int64_t)d->blocks[block].weight * parts < (int64_t)d->size * part) ++block;
  return block;
}}

/* Some blocks, the last first where `back`: what one pass read last is still near when the next pass begins with it. */
static void strips_run(const float *restrict in, float *restrict out, const struct strips *d,
                       int first, int last, int back) {{
  for (int item = first; item < last; ++item) {{
    const struct strip *b = d->blocks + (back ? first + last - 1 - item : item);
    const float *w = d->weights + b->weight;
    const uint16_t *o = d->offsets + b->offset;
    const uint16_t *rows = d->rows + (size_t)b->row * LANES;
    int n = b->columns;
    vf a[{MOST}];
    switch (b->vectors) {{
{cases}    }}
    if (b->straight)
      for (int v = 0; v < b->vectors; ++v) *(vfu *)(out + rows[v * LANES]) = a[v];
    else
      for (int v = 0; v < b->vectors; ++v)
        for (int lane = 0; lane < LANES; ++lane) out[rows[v * LANES + lane]] = a[v][lane];
  }}
}}
"""
