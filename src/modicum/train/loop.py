"""The training loop: steps, a progress bar, metrics, checkpoints, and an exact resume."""

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from modicum.core import check, checkpoint, loops_on_device, parallel
from modicum.train import metrics
from modicum.train.state import StepFn, TrainState

_READ_EVERY = 20
"""Dispatches between two looks at the metrics: JAX runs ahead of Python in between."""


class Interrupted(KeyboardInterrupt):
    """SIGINT came; the step that ran was finished and saved.

    Attributes:
        step: how many steps are saved.
    """

    def __init__(self, step: int):
        super().__init__(f"interrupted after step {step}")
        self.step = step


def default_steps_per_dispatch() -> int:
    """Steps in one dispatch where the caller does not say: 50 where loops run well (`core.loops_on_device`), else 1."""
    return 50 if loops_on_device() else 1


@functools.partial(jax.jit, static_argnames=("step_fn", "length", "mesh"))
def _advance(
    step_fn: StepFn, length: int, mesh: Mesh | None, state: TrainState, batches: Any, until: Any
) -> tuple[TrainState, Any]:
    """Steps up to `until`, at most `length`; metrics with a leading axis of steps, of which the first ones count.

    The bound is traced: one program makes a whole chunk and the rest of one, so that where a run was cut changes
    nothing in what is computed.
    """
    return parallel.constrained(_steps(step_fn, length, state, batches, until), mesh)


