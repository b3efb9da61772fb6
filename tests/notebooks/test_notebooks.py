"""Every notebook runs as it stands, and its rendered form holds the same cells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))


def cells(text):
    """Kind and source of the cells of a percent-format script."""
    found = []
    for block in text.split("# %%")[1:]:
        head, _, body = block.partition("\n")
        if head.strip() == "[markdown]":
            lines = [line[2:] if line.startswith("# ") else line[1:] for line in body.strip().splitlines()]
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", body.strip()))
    return found


def test_there_are_notebooks():
    assert {path.stem for path in SCRIPTS} >= {"spiking", "analog"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_rendered_notebook_is_that_of_the_script(path):
    notebook = json.loads(path.with_suffix(".ipynb").read_text())
    rendered = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]
    assert rendered == cells(path.read_text())
    assert any(cell.get("outputs") for cell in notebook["cells"])
    assert not any(output["output_type"] == "error" for cell in notebook["cells"] for output in cell.get("outputs", ()))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
