"""Latency of one image: dense engines measured in turns, the same weights in all of them.

scripts/bench/peers/setup.sh                                    makes the engines' environments (minutes)
python scripts/bench/latency.py --networks vgg16_cifar          measures every engine, by one thread and by two
python scripts/bench/latency.py --engines onnxruntime,mnn --threads 1 --rounds 20 --peak

Cells are network, engine and threads; scripts/bench/results/latency.json keeps those that are not measured again.
Weights are random (He normal), projected onto the sets that the network's name says: every engine gets the same pruned
network, and only deepsparse and our kernels make use of its zeros. An engine that is not installed, fails or
disagrees with the reference is named in one sentence, and the others are measured.
"""

import argparse
import functools
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ours
import peak
from peers import interleave, network, prepare
from peers.interleave import Command

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "latency.json"
SAMPLES = 20
"""Fewest measured inferences of an engine."""
SEED = 0
OURS = {name: Command(Path(sys.executable), Path(__file__).parent / "ours.py") for name in ours.ENGINES}
"""Our own engines, by name: workers of the same protocol, run by the project's Python."""
ENGINES = (*(name for name in prepare.ENVIRONMENTS if name != "numpy"), *OURS)


class Case(NamedTuple):
    """A network of the table.

    Attributes:
        build: makes the flax module.
        side: of its square images with three channels.
        connectivity: share of kernels that a 3x3 convolution keeps, whose others take one of 8 patterns of 4 positions;
            None leaves it dense.
        point: share of the kernels that a 1x1 convolution keeps.
        columns: share of the columns that a hidden dense layer keeps in each strip of 128 rows.
        group: filters that share patterns and kernels; 1 leaves each kernel its own.
        point_group: filters that share the kernels of a 1x1 convolution.
        channels: of its images.
    """

    build: Callable[[], Any]
    side: int
    connectivity: float | None = None
    point: float = 1.0
    columns: float = 1.0
    group: int = 16
    point_group: int = 16
    channels: int = 3


def _vgg16_cifar() -> Any:
    from modicum import models

    return models.VGG16()


def _vgg16() -> Any:
    from modicum import models

    return models.VGG16(classes=1000, hidden=(4096, 4096))


def _resnet50() -> Any:
    from modicum import models

    return models.resnet50()


def _mobilenet_v2() -> Any:
    from modicum import models

    return models.MobileNetV2(classes=1000)


def _layer(outputs: int) -> Any:
    import flax.linen as nn

    return nn.Conv(outputs, (3, 3), use_bias=False)


LAYERS = ((512, 512, 14), (512, 512, 28), (256, 256, 56), (128, 128, 112), (64, 64, 224))
"""Convolutions of VGG-16: input channels, filters, side of the image."""

NETWORKS = {
    "vgg16_cifar_8x": Case(_vgg16_cifar, 32, 1 / 3.6),
    "vgg16_cifar_2.25x": Case(_vgg16_cifar, 32, 1.0),
    "vgg16_cifar_dense": Case(_vgg16_cifar, 32),
    "vgg16_8x": Case(_vgg16, 224, 1 / 3.6, columns=0.1),
    "vgg16_2.25x": Case(_vgg16, 224, 1.0),
    "vgg16_cifar_free_8x": Case(_vgg16_cifar, 32, 1 / 3.6, group=1),
    "vgg16_free_8x": Case(_vgg16, 224, 1 / 3.6, columns=0.1, group=1),
    "resnet50_pruned": Case(_resnet50, 224, 1 / 3.6, point=0.25, point_group=32),
    "mobilenet_v2_pruned": Case(_mobilenet_v2, 224, point=0.25),
    "mobilenet_v2_dense": Case(_mobilenet_v2, 224),
    **{
        f"layer_{inputs}_{outputs}_{side}{name}_8x": Case(
            functools.partial(_layer, outputs), side, 1 / 3.6, group=group, channels=inputs
        )
        for inputs, outputs, side in LAYERS
        for name, group in (("", 16), ("_free", 1))
    },
}


