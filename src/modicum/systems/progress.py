"""Progress of long work on a console; nothing is drawn where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from modicum.admm.run import Progress as StageProgress


def bars(console: Console | None) -> Progress:
    """Bars with counts and remaining time, gone when the work is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=console is None, transient=True)


@contextmanager
def stages(console: Console | None) -> Iterator[StageProgress]:
    """A bar for each stage of a compression run: what `admm.compress` and its control arms call as `progress`."""
    with bars(console) as progress:
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, description=f"{stage}  loss {metrics['loss']:.3f}")

        yield show
