"""One network under many constraints: accuracy, bytes, latency and energy of each, and which of them nothing beats.

All seeds of a set are compressed by one program (`admm.stages` under `vmap`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from modicum import admm, analog, constraints, mobile, train
from modicum.core import Constraint, Params, check, leaves_by_path
from modicum.systems import compression, drawing
from modicum.systems.compression_config import Schedule
from modicum.systems.exporting import least_seconds
from modicum.systems.pipelines import Line
from modicum.systems.progress import bars

COSTS = ("bytes", "one example, ms", "energy, nJ")
"""What a point of the frontier costs."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A point of the frontier.

    Attributes:
        name: shown in table and picture.
        rules: pairs of a pattern on parameter paths and a constraint, see `Recipe`; empty for the dense network, which
            is trained on for as many steps.
        spec: the crossbar its energy is counted on; of two columns a weight, where signs are free.
    """

    name: str
    rules: tuple[tuple[str, Any], ...] = ()
    spec: analog.CrossbarSpec = field(default_factory=analog.CrossbarSpec)


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """All constraints on one network: a pipeline.

    Attributes:
        dense: the network, trained once for each seed.
        entries: the sets.
        schedule: ADMM and retraining, the same for all.
        seeds: how many dense networks, their seeds counted on from `dense.seed`.
        images: held-out examples whose energy is counted.
    """

    dense: train.Experiment
    entries: tuple[Entry, ...]
    schedule: Schedule = field(default_factory=Schedule)
    seeds: int = 3
    images: int = 100

    def __post_init__(self) -> None:
        check.integer(1, seeds=self.seeds, images=self.images)

    def run(self, folder: Path, root: Path | None, console: Console | None) -> list[Line]:
        """See `pipelines.Pipeline`; draws `frontier.png`."""
        starts = []
        for seed in range(self.seeds):
            experiment = train.parse_overrides(self.dense, [f"seed={self.dense.seed + seed}"])
            made = train.train(experiment, folder / f"dense-{seed}", root=root, console=console)
            starts.append(made.state.params)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
        training, held_out = (train.load_split(self.dense.data, split, root) for split in ("train", "test"))
        with bars(console) as progress:
            lines = [
                Line(entry.name, self._measured(entry, stacked, training, held_out))
                for entry in progress.track(self.entries, description="sets")
            ]
        best = pareto([line.figures for line in lines])
        for index, line in enumerate(lines):
            line.figures["not beaten"] = int(index in best)
        draw(lines, folder / "frontier.png")
        return lines

    def _measured(
        self, entry: Entry, stacked: Params, training: train.Dataset, held_out: train.Dataset
    ) -> dict[str, float]:
        model, schedule = self.dense.model, self.schedule
        key = jax.random.fold_in(jax.random.key(self.dense.seed), 1)
        batches = train.training_batches(self.dense.data, training, key, schedule.batch)
        first = jax.tree.map(lambda leaf: leaf[0], stacked)
        sets = constraints.by_path(dict(entry.rules), first)
        stages = admm.stages(compression.loss_of(model), sets, schedule.config())
        params, info = jax.jit(jax.vmap(stages, in_axes=(0, None)))(stacked, batches)
        scores = [
            train.evaluate(model.apply, jax.tree.map(lambda leaf, s=seed: leaf[s], params), *held_out.arrays)[
                "accuracy"
            ]
            for seed in range(self.seeds)
        ]
        one, fitted = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in (params, info.constraints))
        compiled = mobile.compile(model.apply, one, held_out.inputs[:1], constraints=fitted)
        device = analog.crossbar(entry.spec)
        _, counted = analog.measured(model.apply, device)(
            jax.random.key(0), one, jnp.asarray(held_out.inputs[: self.images])
        )
        return {
            "accuracy": float(np.mean(scores)),
            "least": min(scores),
            "seeds": self.seeds,
            "violation": max((float(jnp.max(each)) for each in info.violation_retrained.values()), default=0.0),
            "bytes": packed_bytes(one, fitted),
            "one example, ms": 1e3 * least_seconds(compiled, held_out.inputs[:1]),
            "energy, nJ": 1e9 * counted.total.energy_joules / self.images,
        }


def packed_bytes(params: Params, sets: Params) -> int:
    """Bytes of all parameters: constrained leaves as their sets encode them, the others as they are.

    Args:
        params: members of their sets.
        sets: the fitted constraint of each leaf, or None.
    """
    chosen = leaves_by_path(sets, is_leaf=lambda part: isinstance(part, Constraint))
    total = 0
    for path, leaf in leaves_by_path(params).items():
        one = chosen.get(path)
        total += np.asarray(leaf).nbytes if one is None else one.encode(leaf).nbytes.total
    return total


def pareto(points: Sequence[dict[str, float]]) -> set[int]:
    """Which points no other beats: none is as accurate and as cheap in everything, and better in something.

    Args:
        points: with "accuracy" and all of `COSTS`.
    """

    def vector(point: dict[str, float]) -> np.ndarray:
        return np.array([-point["accuracy"], *(point[cost] for cost in COSTS)])

    vectors = [vector(point) for point in points]
    return {
        index
        for index, mine in enumerate(vectors)
        if not any((other <= mine).all() and (other < mine).any() for other in vectors)
    }


def draw(lines: Sequence[Line], path: Path) -> None:
    """Accuracy against each cost; what nothing beats is filled.

    Args:
        lines: of a `Frontier`.
        path: the PNG, whole or not there.
    """
    from matplotlib.figure import Figure

    figure = Figure((12, 3.8), layout="constrained")
    for axes, cost in zip(figure.subplots(1, len(COSTS)), COSTS, strict=True):
        for line in lines:
            best = bool(line.figures["not beaten"])
            axes.plot(line.figures[cost], 100 * line.figures["accuracy"], "o", color="C0", mfc="C0" if best else "none")
            axes.annotate(line.stage, (line.figures[cost], 100 * line.figures["accuracy"]), fontsize=7)
        axes.set(xlabel=cost, xscale="log")
    figure.axes[0].set_ylabel("held-out accuracy, %")
    drawing.save(figure, path)
