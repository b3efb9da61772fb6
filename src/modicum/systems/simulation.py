"""A trained or compressed network on simulated chips: accuracy over chips, and what the very same runs cost."""

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from rich.console import Console

from modicum import analog, models, train
from modicum.core import Key, Params, Site
from modicum.spiking.classifier import SpikingClassifier
from modicum.spiking.synapses import WithoutPull
from modicum.systems import compression
from modicum.systems.compression_config import Recipe
from modicum.systems.progress import bars
from modicum.systems.simulation_config import ARCHITECTURES, Simulation
from modicum.train import report as run_report


@dataclass(frozen=True)
class Outcome:
    """What a simulation came to.

    Attributes:
        report: cost of all measured examples on the first chip, and what was measured at its layers.
        summary: the numbers, JSON-able; nothing in it depends on time or machine.
        devices: of each site.
    """

    report: analog.Report
    summary: dict[str, Any]
    devices: Callable[[Site], analog.Device | None]


def default_folder(simulation: Simulation, config: Path) -> Path:
    """Where scripts/train.py or scripts/compress.py put the network of a config.

    Args:
        simulation: whose network.
        config: its file.
    """
    if isinstance(simulation.network, Recipe):
        return Path("runs") / "compress" / f"{config.parent.name}-{config.stem}-{simulation.arm}"
    # the networks of scripts/train.py lie under their own name, those of a simulation under both
    return Path("runs") / (config.stem if config.parent.name == "train" else f"{config.parent.name}-{config.stem}")