def _steps(step_fn: StepFn, length: int, state: TrainState, batches: Any, until: Any) -> tuple[TrainState, Any]:
    if length == 1:
        state, values = step_fn(state, batches(state.step))
        return state, jax.tree.map(lambda value: value[None], values)
    first = state.step
    shapes = jax.eval_shape(lambda: step_fn(state, batches(state.step))[1])
    history = jax.tree.map(lambda value: jnp.zeros((length, *value.shape), value.dtype), shapes)

    def body(carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
        state, history = carry
        new, values = step_fn(state, batches(state.step))
        return new, jax.tree.map(lambda past, value: past.at[state.step - first].set(value), history, values)

    last = jnp.minimum(first + length, until)
    return jax.lax.while_loop(lambda carry: carry[0].step < last, body, (state, history))


@jax.jit
def _finite(tree: Any) -> Any:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


@contextmanager
def _sigint() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT came; a second one ends the process's work at once, as if nobody listened."""
    seen = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.getsignal(signal.SIGINT)

    def handler(*_: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(True)

    signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, previous if previous is not None else signal.default_int_handler)


class _Log:
    """Metrics on their way from the device to the file, and the checkpoints that follow them."""

    def __init__(self, folder: Path | None, step: int):
        self.folder, self.written, self.saved = folder, step, step
        self.pending: list[tuple[int, Any]] = []
        self.latest: dict[str, float] = {}

    def flush(self) -> None:
        """Writes what is pending.

        Raises:
            ValueError: at the first number that is not finite; the steps before it are written.
        """
        lines = []
        for count, values in jax.device_get(self.pending):
            for i in range(count):
                self.written += 1
                lines.append({"step": self.written, **{name: float(value[i]) for name, value in values.items()}})
        self.pending = []
        bad = metrics.first_not_finite(lines)
        good = lines if bad is None else [line for line in lines if line["step"] < bad[0]]
        if self.folder is not None and good and parallel.first():
            metrics.append(self.folder / "metrics.jsonl", good)
        if bad is not None:
            step, name, value = bad
            raise ValueError(f"{name} must be finite, got {value} at step {step}: {self._kept()}")
        self.latest = {name: value for name, value in (lines or [self.latest])[-1].items() if name != "step"}

    def save(self, state: TrainState) -> None:
        """Writes what is pending, then the checkpoint: a file of metrics is never behind."""
        self.flush()
        if not bool(_finite(state.params)):
            raise ValueError(
                f"parameters must be finite, got NaN or infinity after step {self.written}: {self._kept()}"
            )
        if self.folder is not None and self.written > self.saved and parallel.first():
            checkpoint.save(self.folder / "checkpoints", self.written, state)
        self.saved = self.written

    def _kept(self) -> str:
        if self.folder is None or not self.saved:
            return "nothing was saved; lower the learning rate, or look at the data"
        return f"the checkpoint of step {self.saved} in {self.folder} stays"


def resume(state: TrainState, folder: str | Path) -> TrainState:
    """The newest state of a run folder, or the given one where there is none; metrics past it are cut off.

    Args:
        state: the state before the first step: what is restored has its structure.
        folder: the run folder; made where absent.

    Raises:
        ValueError: if the newest checkpoint is damaged or of another run.
    """
    folder = Path(folder)
    found = checkpoint.restore(folder / "checkpoints", state)
    if parallel.first():
        folder.mkdir(parents=True, exist_ok=True)
        metrics.truncate(folder / "metrics.jsonl", 0 if found is None else found[0])
    return state if found is None else found[1]


def fit(
    state: TrainState,
    step_fn: StepFn,
    batches: Callable[[Any], Any],
    steps: int,
    *,
    folder: str | Path | None = None,
    checkpoint_every: int = 200,
    steps_per_dispatch: int | None = None,
    console: Console | None = None,
    mesh: Mesh | None = None,
) -> TrainState:
    """Trains up to a step.

    With a folder, the run goes on from its newest checkpoint, and ends bit-equal to one that was never interrupted,
    parameters and `metrics.jsonl` alike, wherever it was cut: batches are a function of the step, and all the rest is
    in the state. SIGINT finishes the steps of the current dispatch, saves, and raises `Interrupted`; a second one
    does not wait.

    On a mesh the state lies whole on every device and each batch is split over them (`core.parallel`). Of several
    processes, each calls `fit` alike, with the same folder where there is one; the first alone writes to it. SIGINT in
    any of them stops all, after some steps.

    Args:
        state: the state before the first step.
        step_fn: a pure step, see `make_train_step`; pass the same object again and nothing is compiled twice.
        batches: a traceable function `step -> batch`. As a `jax.tree_util.Partial` (see `batches`) its arrays are
            arguments of the compiled program, not constants in it.
        steps: the step to stop at, at least 1; counted from the start of the run, not of this call.
        folder: where `metrics.jsonl` and `checkpoints/` lie; nothing is written where `None`.
        checkpoint_every: steps between two checkpoints, at least 1; the last step has one, too.
        steps_per_dispatch: steps in one compiled loop, at least 1; see `default_steps_per_dispatch`.
        console: where the progress bar is drawn; none where `None`.
        mesh: the devices, see `core.parallel.data_mesh`; one device where `None`.

    Returns:
        The state after the last step, on one device.

    Raises:
        ValueError: if a metric or a parameter is not finite (the checkpoint before stays), an argument is out of
            range, the folder holds another run, or a batch does not split evenly over the mesh.
        Interrupted: after SIGINT.
    """
    check.integer(1, steps=steps, checkpoint_every=checkpoint_every)
    length = default_steps_per_dispatch() if steps_per_dispatch is None else steps_per_dispatch
    check.integer(1, steps_per_dispatch=length)
    folder = None if folder is None else Path(folder)
    if not isinstance(batches, Partial):
        batches = Partial(batches)
    if mesh is not None:
        batches = parallel.shard(batches, mesh)
    if folder is not None:
        state = resume(state, folder)
    if mesh is not None:
        state = parallel.replicate(state, mesh)
    done = int(state.step)
    log = _Log(folder, done)
    several = jax.process_count() > 1
    with _sigint() as interrupted, _progress(console) as progress:
        task = progress.add_task("training", total=max(steps, done), completed=done, note="")
        stopped = parallel.anywhere(interrupted())
        while done < steps and not stopped:
            stop = min(done + length, steps, (done // checkpoint_every + 1) * checkpoint_every)
            state, values = _advance(step_fn, length, mesh, state, batches, np.int32(stop))
            log.pending.append((stop - done, values))
            done = stop
            if done % checkpoint_every == 0:
                log.save(state)
            elif len(log.pending) >= _READ_EVERY:
                log.flush()
            if not several or not log.pending:
                stopped = parallel.anywhere(interrupted())
            if not log.pending:
                note = "  ".join(f"{name} {value:.4g}" for name, value in log.latest.items())
                progress.update(task, completed=done, note=note)
        log.save(state)
        progress.update(task, completed=done)
    if done < steps:
        raise Interrupted(done)
    return parallel.local(state)


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}", markup=False)
    return Progress(*columns, note, console=console, disable=console is None)
