"""Pipelines across systems: what one makes, the next takes; the same command goes on in the stage where it stopped.

A pipeline is a frozen dataclass with `run(folder, root, console) -> list[Line]`; `run` below writes its lines.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from modicum import train
from modicum.core import Constraint, Params, check, leaves_by_path, select_by_path, sites
from modicum.systems import compression, exporting, face_calls, face_codec, face_generator, federation, simulation
from modicum.systems.compression_config import Recipe, Schedule
from modicum.systems.federation_config import FederatedConfig
from modicum.systems.simulation_config import Simulation
from modicum.train import prepared, report


class Line(NamedTuple):
    """What a stage came to.

    Attributes:
        stage: its name.
        figures: numbers by what they are: `"accuracy"`, `"energy, nJ"`, ...
    """

    stage: str
    figures: dict[str, float]


class Pipeline(Protocol):
    """Anything with a `run`; every stage leaves its own run folder inside `folder`."""

    def run(self, folder: Path, root: Path | None, console: Console | None) -> list[Line]:
        """Runs all stages, or reads those that are finished."""
        ...


def _compressed(outcome: compression.Outcome) -> Line:
    made = outcome.summary
    names = (
        "dense_accuracy",
        "accuracy",
        "test_examples",
        "weights",
        "kept",
        "dense_bytes",
        "packed_bytes",
        "violation",
    )
    return Line("compressed", {name.replace("_", " "): made[name] for name in names})


def _simulated(name: str, made: dict[str, Any]) -> Line:
    chips, total = np.asarray(made["chips"]), made["total"]
    figures = {
        "software": made["software"],
        "chips, mean": float(chips.mean()),
        "chips, least": float(chips.min()),
        "chips": len(chips),
        "test examples": made["test_examples"],
        "energy, nJ": 1e9 * total["energy_joules"],
        "time, us": 1e6 * total["latency_seconds"],
        "area, mm2": total["area_mm2"],
    }
    varied = {f"mean at {sigma}": float(np.mean(found)) for sigma, found in made["variations"].items()}
    return Line(f"on {name}", figures | varied)


def _exported(found: exporting.Exported) -> dict[str, float]:
    return {
        "accuracy": found.accuracy,
        "accuracy before": found.accuracy_before,
        "test examples": found.examples,
        "largest difference": found.difference,
        "one example, ms": 1e3 * found.seconds,
        "XLA, ms": 1e3 * found.portable_seconds,
    }


def check_read_as_constrained(fun: Callable[..., Any], params: Params, constraints: Any, *args: Any) -> None:
    """Refuses a network that multiplies data by something made of constrained weights, and not by these themselves.

    Args:
        fun: whose first argument are the parameters.
        params: of the network.
        constraints: pytree like params of constraints or None.
        *args: further arguments of `fun`.

    Raises:
        ValueError: if there is such a product: what lies in a set (signs, grid) is not what a device would hold.
    """
    among = leaves_by_path(constraints, is_leaf=lambda part: isinstance(part, Constraint))
    for site in sites(fun, params, *args):
        made_of = [path for path in site.name.split("+") if isinstance(among.get(path), Constraint)]
        if site.leaf is None and made_of:
            raise ValueError(
                f"network must multiply by its constrained weights as they are, got a product with {site.name}, made "
                f"of {made_of[0]}: spiking networks do with normalize='none'"
            )


@dataclass(frozen=True, kw_only=True)
class OnDevices:
    """A compressed network as native code, if asked for, and on simulated chips.

    Attributes:
        network: how it is trained and compressed.
        devices: simulations by name; their networks are `network`.
        native: whether it is compiled and saved as a bundle, too.
        threads: of the native code.
    """

    network: Recipe
    devices: tuple[tuple[str, Simulation], ...]
    native: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        check.integer(1, threads=self.threads)
        for name, simulated in self.devices:
            if simulated.network != self.network:
                raise ValueError(f"devices must simulate the network of the pipeline, {name!r} has another")

    def run(self, folder: Path, root: Path | None, console: Console | None) -> list[Line]:
        """See `Pipeline`."""
        compressed = folder / "compressed"
        outcome = compression.run(self.network, "admm", compressed, root=root, console=console)
        lines = [_compressed(outcome)]
        data, made = self.network.dense.data, outcome.result
        held_out = train.load_split(data, data.test, root)
        check_read_as_constrained(self.network.dense.model.apply, made.params, made.constraints, held_out.inputs[:1])
        if self.native:
            found = exporting.export(
                self.network.dense.model,
                made.params,
                made.constraints,
                held_out,
                folder / "bundle",
                threads=self.threads,
            )
            lines.append(Line("exported", _exported(found)))
        for name, simulated in self.devices:
            made = simulation.run(simulated, compressed, folder / name, root=root, console=console)
            lines.append(_simulated(name, made.summary))
        return lines


@dataclass(frozen=True, kw_only=True)
class PrivateToPhone:
    """A network pruned while it is trained over clients that hide their updates; then a bundle for a phone.

    Attributes:
        federated: the run, with constraints.
        targets: of bundles, see `mobile.compile`; that for this machine is checked on the held-out examples.
        threads: of the native code.
    """

    federated: FederatedConfig
    targets: tuple[str, ...] = ("host", "aarch64-linux")
    threads: int = 1

    def __post_init__(self) -> None:
        check.integer(1, threads=self.threads)
        if not self.federated.constraints:
            raise ValueError("federated must have constraints: without them nothing is pruned")

    def run(self, folder: Path, root: Path | None, console: Console | None) -> list[Line]:
        """See `Pipeline`."""
        config = self.federated
        trained = federation.federate(config, folder / "federated", root=root, console=console)
        names = ("test_accuracy", "projected_test_accuracy", "violation", "upload_bytes", "protocol_cpu_seconds")
        lines = [Line("federated", {name.replace("_", " "): trained.summary[name] for name in names})]
        held_out = train.load_split(config.data, config.data.test, root)
        params = trained.state.params
        sets = select_by_path(dict(config.constraints), params)
        network = config.model, params, sets, held_out
        for target in self.targets:
            bundle, settings, figures = folder / f"bundle-{target}", {"target": target, "threads": self.threads}, {}
            if target == "host":
                figures = _exported(exporting.export(*network, bundle, **settings))
            else:
                # it cannot run here: there is nothing to time or to compare
                exporting.compiled_for(*network, **settings).save(bundle)
            size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
            lines.append(Line(f"exported for {target}", figures | {"bundle, bytes": size}))
        return lines


@dataclass(frozen=True, kw_only=True)
class OnCall:
    """A face model whose generator is pruned to patterns, compiled, and used on a call.

    Attributes:
        training: of the model.
        schedule: of pruning and retraining.
        clip: a file of `$MODICUM_DATA/clips`, or "" for the moving astronaut.
        seconds: of the astronaut.
        frames: held-out frames of the call, at most.
        threads: of the native generator.
    """

    training: face_codec.FaceTraining
    schedule: Schedule = field(default_factory=Schedule)
    clip: str = ""
    seconds: float = 8.0
    frames: int = 100
    threads: int = 1

    def __post_init__(self) -> None:
        check.integer(1, frames=self.frames, threads=self.threads)
        check.finite_positive(seconds=self.seconds)

    def _clips(self, root: Path | None) -> tuple[np.ndarray, np.ndarray]:
        from modicum.conference import clips, demonstration

        size = self.training.spec.size
        if not self.clip:
            return clips.split(demonstration.clip(size, self.seconds))
        folder = prepared.data_folder(self.clip, "clips", root)
        return clips.split(clips.read_listed(folder, self.clip, size))

    def run(self, folder: Path, root: Path | None, console: Console | None) -> list[Line]:
        """See `Pipeline`."""
        from modicum.conference import codec

        (first, held_out), spec = self._clips(root), self.training.spec
        held_out = held_out[: self.frames]
        params = face_codec.train_face([first], self.training, folder / "face", console)
        batches = face_codec.face_batches([first], self.training, console)
        schedule = self.schedule.config()
        pruned = face_generator.compress_face(params, spec, batches, schedule, folder=folder / "pruned")
        lines = []
        for name, weights in (("dense", params), ("pruned", pruned.params)):
            face = codec.make_codec(spec, weights, first)
            face_codec.save_model(folder / f"{name}.npz", face)
            lines.append(Line(f"call, {name}", _called(face, held_out)))
        lines[-1].figures["violation"] = pruned.report.violation
        native = _drawn(pruned.params, pruned.constraints, spec, held_out, self.threads)
        return [*lines, Line("generator by native kernels", native)]


def _called(face: Any, frames: np.ndarray) -> dict[str, float]:
    from modicum.conference import CallSpec, quality

    # the model alone: no video in its place where it draws badly
    called = face_calls.call(face, frames, CallSpec(fallback=False), None)
    shown = called.frames[: len(frames)]
    found = quality.measure(frames[: len(shown)], shown)
    return {"kbps": called.kbps, "PSNR, dB": found["psnr"], "MS-SSIM": found["ms_ssim"], "frames": len(shown)}


def _drawn(params: Any, sets: Any, spec: Any, frames: np.ndarray, threads: int) -> dict[str, float]:
    """One held-out frame by the compiled generator and by XLA: how long, and how far apart."""
    from modicum.conference import network

    pictures = frames[:2].astype(np.float32) / 255
    source = jax.jit(network.read, static_argnums=1)(params, spec, pictures[:1])
    motion = jax.jit(network.encode, static_argnums=1)(params, spec, pictures[1:])
    inputs = jax.jit(face_generator.decoder_inputs, static_argnums=1)(params, spec, source, motion)
    native, row = face_generator.native_decoder(params, spec, sets, threads=threads), face_generator.joined(inputs)
    difference = float(np.abs(np.asarray(native.compiled(row)) - np.asarray(native.portable(row))).max())
    seconds = {name: exporting.least_seconds(fun, row) for name, fun in zip(native._fields, native, strict=True)}
    return {
        "largest difference": difference,
        "one frame, ms": 1e3 * seconds["compiled"],
        "XLA, ms": 1e3 * seconds["portable"],
    }


def run(
    pipeline: Any,
    folder: str | Path,
    *,
    fresh: bool = False,
    root: str | Path | None = None,
    console: Console | None = None,
) -> list[Line]:
    """Runs a pipeline; the same call again goes on in the stage where it stopped.

    Args:
        pipeline: one of this module or of `frontier`.
        folder: `config.json`, `versions.json`, `result.json` (the lines), and a folder per stage.
        fresh: whether to start over in a folder that holds a run.
        root: folder of data.
        console: where progress is shown.

    Raises:
        ValueError: if the data are not there, the folder holds another run, or a stage refuses its input.
    """
    folder, described = Path(folder), train.describe(pipeline)
    if not fresh:
        report.check_folder(folder, described)
    report.open_folder(folder, described, fresh=fresh)
    if fresh:
        for stage in (path for path in folder.iterdir() if path.is_dir()):
            shutil.rmtree(stage)
    lines = pipeline.run(folder, None if root is None else Path(root), console)
    report.write_json(folder / "result.json", [line._asdict() for line in lines])
    return lines


def load_pipeline(path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """The pipeline that a config file's `config(...)` returns.

    Args:
        path: a Python file of `configs/pipelines`.
        overrides: `name=value` for arguments of `config`.

    Raises:
        ValueError: if there is no such file, it makes no pipeline, or an override names no argument.
    """
    made, _ = train.configured(path, overrides, settings=False)
    if not hasattr(made, "run"):
        raise ValueError(f"config() of {path} must return a pipeline, got {type(made).__name__}")
    return made


def table(lines: Sequence[Line], name: str, folder: Path) -> Table:
    """A row per stage: its figures in words.

    Args:
        lines: of `run`.
        name: of the pipeline.
        folder: of the run.
    """
    shown = Table(title=name, caption=str(folder))
    shown.add_column("stage", no_wrap=True)
    shown.add_column("figures")
    for line in lines:
        shown.add_row(line.stage, in_words(line.figures))
    return shown


def in_words(figures: Mapping[str, float]) -> str:
    """The figures of a stage, counts whole, the rest to four digits: `accuracy 0.9812; chips 8`."""
    return "; ".join(
        f"{what} {f'{value:,}' if isinstance(value, int) else f'{value:.4g}'}" for what, value in figures.items()
    )
