"""The main job: train, compress, export, reload, and simulate on noisy chips.

Trains a small convolutional net on real data, compresses it onto patterns x connectivity x polarity x 4 bits at once
by ADMM (and, as a control, by one-shot projection with as many training steps), exports the compressed network as
portable StableHLO, loads and verifies it, and runs it on simulated ReRAM chips with programming variation.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from modicum import admm, analog, constraints, mobile, train
from modicum.core import Key, Params, Site, check
from modicum.models import SmallConvNet
from modicum.train import report as run_report

ARMS = ("admm", "one_shot")


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """Everything the main job can be told.

    Attributes:
        data: `digits` (bundled), `mnist`, `cifar10` or any other image set of `train.load`.
        seeds: independent runs, at least 1: initial weights and order of the examples.
        widths: output channels of the 3x3 convolutions.
        batch: examples in a step.
        dense_steps: optimizer steps before compression.
        dense_learning_rate: step size of Adam, falling to 0 by a cosine.
        patterns: size of the library taken from the dense weights.
        connectivity: share of its kernels that each filter keeps, above 0, at most 1.
        fragment: rows of a crossbar that share a sign and are read together; 9 is one 3x3 kernel.
        bits: bits of a weight, sign included.
        outer: dual updates of ADMM.
        inner: optimizer steps before each.
        retrain: optimizer steps inside the set; the control arm gets `outer * inner + retrain`.
        rho: penalty strength at the start.
        growth: its factor at each dual update.
        learning_rate: step size during ADMM.
        retrain_learning_rate: step size of retraining, falling to 0 by a cosine.
        chips: simulated chips, at least 1.
        chip_images: held-out images each chip sees: the first of the split.
        chip_batch: chips simulated side by side.
        sigma: standard deviation of the log-normal programming variation.
        adc_bits: bits of the converter.
        input_bits: bits of an activation.
    """

    data: str = "digits"
    seeds: int = 3
    widths: tuple[int, ...] = (16, 32, 64)
    batch: int = 64
    dense_steps: int = 600
    dense_learning_rate: float = 3e-3
    patterns: int = 8
    connectivity: float = 0.5
    fragment: int = 9
    bits: int = 4
    outer: int = 24
    inner: int = 40
    retrain: int = 400
    rho: float = 3.0
    growth: float = 1.3
    learning_rate: float = 2e-3
    retrain_learning_rate: float = 2e-3
    chips: int = 64
    chip_images: int = 500
    chip_batch: int = 8
    sigma: float = 0.1
    adc_bits: int = 4
    input_bits: int = 8

    def __post_init__(self) -> None:
        counts = ("seeds", "batch", "dense_steps", "inner", "chips", "chip_images", "chip_batch")
        check.integer(1, **{name: getattr(self, name) for name in counts})
        check.integer(2, widths=len(self.widths))
        check.integer(1, 56, patterns=self.patterns)
        check.integer(2, 8, bits=self.bits)
        check.integer(1, 9, fragment=self.fragment)
        check.positive(connectivity=self.connectivity)
        check.between(0, 1, connectivity=self.connectivity)
        check.positive(dense_learning_rate=self.dense_learning_rate)
        self.compression()
        self.device()

    def compression(self) -> admm.CompressConfig:
        """The schedule of ADMM and retraining."""
        return admm.CompressConfig(
            outer=self.outer,
            inner=self.inner,
            retrain=self.retrain,
            rho=self.rho,
            growth=self.growth,
            learning_rate=self.learning_rate,
            retrain_learning_rate=self.retrain_learning_rate,
        )

    def device(self, **changes: Any) -> Callable[[Site], analog.Device]:
        """The crossbars: magnitudes and one sign per fragment, as FORMS has it; two columns for the first layer."""
        numbers: dict[str, Any] = {
            "fragment": self.fragment,
            "weight_bits": self.bits,
            "adc_bits": self.adc_bits,
            "input_bits": self.input_bits,
            "sigma": self.sigma,
        }
        polarized = analog.crossbar(**(numbers | changes), encoding="polarized")
        differential = analog.crossbar(**(numbers | changes), encoding="differential")
        return lambda site: differential if "Conv_0" in site.name else polarized


def default_config(data: str) -> QuickstartConfig:
    """The settings that suit a data set: the digits' own, and a longer schedule for full-size images."""
    config = QuickstartConfig(data=data)
    if data == "digits":
        return config
    return replace(
        config, seeds=1, batch=128, dense_steps=1400, outer=16, inner=40, retrain=700, chips=64, chip_images=500
    )


class Splits(NamedTuple):
    """The data of a run."""

    train: train.Dataset
    test: train.Dataset


class Arm(NamedTuple):
    """One compressed network."""

    result: admm.Result
    accuracy: float
    projected: float
    """Held-out accuracy right after the hard projection of the dense weights (one-shot arm only; else NaN)."""