def network(
    simulation: Simulation,
    folder: Path,
    *,
    root: Path | None = None,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """The variables of a trained or compressed network, read from its finished run folder or made there.

    Args:
        simulation: which.
        folder: its run folder.
        root: folder of data.
        console: where progress is shown.
        mesh: the devices that share each batch, see `core.parallel.data_mesh`; one device where None.

    Raises:
        ValueError: as `train.train` and `compression.run` do.
    """
    if isinstance(simulation.network, Recipe):
        outcome = compression.run(simulation.network, simulation.arm, folder, root=root, console=console, mesh=mesh)
        return outcome.result.params
    return train.train(simulation.network, folder, root=root, console=console, mesh=mesh).state.params


def specified(simulation: Simulation) -> Callable[[Site], analog.Device | None]:
    """The device of each site as its spec has it. CAP-RAM whose slices differ is calibrated.

    Args:
        simulation: its specs.
    """

    def own(site: Site) -> analog.Device | None:
        spec = simulation.spec_of(site.name if site.leaf is None else site.leaf)
        if spec is None:
            return None
        if isinstance(spec, analog.ChargeSpec):
            return analog.capram(spec, calibrated=spec.gain_sigma > 0 or spec.offset_lsb > 0)
        return analog.crossbar(spec, architecture=ARCHITECTURES[simulation.architecture])

    return own


def devices(simulation: Simulation, variables: Params, inputs: Any) -> Callable[[Site], analog.Device | None]:
    """The device of each site, with scales fixed by some training examples where the simulation says so.

    Args:
        simulation: its specs.
        variables: of the network.
        inputs: of the training split.
    """
    own = specified(simulation)
    if simulation.quantile == 0:
        return own
    return analog.scaled(
        simulation.experiment.model.apply,
        own,
        variables,
        jnp.asarray(inputs[: simulation.calibration_examples]),
        quantile=simulation.quantile,
        weights=simulation.fit_weights,
    )


def fitted(
    simulation: Simulation,
    chosen: Callable[[Site], analog.Device | None],
    variables: Params,
    training: train.Dataset,
    folder: Path,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> Params:
    """The variables after training through the device; each step's key, so each step's chip, is its own.

    Args:
        simulation: the schedule, the seed.
        chosen: from `devices`.
        variables: to start from.
        training: the split.
        folder: of checkpoints: the same call again goes on where it stopped.
        console: where progress is shown.
        mesh: the devices that share each batch, see `core.parallel.data_mesh`; one device where None.
    """
    schedule, model = simulation.training, simulation.experiment.model
    if schedule.steps == 0:
        return variables
    order_key, chip_key = jax.random.split(jax.random.fold_in(jax.random.key(simulation.seed), 1))
    optimizer = schedule.optimizer()
    device = functools.partial(_functional, chosen) if schedule.functional else chosen
    on_chip = analog.simulate(models.apply_training(_without_blocks(model)), device)

    def loss_fn(variables: Params, batch: Any) -> Any:
        *examples, step = batch
        score = train.classification_loss(lambda v, x: on_chip(jax.random.fold_in(chip_key, step), v, x))
        return score(variables, tuple(examples))

    batches = train.training_batches(simulation.experiment.data, training, order_key, schedule.batch)
    state = train.fit(
        train.init_state(variables, optimizer),
        train.make_train_step(loss_fn, optimizer, has_aux=True),
        Partial(_with_step, batches),
        schedule.steps,
        folder=folder,
        console=console,
        mesh=mesh,
    )
    return _calibrated(simulation, chosen, state.params, training.inputs)


def _without_blocks(model: Any) -> Any:
    """The same network without derivatives of its own, which know nothing of a device."""
    if not isinstance(model, SpikingClassifier):
        return model
    layers = tuple(
        dataclasses.replace(layer, synapse=WithoutPull(layer.synapse)) if hasattr(layer.synapse, "pull") else layer
        for layer in model.layers
    )
    return model.clone(layers=layers, residuals="autodiff", order="time")


def _functional(chosen: Callable[[Site], analog.Device | None], site: Site) -> analog.Device | None:
    picked = chosen(site)
    if picked is None or not isinstance(picked.spec, analog.ChargeSpec):
        return picked
    return analog.capram_functional(picked.spec)


def _with_step(batches: Callable[[Any], Any], step: Any) -> Any:
    return (*batches(step), step)


def _calibrated(
    simulation: Simulation, chosen: Callable[[Site], analog.Device | None], variables: Params, inputs: Any
) -> Params:
    """Batch statistics as the layers on a chip make them."""
    key = jax.random.fold_in(jax.random.key(simulation.seed), 2)
    model, size = simulation.experiment.model, simulation.batch
    some = inputs[: max(simulation.calibration_examples, size)]
    return models.calibrate(
        model,
        variables,
        (some[at : at + size] for at in range(0, len(some) - size + 1, size)),
        wrap=lambda fun: functools.partial(analog.simulate(fun, chosen), key),
    )


def chip_key(simulation: Simulation, chip: int) -> Key:
    """The key that a chip is programmed with."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(simulation.seed), 3), chip)


def accuracies(
    simulation: Simulation,
    chosen: Callable[[Site], analog.Device | None],
    variables: Params,
    held_out: train.Dataset,
    path: Path,
    console: Console | None = None,
) -> list[float]:
    """Held-out accuracy of each chip; those that an earlier call finished are read from `path`.

    Args:
        simulation: chips and examples.
        chosen: from `devices`.
        variables: of the network.
        held_out: the split, cut to the examples to measure.
        path: JSON of what is done.
        console: where progress is shown.
    """
    on_chip = analog.simulate(simulation.experiment.model.apply, chosen)
    done = json.loads(path.read_text()) if path.exists() else []
    with bars(console) as progress:
        task = progress.add_task(path.stem, total=simulation.chips, completed=len(done))
        # one object for all chips, so that one program serves
        apply_fn = functools.partial(_keyed, on_chip)
        while len(done) < simulation.chips:
            keyed = {"key": chip_key(simulation, len(done)), "variables": variables}
            done.append(train.evaluate(apply_fn, keyed, *held_out.arrays, batch=simulation.batch)["accuracy"])
            run_report.write_json(path, done)
            progress.update(task, completed=len(done))
    return done[: simulation.chips]


def _keyed(on_chip: Callable[..., Any], keyed: dict[str, Any], inputs: Any) -> Any:
    return on_chip(keyed["key"], keyed["variables"], inputs)


def cost(
    simulation: Simulation,
    chosen: Callable[[Site], analog.Device | None],
    variables: Params,
    held_out: train.Dataset,
    console: Console | None = None,
) -> tuple[float, analog.Report]:
    """Accuracy of the first chip on whole batches of the held-out examples, and the cost of that very run.

    Args:
        simulation: which chip.
        chosen: from `devices`.
        variables: of the network.
        held_out: the examples.
        console: where progress is shown.
    """
    run = analog.measured(simulation.experiment.model.apply, chosen)
    key, size = chip_key(simulation, 0), min(simulation.batch, len(held_out.labels))
    reports, correct = [], 0
    starts = range(0, len(held_out.labels) - size + 1, size)
    with bars(console) as progress:
        for start in progress.track(starts, description="cost"):
            logits, report = run(key, variables, jnp.asarray(held_out.inputs[start : start + size]))
            correct += int((np.asarray(logits).argmax(-1) == held_out.labels[start : start + size]).sum())
            reports.append(report)
    return correct / (len(starts) * size), analog.merged(reports)


def run(
    simulation: Simulation,
    run_folder: str | Path,
    folder: str | Path,
    *,
    fresh: bool = False,
    root: str | Path | None = None,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> Outcome:
    """Everything: reads or makes the network, fits it to the device, measures chips, variation and cost.

    Args:
        simulation: the settings.
        run_folder: of the network.
        folder: where `result.json`, checkpoints and chips done so far go; the same call again goes on.
        fresh: whether to start over in a folder that holds a simulation.
        root: folder of data.
        console: where progress is shown; nowhere where None.
        mesh: the devices that share each batch of training, see `core.parallel.data_mesh`; one device where None.

    Raises:
        ValueError: if the data are not there, a folder holds a run of other settings, or a loss is not finite.
    """
    folder, root = Path(folder), None if root is None else Path(root)
    described = train.describe(simulation)
    if not fresh:
        run_report.check_folder(folder, described)
    variables = network(simulation, Path(run_folder), root=root, console=console, mesh=mesh)
    data, model = simulation.experiment.data, simulation.experiment.model
    training, held_out = (train.load_split(data, split, root) for split in (data.train, data.test))
    held_out = _first(held_out, simulation.images)
    run_report.open_folder(folder, described, fresh=fresh)
    if fresh:
        for path in folder.glob("chips*.json"):
            path.unlink()
    chosen = devices(simulation, variables, training.inputs)
    software = train.evaluate(model.apply, variables, *held_out.arrays)["accuracy"]
    variables = fitted(simulation, chosen, variables, training, folder, console, mesh)
    chips = accuracies(simulation, chosen, variables, held_out, folder / "chips.json", console)
    measured, report = cost(simulation, chosen, variables, held_out, console)
    curve = {}
    for sigma in simulation.variations:
        varied = simulation.varied(sigma)
        spread = _same_scales(specified(varied), chosen)
        path = folder / f"chips-{sigma:g}.json"
        curve[f"{sigma:g}"] = accuracies(varied, spread, variables, held_out, path, console)
    summary = summarize(simulation, report, len(held_out.labels)) | {
        "software": software,
        "chips": chips,
        "measured_accuracy": measured,
        "variations": curve,
    }
    run_report.write_json(folder / "result.json", summary)
    return Outcome(report, summary, chosen)


def _first(held_out: train.Dataset, images: int | None) -> train.Dataset:
    if images is None:
        return held_out
    return held_out._replace(inputs=held_out.inputs[:images], labels=held_out.labels[:images])


def _same_scales(
    varied: Callable[[Site], analog.Device | None], scaled: Callable[[Site], analog.Device | None]
) -> Callable[[Site], analog.Device | None]:
    """Devices of other variation with the scales that the network was fitted to."""

    def chosen(site: Site) -> analog.Device | None:
        picked, fixed = varied(site), scaled(site)
        if picked is None or fixed is None:
            return picked
        names = ("input_scale", "input_format", "weight_scale")
        scales = {name: getattr(fixed.spec, name) for name in names}
        return picked._replace(spec=dataclasses.replace(picked.spec, **scales))

    return chosen


def summarize(simulation: Simulation, report: analog.Report, examples: int) -> dict[str, Any]:
    """The numbers of a report, per example: energy, time and area by layer and component.

    Args:
        simulation: what was simulated.
        report: of whole batches.
        examples: held-out examples there were.
    """
    counted = examples // min(simulation.batch, examples) * min(simulation.batch, examples)
    total = report.total

    def layer(row: analog.Row) -> dict[str, Any]:
        return {
            "name": row.name,
            "macs": row.macs // counted,
            "crossbars": row.crossbars,
            "conversions": row.conversions / counted,
            "energy_joules": row.energy_joules / counted,
            "latency_seconds": row.latency_seconds / counted,
            "area_mm2": row.area_mm2,
            "parts": {name: joules / counted for name, joules in row.parts},
            "activity": None if row.activity is None else row.activity._asdict(),
        }

    return {
        "data": simulation.experiment.data.name,
        "model": type(simulation.experiment.model).__name__,
        "device": type(simulation.spec).__name__,
        "test_examples": examples,
        "counted_examples": counted,
        "layers": [layer(row) for row in report.rows],
        "total": layer(total),
        "interval_seconds": report.interval_seconds / counted,
        "digital": list(report.digital),
    }
