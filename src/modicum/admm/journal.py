"""The folder of a resumable run: what the run is, and a checkpoint of each stage."""

import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modicum.admm.config import CompressConfig
from modicum.admm.leaves import Constraints
from modicum.core import Params, checkpoint


def _digest(tree: Any) -> str:
    """SHA-256 over structure, shapes, dtypes and bytes."""
    flat, treedef = jax.tree.flatten(tree)
    digest = hashlib.sha256(str(treedef).encode())
    for leaf in map(np.asarray, flat):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Journal:
    """Checkpoints in a folder; without a folder it keeps nothing.

    Attributes:
        folder: the folder, or `None`.
        pause: seconds between two states written.
        times: when the last one was written, or the journal opened.
    """

    folder: Path | None
    pause: float = 0.0
    times: list[float] = field(default_factory=lambda: [time.monotonic()])

    @classmethod
    def open(
        cls,
        folder: str | Path | None,
        method: str,
        config: CompressConfig,
        constraints: Constraints,
        params: Params,
    ) -> "Journal":
        """The journal of a run; a folder that holds another run is refused.

        Args:
            folder: the folder, made where absent; `None` keeps nothing.
            method: name of the kind of run.
            config: settings of the run.
            constraints: its constraints, as given.
            params: its initial parameters.

        Returns:
            The journal.

        Raises:
            ValueError: if the folder holds a run of another method, with other settings, constraints or parameters.
        """
        if folder is None:
            return cls(None)
        folder = Path(folder)
        digests = {"constraints": _digest(constraints), "params": _digest(params)}
        # how often it is saved is no part of what a run is
        settings = {name: value for name, value in config.describe().items() if name != "save_seconds"}
        run = {"method": method, "config": settings, **digests}
        path = folder / "run.json"
        if path.exists():
            try:
                found = dict(json.loads(path.read_text()))
            except (ValueError, TypeError) as error:
                raise ValueError(f"folder {folder} must hold a readable run.json, got {error}") from error
            for name, value in json.loads(json.dumps(run)).items():
                if found.get(name) != value:
                    raise ValueError(f"folder {folder} must hold a run of the same {name}, got another")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(run, indent=1))
            os.replace(unfinished, path)
        return cls(folder, config.save_seconds)

    def restore(self, stage: str, start: Any) -> tuple[int, Any]:
        """The newest state of a stage and how much of it is done: 0 and `start` where nothing was saved."""
        found = None if self.folder is None else checkpoint.restore(self.folder / stage, start)
        return (0, start) if found is None else found

    def save(self, stage: str, done: int, state: Any, *, last: bool = False) -> None:
        """Writes the state of a stage, unless one was written less than `pause` seconds ago; the `last` one always."""
        now = time.monotonic()
        if self.folder is None or not (last or now - self.times[-1] >= self.pause):
            return
        checkpoint.save(self.folder / stage, done, state)
        self.times[-1] = time.monotonic()