class Seed(NamedTuple):
    """What one seed came to."""

    dense: Params
    dense_accuracy: float
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


def network(config: QuickstartConfig, classes: int) -> SmallConvNet:
    """The model of a run."""
    return SmallConvNet(classes=classes, widths=config.widths)


def sets_for(config: QuickstartConfig, params: Params) -> Params:
    """The constraints of each leaf, the pattern library read off the dense weights.

    Inner convolutions keep a share of the kernels of each filter, each kernel one of the library's patterns and one
    sign, each weight `bits` bits; the dense head takes signs and bits. The first convolution takes bits alone: it
    holds under 1% of the weights, and one sign for the single kernel of a filter would leave it no edge to detect.
    """
    signs = constraints.Polarized(config.fragment), constraints.Levels(config.bits)
    rules = {"Dense.*kernel": constraints.nest(*signs), "Conv_0/kernel": constraints.Levels(config.bits)}
    for layer, channels in enumerate(config.widths[:-1], start=1):
        weight = params["params"][f"Conv_{layer}"]["kernel"]
        rules[f"Conv_{layer}/kernel"] = constraints.nest(
            constraints.Kernels(max(1, round(config.connectivity * channels))),
            constraints.Patterns(constraints.natural_library(weight, config.patterns)),
            *signs,
        )
    return constraints.by_path(rules, params)


def _loss(model: SmallConvNet) -> Callable[[Params, Any], Any]:
    score = train.classification_loss(model.apply)
    return lambda params, batch: score(params, batch)[0]


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=console is None, transient=True)


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
    params = programs.model.init(init_key, data.train.inputs[:1])
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
        method = admm.compress if arm == "admm" else admm.one_shot
        with _progress(console) as progress:
            tasks: dict[str, Any] = {}

            def show(
                stage: str, done: int, total: int, metrics: dict[str, float], tasks=tasks, progress=progress
            ) -> None:
                if stage not in tasks:
                    tasks[stage] = progress.add_task(stage, total=total)
                progress.update(tasks[stage], completed=done, description=f"{stage}  loss {metrics['loss']:.3f}")

            result = method(
                programs.loss_fn,
                state.params,
                batches,
                chosen,
                config.compression(),
                folder=folder / arm,
                progress=show,
            )
        projected = float("nan")
        if arm == "one_shot":
            projected = programs.accuracy(admm.project(admm.fit(chosen, state.params), state.params), data.test)
        arms[arm] = Arm(result, programs.accuracy(result.params, data.test), projected)
    return Seed(state.params, dense_accuracy, arms)


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
        step_fn = train.make_train_step(train.classification_loss(apply_fn), optimizer, has_aux=True)
        return cls(model, optimizer, step_fn, _loss(model), apply_fn)

    def accuracy(self, params: Params, split: train.Dataset) -> float:
        """Share of right answers on a split."""
        return train.evaluate(self.apply_fn, params, *split.arrays)["accuracy"]


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
    on_chip = analog.simulate(apply_fn, config.device())

    @jax.jit
    def measure(keys: Key, params: Params, images: Any, labels: Any) -> Any:
        def one(key: Key) -> Any:
            return (on_chip(key, params, images).argmax(-1) == labels).mean()

        return jax.vmap(one)(keys)

    path = folder / "chips.json"
    done = json.loads(path.read_text()) if path.exists() else []
    with _progress(console) as progress:
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
    images, labels = (array[: config.chip_images] for array in data.test.arrays)

    _say(console, "[bold]export[/bold]: compile, save, load, verify")
    compiled = mobile.compile(programs.apply_fn, best.params, images[:16], constraints=best.constraints, batch="any")
    compiled.save(folder / "bundle")
    expected = programs.apply_fn(best.params, images[:16])
    verification = mobile.verify(folder / "bundle", images[:16], expected, engines=_engines())
    bundle = mobile.load(folder / "bundle")

    _say(console, f"[bold]chips[/bold]: {config.chips} noisy crossbar chips, {len(labels)} held-out images each")
    key = jax.random.fold_in(jax.random.key(0), config.chips)
    chips = chip_accuracies(config, programs.apply_fn, best.params, images, labels, key, folder, console)
    ideal = analog.simulate(programs.apply_fn, config.device(adc_bits=None, sigma=0.0))
    ideal_accuracy = float((jax.jit(ideal)(key, best.params, images).argmax(-1) == labels).mean())
    cost = analog.report(programs.apply_fn, config.device(), best.params, images[:1])
    outcome = Outcome(config, seeds, chips, ideal_accuracy, verification, bundle, cost, {})
    summary = summarize(outcome, len(data.test.labels), len(labels))
    run_report.write_json(folder / "results.json", summary)
    return outcome._replace(summary=summary)


def _engines() -> tuple[str, ...]:
    """JAX always; IREE where its extra is installed."""
    import importlib.util

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
        "one_shot_projected": [arm.projected for arm in arms["one_shot"]],
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
