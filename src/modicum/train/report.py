"""The folder of a run: what it is, what made it, and what came out."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from rich.markup import escape
from rich.table import Table

import modicum


def versions() -> dict[str, Any]:
    """Versions and machine that a run's numbers depend on.

    `commit` is `$MODICUM_COMMIT` where that is set (for copies of a tree on other machines), else that of the
    checkout, or None where there is none.
    """
    packages = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    return {
        "modicum": modicum.__version__,
        "commit": os.environ.get("MODICUM_COMMIT") or _commit(),
        "python": platform.python_version(),
        **packages,
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "backend": jax.default_backend(),
            "devices": [device.device_kind for device in jax.devices()],
        },
    }


def _commit() -> str | None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "--verify", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that is whole or not there."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def check_folder(folder: str | Path, config: Mapping[str, Any]) -> None:
    """Whether a run of this config may start or go on in a folder; changes nothing.

    Args:
        folder: the run folder.
        config: the config as JSON-able values.

    Raises:
        ValueError: if the folder holds a run of another config, or something that is no run.
    """
    folder = Path(folder)
    if not folder.exists():
        return
    path = folder / "config.json"
    if not folder.is_dir() or (not path.is_file() and any(entry.suffix != ".tmp" for entry in folder.iterdir())):
        raise ValueError(f"run folder must be absent, empty or hold a run, got {folder}")
    if not path.is_file():
        return
    try:
        found = _flat(dict(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, TypeError) as error:
        raise ValueError(f"run folder {folder} must hold a readable config.json, got {error}") from error
    wanted = _flat(json.loads(json.dumps(config)))
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"run folder {folder} holds a run with {name}={found.get(name)}, got {wanted.get(name)}: "
                "start over with --fresh, or name another folder with --run"
            )


def open_folder(folder: str | Path, config: Mapping[str, Any], *, fresh: bool = False) -> None:
    """Makes a run folder, or opens one to go on with its run.

    Args:
        folder: the run folder.
        config: the config as JSON-able values.
        fresh: whether to remove the run that is there; only files that a run writes are removed.

    Raises:
        ValueError: as `check_folder`; with `fresh`, only if the folder holds something that is no run.
    """
    folder = Path(folder)
    held = folder / "config.json"
    if not (fresh and held.is_file()):
        check_folder(folder, config)
    folder.mkdir(parents=True, exist_ok=True)
    discarded = folder / "checkpoints.discarded"
    shutil.rmtree(discarded, ignore_errors=True)
    if fresh and held.is_file():
        # at one blow, so that no half of a checkpoint is ever taken for a whole one
        if (folder / "checkpoints").is_dir():
            (folder / "checkpoints").rename(discarded)
            shutil.rmtree(discarded)
        for name in ("metrics.jsonl", "result.json", "versions.json", "config.json"):
            (folder / name).unlink(missing_ok=True)
    # the config first: it is what makes the folder a run, should a kill come between the two
    if not held.is_file():
        write_json(held, config)
    if not (folder / "versions.json").is_file():
        write_json(folder / "versions.json", versions())


def result_table(title: str, rows: Mapping[str, Any]) -> Table:
    """What a run ends with: a name and a value in each row."""
    table = Table(title=escape(title), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right", overflow="fold")
    for name, value in rows.items():
        table.add_row(escape(name), escape(str(value)))
    return table