def sets(case: Case, params: Any) -> Any:
    """The constraint of each leaf: all 3x3 convolutions but the first, 1x1 ones, dense layers but the last."""
    from modicum.constraints import MEST_8, BlockColumnRow, Kernels, Patterns, by_path, nest

    def convolution(w: Any) -> Any:
        window, inputs = w.shape[:2], w.shape[2]
        if window == (3, 3) and inputs > 3 and case.connectivity is not None:
            patterns = Patterns(MEST_8, group=case.group)
            kept = round(case.connectivity * inputs)
            return patterns if kept == inputs else nest(Kernels(kept, group=case.group), patterns)
        if window != (1, 1) or case.point == 1:
            return None
        return Kernels(round(case.point * inputs), group=case.point_group)

    def matrix(w: Any) -> Any:
        inputs, outputs = w.shape
        if case.columns == 1 or outputs <= 1000:
            return None
        blocks = 8
        return BlockColumnRow(round(case.columns * inputs / blocks), None, strips=outputs // 128, blocks=blocks)

    def any_kernel(w: Any) -> Any:
        return convolution(w) if w.ndim == 4 else matrix(w)

    return by_path({"kernel": any_kernel}, params)


def random_weights(shapes: Any, seed: int = SEED) -> Any:
    """He-normal kernels, and normalization that does nothing: statistics, scales and biases of 0 and 1.

    Args:
        shapes: a pytree of `jax.ShapeDtypeStruct`, as `jax.eval_shape(model.init, ...)` gives it.
        seed: of the kernels.

    Returns:
        The same tree of float32 NumPy arrays.
    """
    import jax

    generator = np.random.default_rng(seed)
    ones = ("scale", "var")

    def leaf(path: tuple[Any, ...], shape: Any) -> np.ndarray:
        if path[-1].key == "kernel":
            deviation = np.float32(np.sqrt(2 / np.prod(shape.shape[:-1])))
            return generator.standard_normal(shape.shape, np.float32) * deviation
        return np.full(shape.shape, float(path[-1].key in ones), np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def graph_of(case: Case) -> Any:
    """The fused graph of a network with random weights, batch 1."""
    import jax

    from modicum import admm
    from modicum.mobile.graph import fuse, trace

    model = case.build()
    example = jax.ShapeDtypeStruct((1, case.side, case.side, case.channels), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)
    weights = random_weights(shapes)
    weights = admm.project(sets(case, weights), weights)
    return fuse(trace(model.apply, weights, example))


def folder_of(name: str, parent: Path, fresh: bool) -> Path:
    """The folder of a network, written unless it is there."""
    folder = parent / name
    # the reference is the last file that an export writes
    if fresh or not (folder / "reference.npy").exists():
        print(f"{name}: writing the network to {folder}", flush=True)
        network.export(graph_of(NETWORKS[name]), folder, SEED)
    return folder


def command_of(engine: str) -> Command:
    """How an engine is started, ours or a peer."""
    return OURS[engine] if engine in OURS else interleave.peer(engine)


def measure(
    name: str, folder: Path, engines: tuple[str, ...], threads: int, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Cells of one network and one number of threads, by engine; an engine that fails has "error" alone."""
    failures = prepare.prepare(folder, engines)
    commands = {engine: command_of(engine) for engine in engines if engine not in failures}
    tell = functools.partial(print, f"{name}, {threads} thread(s):", file=sys.stderr, flush=True)
    measured = interleave.interleave(folder, commands, threads, arguments.rounds, arguments.runs, tell=tell)
    operations = 2 * network.multiply_accumulates(network.read(folder))
    cells = {engine: {"engine": engine, "error": sentence} for engine, sentence in failures.items()}
    for engine, cell in measured.items():
        if "error" not in cell:
            # of the dense network, whatever zeros it has
            cell["dense_gflops"] = operations / cell["wall_ms_median"] / 1e6
            cell["reduced_precision"] = engine in prepare.REDUCED
        cells[engine] = {"network": name, **cell}
    return cells


def store(path: Path, cells: Mapping[str, Any], peaks: Mapping[str, Any] | None) -> None:
    """Puts cells into the results; those of other keys, and peaks measured before, stay."""
    import fcntl

    from modicum.train import report

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cells": {}}
        merged = dict(sorted({**before["cells"], **cells}.items()))
        report.write_json(path, {**before, **({"peaks": peaks} if peaks else {}), "cells": merged})


def table(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Engines in the order of their wall medians, each beside the fastest in float32."""
    measured = sorted((cell for cell in cells.values() if "error" not in cell), key=lambda cell: cell["wall_ms_median"])
    exact = [cell for cell in measured if not cell["reduced_precision"]]
    lines = [
        "| engine | version | wall min, ms | wall median | CPU median | x fastest (wall) | x fastest (CPU) | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in measured:
        ratios = [
            f"{cell[key] / min(other[key] for other in exact):.2f}" if exact else ""
            for key in ("wall_ms_median", "cpu_ms_median")
        ]
        numbers = [f"{cell[key]:.3f}" for key in ("wall_ms_min", "wall_ms_median", "cpu_ms_median")]
        label = cell["engine"] + (" (reduced precision)" if cell["reduced_precision"] else "")
        words = [label, cell["version"], *numbers, *ratios, f"{cell['relative_error']:.1e}"]
        lines.append(f"| {' | '.join(words)} |")
    lines += [cell["error"] for cell in cells.values() if "error" in cell]
    return "\n".join(lines)


def names(text: str, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The names in a list with commas between.

    Raises:
        ValueError: if one is not known.
    """
    chosen = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    wrong = [word for word in chosen if word not in known]
    if wrong or not chosen:
        raise ValueError(f"{what} must be of {', '.join(known)}, got {', '.join(wrong) or 'nothing'}")
    return chosen


def flags(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Measures the latency of one image under several engines.")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="commas between")
    parser.add_argument("--engines", default=",".join(ENGINES), help="commas between")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, commas between")
    parser.add_argument("--rounds", type=int, default=10, help="turns of every engine")
    parser.add_argument("--runs", type=int, default=3, help="inferences in a turn")
    parser.add_argument("--peak", action="store_true", help="measure the core's own peaks as well")
    parser.add_argument("--fresh", action="store_true", help="write the networks anew")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "latency", help="folder of the networks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(words)


def run(arguments: argparse.Namespace) -> None:
    """Measures, prints and writes what the command line asks for.

    Raises:
        ValueError: if a name is not known, there are too few cores, or too few samples are asked for.
    """
    networks = names(arguments.networks, tuple(NETWORKS), "networks")
    engines = names(arguments.engines, ENGINES, "engines")
    threads = [int(word) for word in names(arguments.threads, tuple(map(str, range(1, 65))), "threads")]
    if arguments.rounds * arguments.runs < SAMPLES or arguments.rounds < 1:
        raise ValueError(f"rounds x runs must be at least {SAMPLES}, got {arguments.rounds} x {arguments.runs}")
    for count in threads:
        interleave.cores_for(count)
    from modicum.mobile.native.machine import processor
    from modicum.train import report

    peaks = peak.measure() if arguments.peak else None
    if peaks:
        store(arguments.results, {}, peaks)
        print(f"one core: {peaks['fma_gflops']} GFLOP/s in float32; {peaks['loads']}")
    versions = report.versions()
    facts = {key: versions[key] for key in ("commit", "jax", "machine")}
    facts["machine"] = {**facts["machine"], "model": processor()}
    for name in networks:
        folder = folder_of(name, arguments.folder, arguments.fresh)
        for count in threads:
            cells = measure(name, folder, engines, count, arguments)
            date = time.strftime("%Y-%m-%d")
            whole = {
                f"{name} | {engine} | {count}": {**cell, **facts, "date": date}
                for engine, cell in cells.items()
                if "error" not in cell
            }
            store(arguments.results, whole, None)
            load = max((cell["load_average"] for cell in whole.values()), default=0.0)
            print(f"\n{name}, {count} thread(s), load {load:.1f} before\n{table(cells)}", flush=True)


def main() -> int:
    """Runs the command; returns the exit code."""
    # an exception, so that the workers, which may be stopped, are killed
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(flags())
    except KeyboardInterrupt:
        return 130
    except (ValueError, RuntimeError) as error:
        print(f"latency: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
