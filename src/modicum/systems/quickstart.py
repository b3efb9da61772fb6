"""The main job: train, compress, export, reload, and simulate on noisy chips.

Trains a small convolutional net on real data, compresses it onto patterns x connectivity x polarity x 4 bits at once
by ADMM (and, as a control, by one-shot projection with as many training steps), exports the compressed network as
portable StableHLO, loads and verifies it, and runs it on simulated ReRAM chips with programming variation.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from modicum import admm, analog, mobile, train
from modicum.core import Key, Params
from modicum.models import SmallConvNet
from modicum.systems.progress import bars, stages
from modicum.systems.quickstart_config import QuickstartConfig, network, sets_for
from modicum.train import report as run_report

ARMS = ("admm", "one_shot")


class Splits(NamedTuple):
    """The data of a run."""

    train: train.Dataset
    test: train.Dataset


class Arm(NamedTuple):
    """One compressed network."""

    result: admm.Result
    accuracy: float


class Seed(NamedTuple):
    """What one seed came to."""

    dense: Params
    dense_accuracy: float
    projected_accuracy: float
    """After the hard projection of the dense weights, without any retraining."""
    arms: dict[str, Arm]


class Outcome(NamedTuple):
    """What the whole job came to; `summary` is JSON-able."""

    config: QuickstartConfig
    seeds: list[Seed]
    chips: list[float]
    ideal_chip: float
    verification: mobile.Verification
    bundle: mobile.Compiled
    cost: analog.Report
    summary: dict[str, Any]


def _say(console: Console | None, text: str) -> None:
    if console is not None:
        console.print(text, highlight=False)


def run_seed(
    config: QuickstartConfig, seed: int, data: Splits, folder: Path, console: Console | None, programs: "Programs"
) -> Seed:
    """Dense training and both compression arms of one seed; goes on where an earlier call stopped.

    Args:
        config: the settings.
        seed: which seed.
        data: training and held-out split.
        folder: where its checkpoints lie.
        console: where progress is shown.
        programs: what is compiled once for all seeds.
    """
    init_key, order_key, compress_key = jax.random.split(jax.random.key(seed), 3)
    params = jax.jit(programs.model.init)(init_key, data.train.inputs[:1])
    _say(console, f"[bold]seed {seed}[/bold]: dense training")
    state = train.fit(
        train.init_state(params, programs.optimizer),
        programs.step_fn,
        train.batches(data.train.arrays, order_key, config.batch),
        config.dense_steps,
        folder=folder / "dense",
        console=console,
    )
    dense_accuracy = programs.accuracy(state.params, data.test)
    chosen = sets_for(config, state.params)
    batches = train.batches(data.train.arrays, compress_key, config.batch)
    arms = {}
    for arm in ARMS:
        _say(console, f"[bold]seed {seed}[/bold]: {'ADMM' if arm == 'admm' else 'one-shot projection'} and retraining")
        result = _compressed(arm, config, state.params, batches, chosen, programs.loss_fn, folder / arm, console)
        arms[arm] = Arm(result, programs.accuracy(result.params, data.test))
    projected = admm.project(admm.fit(chosen, state.params), state.params)
    return Seed(state.params, dense_accuracy, programs.accuracy(projected, data.test), arms)


def _compressed(
    arm: str,
    config: QuickstartConfig,
    params: Params,
    batches: Any,
    chosen: Params,
    loss_fn: Callable[[Params, Any], Any],
    folder: Path,
    console: Console | None,
) -> admm.Result:
    method = admm.compress if arm == "admm" else admm.one_shot
    with stages(console) as show:
        return method(loss_fn, params, batches, chosen, config.compression(), folder=folder, progress=show)


class Programs(NamedTuple):
    """Functions shared by all seeds, so that each is compiled once."""

    model: SmallConvNet
    optimizer: optax.GradientTransformation
    step_fn: train.StepFn
    loss_fn: Callable[[Params, Any], Any]
    apply_fn: Callable[[Params, Any], Any]

    @classmethod
    def of(cls, config: QuickstartConfig, classes: int) -> "Programs":
        """The functions of a run."""
        model = network(config, classes)
        optimizer = optax.adam(optax.cosine_decay_schedule(config.dense_learning_rate, config.dense_steps))
        apply_fn = model.apply
        score = train.classification_loss(apply_fn)
        step_fn = train.make_train_step(score, optimizer, has_aux=True)
        return cls(model, optimizer, step_fn, lambda params, batch: score(params, batch)[0], apply_fn)

    def accuracy(self, params: Params, split: train.Dataset) -> float:
        """Share of right answers on a split."""
        return train.evaluate(self.apply_fn, params, *split.arrays)["accuracy"]


def simulated(config: QuickstartConfig, apply_fn: Callable[..., Any], **changes: Any) -> Callable[..., Any]:
    """The network as a chip computes it, `(key, params, images) -> logits`; `changes` replace numbers of the device."""
    return analog.simulate(apply_fn, config.device(**changes))


def chip_accuracies(
    config: QuickstartConfig,
    apply_fn: Callable[[Params, Any], Any],
    params: Params,
    images: Any,
    labels: Any,
    key: Key,
    folder: Path,
    console: Console | None,
) -> list[float]:
    """Held-out accuracy of each simulated chip: a `vmap` over keys, some chips at a time.

    Chips that an earlier call finished are read from `chips.json`; chip `i` is programmed with `fold_in(key, i)`,
    whatever else runs.
    """
    on_chip = simulated(config, apply_fn)

    @jax.jit
    def measure(keys: Any, params: Params, images: Any, labels: Any) -> Any:
        def one(key: Key) -> Any:
            return (on_chip(key, params, images).argmax(-1) == labels).mean()

        return jax.vmap(one)(keys)

    path = folder / "chips.json"
    done = json.loads(path.read_text()) if path.exists() else []
    with bars(console) as progress:
        task = progress.add_task("chips", total=config.chips, completed=len(done))
        while len(done) < config.chips:
            # always a full group, so that one program serves and an interrupted run computes the same numbers
            first = len(done) - len(done) % config.chip_batch
            keys = jax.vmap(lambda chip: jax.random.fold_in(key, chip))(first + jnp.arange(config.chip_batch))
            group = [float(value) for value in np.asarray(measure(keys, params, images, labels))]
            done = (done[:first] + group)[: config.chips]
            run_report.write_json(path, done)
            progress.update(task, completed=len(done))
    return done


def run(
    config: QuickstartConfig, folder: str | Path, *, fresh: bool = False, console: Console | None = None
) -> Outcome:
    """The whole job in a run folder; the same call again goes on where it stopped, and ends bit-equal.

    Args:
        config: the settings.
        folder: the run folder.
        fresh: whether to start over in a folder that holds a run.
        console: where progress is shown; nowhere where `None`.

    Raises:
        ValueError: if the data are not there, the folder holds a run of other settings, or a loss is not finite.
    """
    folder = Path(folder)
    described = train.describe(config)
    if not fresh:
        run_report.check_folder(folder, described)
    data = Splits(train.load(config.data, "train"), train.load(config.data, "test"))
    if data.train.inputs.ndim != 4:
        raise ValueError(f"data must be a set of images for the quickstart, got {config.data!r}")
    run_report.open_folder(folder, described, fresh=fresh)
    programs = Programs.of(config, data.train.info.classes)
    seeds = [run_seed(config, seed, data, folder / f"seed-{seed}", console, programs) for seed in range(config.seeds)]
    best = seeds[0].arms["admm"].result
    images, labels = (jnp.asarray(array[: config.chip_images]) for array in data.test.arrays)

    _say(console, "[bold]export[/bold]: compile, save, load, verify")
    compiled = mobile.compile(programs.apply_fn, best.params, images[:16], constraints=best.constraints, batch="any")
    compiled.save(folder / "bundle")
    expected = programs.apply_fn(best.params, images[:16])
    verification = mobile.verify(folder / "bundle", images[:16], expected, engines=_engines())
    bundle = mobile.load(folder / "bundle")

    _say(console, f"[bold]chips[/bold]: {config.chips} noisy crossbar chips, {len(labels)} held-out images each")
    key = jax.random.fold_in(jax.random.key(0), config.chips)
    chips = chip_accuracies(config, programs.apply_fn, best.params, images, labels, key, folder, console)
    ideal = simulated(config, programs.apply_fn, adc_bits=None, sigma=0.0)
    ideal_accuracy = float((jax.jit(ideal)(key, best.params, images).argmax(-1) == labels).mean())
    cost = analog.report(programs.apply_fn, config.device(), best.params, images[:1])
    outcome = Outcome(config, seeds, chips, ideal_accuracy, verification, bundle, cost, {})
    summary = summarize(outcome, len(data.test.labels), len(labels))
    run_report.write_json(folder / "results.json", summary)
    return outcome._replace(summary=summary)


def _engines() -> tuple[str, ...]:
    """JAX always; IREE where its extra is installed."""
    return ("jax", "iree") if importlib.util.find_spec("iree") is not None else ("jax",)


def summarize(outcome: Outcome, test_images: int, chip_images: int) -> dict[str, Any]:
    """The numbers of a run, JSON-able; nothing in it depends on time or machine."""
    config, seeds = outcome.config, outcome.seeds
    arms = {arm: [seed.arms[arm] for seed in seeds] for arm in ARMS}
    reports = [arm.result.report for arm in arms["admm"]]
    return {
        "data": config.data,
        "test_images": test_images,
        "seeds": config.seeds,
        "dense": [seed.dense_accuracy for seed in seeds],
        "projected": [seed.projected_accuracy for seed in seeds],
        "one_shot": [arm.accuracy for arm in arms["one_shot"]],
        "admm": [arm.accuracy for arm in arms["admm"]],
        "compression_steps": reports[0].steps,
        "violation": max(report.violation for report in reports),
        "round_trip": all(leaf.round_trip for report in reports for leaf in report.leaves),
        "weights": sum(leaf.weights for leaf in reports[0].leaves),
        "weights_kept": sum(leaf.kept for leaf in reports[0].leaves),
        "dense_bytes": reports[0].dense_bytes,
        "packed_bytes": reports[0].packed_bytes,
        "module_bytes": outcome.bundle.report().module_bytes,
        "export": {engine.name: engine.max_abs_error for engine in outcome.verification.engines},
        "export_argmax_equal": outcome.verification.argmax_equal,
        "chips": outcome.chips,
        "chip_images": chip_images,
        "chip_median": float(np.median(outcome.chips)),
        "chip_worst": float(np.min(outcome.chips)),
        "ideal_chip": outcome.ideal_chip,
        "energy_joules_per_image": outcome.cost.total.energy_joules,
        "crossbars": outcome.cost.total.crossbars,
    }
