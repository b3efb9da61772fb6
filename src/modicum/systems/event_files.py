"""Run folders as event files of TensorBoard: curves, results, pictures, and what each run is.

A run folder is read whatever wrote it: `metrics.jsonl` (train, federate, chips that train) and `report.json` (ADMM)
become curves, numbers of `result.json` scalars and lists of them histograms, pictures images, `config.json` and
`versions.json` text. One event file stands for a run, under a name that does not change, and is replaced as a whole:
writing again duplicates nothing, and what is there is never half of a file.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from modicum.core import optional
from modicum.systems import progress
from modicum.train import metrics

MARKS = ("metrics.jsonl", "report.json", "result.json", "results.json")
"""A folder that holds one of these is a run."""
FILE = "events.out.tfevents.0.modicum"
"""Its name has to hold `tfevents`; the 0 stands where others write the time."""
_PASSED = ("checkpoints", "bundle")


class Curve(NamedTuple):
    """One number over time.

    Attributes:
        name: such as `loss` or `residual/params/Dense_0/kernel/primal`.
        steps: as the run counts: optimizer steps, rounds, dual updates.
        values: one for each of them.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float]


def _number(value: Any) -> bool:
    return isinstance(value, int | float)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"run folder {path.parent} must hold a readable {path.name}, got {error}") from error


def find(folders: Sequence[Path]) -> dict[str, Path]:
    """Runs in folders and below them, by name.

    Args:
        folders: of runs, or folders that hold runs; a run is named after its folder, one below by its path from there.

    Returns:
        Folders by name.

    Raises:
        ValueError: if a folder holds no run, or two runs have one name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        root = folder.resolve()
        runs = []
        for parent, inside, files in os.walk(root):
            inside[:] = sorted(name for name in inside if name not in _PASSED and not name.startswith("."))
            if any(mark in files for mark in MARKS):
                runs.append(Path(parent))
        if not runs:
            raise ValueError(f"run folder must hold one of {', '.join(MARKS)}, or folders that do, got {folder}")
        base = root.parent if runs[0] == root else root
        for run in runs:
            name = run.relative_to(base).as_posix()
            if found.setdefault(name, run) != run:
                raise ValueError(
                    f"runs must have names of their own, got {name!r} twice: {found[name]} and {run}; "
                    "a folder that holds both gives them longer ones"
                )
    return found


def curves(folder: Path) -> Iterator[Curve]:
    """What a run wrote step by step.

    Args:
        folder: of the run.

    Raises:
        ValueError: if a file cannot be read.
    """
    taken: dict[str, tuple[list[int], list[float]]] = {}
    for line in metrics.read(folder / "metrics.jsonl"):
        for name, value in line.items():
            if name != "step" and _number(value):
                steps, values = taken.setdefault(name, ([], []))
                steps.append(int(line["step"]))
                values.append(float(value))
    for name, (steps, values) in taken.items():
        yield Curve(name, steps, values)
    report = _json(folder / "report.json") or {}
    known = {"loss/admm": "admm_losses", "loss/retrain": "retrain_losses", "rho": "rho"}
    listed = {name: report.get(key) or () for name, key in known.items()}
    for leaf in report.get("leaves", ()):
        listed |= {f"residual/{leaf['path']}/{kind}": leaf.get(kind) or () for kind in ("primal", "dual")}
    for name, values in listed.items():
        if values:
            yield Curve(name, range(1, len(values) + 1), values)


def results(folder: Path) -> dict[str, float | list[float]]:
    """Numbers of `result.json`, flat by name, and lists of numbers.

    Args:
        folder: of the run.

    Raises:
        ValueError: if it cannot be read.
    """
    found: dict[str, float | list[float]] = {}

    def add(value: Any, name: str) -> None:
        if isinstance(value, Mapping):
            for key, part in value.items():
                add(part, f"{name}/{key}")
        elif _number(value):
            found[name] = float(value)
        elif isinstance(value, list) and value and all(map(_number, value)):
            found[name] = [float(part) for part in value]
        elif isinstance(value, list):
            for number, part in enumerate(value):
                titled = part if isinstance(part, Mapping) else {}
                add(part, f"{name}/{titled.get('name', titled.get('stage', number))}")

    for file in ("result.json", "results.json"):
        add(_json(folder / file), "result")
    return found


def _write_run(writer: Any, folder: Path) -> None:
    """All of a run; every event bears the time at which its source was written, so that files do not depend on now."""

    def time(name: str) -> float:
        path = folder / name
        return (path if path.exists() else folder).stat().st_mtime

    last, seen = 0, time("metrics.jsonl" if (folder / "metrics.jsonl").exists() else "report.json")
    for curve in curves(folder):
        for step, value in zip(curve.steps, curve.values, strict=True):
            writer.add_scalar(curve.name, value, step, walltime=seen)
        last = max(last, *curve.steps)
    done = time("result.json")
    for name, value in results(folder).items():
        if isinstance(value, list):
            import numpy as np

            writer.add_histogram(name, np.array(value), last, walltime=done)
        else:
            writer.add_scalar(name, value, last, walltime=done)
    for name in ("config", "versions"):
        value = _json(folder / f"{name}.json")
        if value is not None:
            text = f"```json\n{json.dumps(value, indent=1)}\n```"
            writer.add_text(name, text, 0, walltime=time(f"{name}.json"))
    for path in sorted(folder.glob("*.png")):
        from matplotlib import image

        picture = image.imread(path)[..., :3]
        writer.add_image(path.stem, picture, last, walltime=time(path.name), dataformats="HWC")


def _check(folder: Path) -> None:
    """Whether all files of a run can be read."""
    for _ in curves(folder):
        pass
    results(folder)
    for name in ("config", "versions"):
        _json(folder / f"{name}.json")


def write(runs: Mapping[str, Path], to: Path, console: Console | None = None) -> list[Path]:
    """Writes an event file for each run, in place of the one that is there.

    Args:
        runs: folders by name (`find`).
        to: TensorBoard's `--logdir`; made where absent.
        console: draws a progress bar; nothing is drawn where `None`.

    Returns:
        The files.

    Raises:
        ValueError: if a run cannot be read; nothing is written then.
        ImportError: without the extra `tensorboard`.

    Example:
        >>> write(find([Path("runs")]), Path("runs/tensorboard"))  # doctest: +SKIP
    """
    boards = optional.package("tensorboardX", "tensorboard")
    for folder in runs.values():
        _check(folder)
    made = []
    with progress.bars(console) as bar:
        task = bar.add_task("runs", total=len(runs))
        for name, folder in runs.items():
            target = to / name / FILE
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=to) as unfinished:
                    with boards.SummaryWriter(logdir=unfinished) as writer:
                        _write_run(writer, folder)
                    (file,) = Path(unfinished).iterdir()
                    os.replace(file, target)
            finally:
                _remove_empty(target.parent, to)
            made.append(target)
            bar.advance(task)
    return made


def _remove_empty(folder: Path, to: Path) -> None:
    """Takes folders away that a failure left empty, up to the one of all runs."""
    for parent in (folder, *folder.parents):
        if not parent.is_relative_to(to) or any(parent.iterdir()):
            return
        parent.rmdir()
