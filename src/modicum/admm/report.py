"""What a compression run did, as data."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LeafReport:
    """One constrained leaf.

    Attributes:
        path: where it lies in the parameters.
        constraint: its constraint, as text.
        layout: name of the packed format.
        weights: number of weights.
        kept: weights that are not 0.
        dense_bytes: size as the parameters hold it.
        payload_bytes: packed values.
        index_bytes: what says where the values belong.
        metadata_bytes: scales, libraries and other numbers kept once per array.
        primal: `norm(W - Z) / norm(W)` after each dual update.
        dual: `norm(Z - Z_old) / norm(Z)` at each dual update.
        violation_projected: relative distance to the set right after the hard projection.
        violation_retrained: the same at the end; 0 certifies membership.
        round_trip: whether decoding the packed form gave the weight back, bit for bit.
    """

    path: str
    constraint: str
    layout: str
    weights: int
    kept: int
    dense_bytes: int
    payload_bytes: int
    index_bytes: int
    metadata_bytes: int
    primal: tuple[float, ...]
    dual: tuple[float, ...]
    violation_projected: float
    violation_retrained: float
    round_trip: bool

    @property
    def packed_bytes(self) -> int:
        """Payload, index and metadata together."""
        return self.payload_bytes + self.index_bytes + self.metadata_bytes


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole run; `as_dict` is JSON-able, `str` is a table: what is kept, bytes, residuals, and where ADMM ended.

    Attributes:
        leaves: the constrained leaves.
        free_weights: number of weights without a constraint.
        free_bytes: their size; they stay as they are.
        rho: penalty strength of each outer iteration.
        admm_losses: loss at each step of the ADMM stage (of `gradual`: of its pieces).
        retrain_losses: loss at each step of retraining.
        config: the settings (`CompressConfig.describe`).
        stopped: outer iterations after which every residual lay below `stop`; `None` where it never did.
    """

    leaves: tuple[LeafReport, ...]
    free_weights: int
    free_bytes: int
    rho: tuple[float, ...]
    admm_losses: tuple[float, ...]
    retrain_losses: tuple[float, ...]
    config: dict[str, Any]
    stopped: int | None = None

    @property
    def dense_bytes(self) -> int:
        """All parameters before compression."""
        return self.free_bytes + sum(leaf.dense_bytes for leaf in self.leaves)

    @property
    def packed_bytes(self) -> int:
        """All parameters after it: packed leaves and free ones."""
        return self.free_bytes + sum(leaf.packed_bytes for leaf in self.leaves)

    @property
    def violation(self) -> float:
        """The largest violation at the end over all leaves; 0 certifies that each lies in its set."""
        return max((leaf.violation_retrained for leaf in self.leaves), default=0.0)

    @property
    def steps(self) -> int:
        """Optimizer steps of both stages."""
        return len(self.admm_losses) + len(self.retrain_losses)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able values: tuples become lists, and the totals are added."""
        totals = {name: getattr(self, name) for name in ("dense_bytes", "packed_bytes", "violation", "steps")}
        return json.loads(json.dumps(dataclasses.asdict(self) | totals))

    def __str__(self) -> str:
        rows = [_HEADER, *map(_row, self.leaves)]
        free = f"{self.free_weights:,}", f"{self.free_weights:,}", f"{self.free_bytes:,}", f"{self.free_bytes:,}"
        rows.append(("(free)", "dense", *free, "1.0x", "-", "-"))
        kept = sum(leaf.kept for leaf in self.leaves) + self.free_weights
        weights = sum(leaf.weights for leaf in self.leaves) + self.free_weights
        sizes = (
            f"{self.dense_bytes:,}",
            f"{self.packed_bytes:,}",
            f"{self.dense_bytes / max(self.packed_bytes, 1):.1f}x",
        )
        rows.append(("all", "", f"{kept:,}", f"{weights:,}", *sizes, "", f"{self.violation:.1e}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(_aligned, row, widths, range(len(row)))).rstrip() for row in rows]
        if self.rho:
            why = "" if self.stopped is None else f": every residual lay below {self.config['stop']:g}"
            lines.append(f"ADMM ended after {len(self.rho)} of {self.config['outer']} outer iterations{why}")
        return "\n".join(lines)


_HEADER = ("leaf", "format", "kept", "of", "dense B", "packed B", "ratio", "|W-Z|/|W|", "violation")


def _row(leaf: LeafReport) -> tuple[str, ...]:
    sizes = f"{leaf.dense_bytes:,}", f"{leaf.packed_bytes:,}", f"{leaf.dense_bytes / max(leaf.packed_bytes, 1):.1f}x"
    primal = f"{leaf.primal[0]:.3f} -> {leaf.primal[-1]:.1e}" if leaf.primal else "-"
    counts = f"{leaf.kept:,}", f"{leaf.weights:,}"
    return (leaf.path, leaf.layout, *counts, *sizes, primal, f"{leaf.violation_retrained:.1e}")


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)
