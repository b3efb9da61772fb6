"""What a compressed network costs, layer by layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from modicum.core import Bytes, Packed, Params, sites

NO_BYTES = Bytes(0, 0, 0)
DERIVED = "derived"
"""Layout of a site whose weight is computed from its leaves: the leaves have rows of their own."""
SHARED = "shared"
"""Layout of a further site on a leaf whose bytes stand in an earlier row."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stationary operator, or a leaf that feeds none (a bias).

    Attributes:
        name: the site's name, or the leaf's path.
        layout: how the weight is packed; `dense`, `derived` or `shared` else.
        shape: shape of the parameter, or of the weight operand where it is derived.
        macs: multiply-accumulates of one call; 0 for a leaf without a site.
        calls: how often the operator runs in one evaluation; `None` inside a `while` loop.
        dense_bytes: size of the parameter as it is.
        packed: exact size of its packed form.
    """

    name: str
    layout: str
    shape: tuple[int, ...]
    macs: int
    calls: int | None
    dense_bytes: int
    packed: Bytes

    @property
    def ratio(self) -> float:
        """Dense bytes per packed byte; NaN in a row without bytes."""
        return self.dense_bytes / self.packed.total if self.packed.total else float("nan")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One step of a native program, or an operator that XLA runs.

    Attributes:
        name: of the layer.
        kernel: kind, with its register tile (rows x columns x filters); "xla: ..." where there is none.
        macs: multiply-accumulates of one image on weights that are not skipped.
        dense_macs: those of the layer without zeros.
        payload: bytes of weights.
        index: bytes that say where they belong.
        seconds: of one image on one thread, None where not measured.
    """

    name: str
    kernel: str
    macs: int = 0
    dense_macs: int = 0
    payload: int = 0
    index: int = 0
    seconds: float | None = None

    @property
    def gflops(self) -> float | None:
        """Billions of operations a second on weights that are not skipped."""
        return 2e-9 * self.macs / self.seconds if self.seconds and self.macs else None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rows of a network; `print` shows them as a table.

    Attributes:
        rows: sites in program order, then the leaves that no site reads as they are.
        module_bytes: size of the portable StableHLO module, weights included.
        kernels: steps of the native program; none where XLA runs everything.
    """

    rows: tuple[Row, ...]
    module_bytes: int
    kernels: tuple[Kernel, ...] = ()

    @property
    def total(self) -> Row:
        """The sum of all rows; its MACs are those of one evaluation (a `while` loop counted as one turn)."""
        return Row(
            name="total",
            layout="",
            shape=(),
            macs=sum(row.macs * (1 if row.calls is None else row.calls) for row in self.rows),
            calls=1,
            dense_bytes=sum(row.dense_bytes for row in self.rows),
            packed=Bytes(*(sum(getattr(row.packed, part) for row in self.rows) for part in Bytes._fields)),
        )

    def __str__(self) -> str:
        head = ("layer", "layout", "shape", "MACs", "calls", "dense B", "payload", "index", "meta", "packed B", "ratio")
        lines = _table(head, [_cells(row) for row in (*self.rows, self.total)], 3)
        lines.append(f"StableHLO module: {self.module_bytes} bytes")
        if self.kernels:
            head = ("step", "kernel", "MACs", "of dense", "weights B", "index B", "us", "GFLOP/s")
            lines += ["", *_table(head, [_kernel_cells(kernel) for kernel in self.kernels], 2)]
        return "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], words: int) -> list[str]:
    """Lines of a table whose first columns are words, and the others numbers."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def aligned(line: tuple[str, ...]) -> str:
        texts = (
            text.ljust(w) if i < words else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(texts).rstrip()

    return [aligned(line) for line in lines]


def _kernel_cells(kernel: Kernel) -> tuple[str, ...]:
    share = f"{100 * kernel.macs / kernel.dense_macs:.1f}%" if kernel.dense_macs else "-"
    time = "-" if kernel.seconds is None else f"{1e6 * kernel.seconds:.1f}"
    rate = "-" if kernel.gflops is None else f"{kernel.gflops:.1f}"
    numbers = (str(kernel.macs), share, str(kernel.payload), str(kernel.index), time, rate)
    return kernel.name, kernel.kernel, *numbers


def _cells(row: Row) -> tuple[str, ...]:
    ratio = f"{row.ratio:.2f}" if row.packed.total else "-"
    calls = "?" if row.calls is None else str(row.calls)
    shape = "x".join(map(str, row.shape))
    numbers = (row.macs, calls, row.dense_bytes, *row.packed, row.packed.total)
    return row.name, row.layout, shape, *map(str, numbers), ratio


def layers(fun: Callable[..., Any], params: Params, example: Any, packed: Mapping[str, Packed]) -> tuple[Row, ...]:
    """One row per site of `fun(params, example)` and per leaf without one.

    Every leaf's bytes are counted once, in the row of the first site that reads it.
    """
    spec = jax.eval_shape(lambda x: x, example)
    rows, counted = [], set()
    for site in sites(fun, params, spec):
        if site.leaf is None:
            row = _row(site.name, DERIVED, site.weight.shape, site.macs, site.calls, 0, NO_BYTES)
        elif site.leaf in counted:
            row = _row(site.name, SHARED, packed[site.leaf].shape, site.macs, site.calls, 0, NO_BYTES)
        else:
            counted.add(site.leaf)
            row = _leaf_row(site.name, packed[site.leaf], site.macs, site.calls)
        rows.append(row)
    rest = (_leaf_row(path, leaf, 0, 0) for path, leaf in packed.items() if path not in counted)
    return (*rows, *rest)


def _leaf_row(name: str, leaf: Packed, macs: int, calls: int | None) -> Row:
    dense = int(np.prod(leaf.shape, dtype=np.int64)) * jax.numpy.dtype(leaf.dtype).itemsize
    return _row(name, leaf.layout, leaf.shape, macs, calls, dense, leaf.nbytes)


def _row(
    name: str, layout: str, shape: tuple[int, ...], macs: int, calls: int | None, dense_bytes: int, packed: Bytes
) -> Row:
    return Row(
        name=name, layout=layout, shape=tuple(shape), macs=macs, calls=calls, dense_bytes=dense_bytes, packed=packed
    )
