"""Every notebook runs as it stands, and its rendered form holds the same cells."""

import json
import os
import re
import subprocess
import sys
import tomllib
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


def shortened(text):
    """The script with fewer steps where it says so: `steps = 250  # 2 in tests`."""
    return re.sub(r"= [\d_]+  # (\d+) in tests", r"= \1", text)


def test_there_are_notebooks():
    assert {path.stem for path in SCRIPTS} >= {"analog", "conference", "constraints", "federated", "mobile", "spiking"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_rendered_notebook_is_that_of_the_script(path):
    notebook = json.loads(path.with_suffix(".ipynb").read_text())
    rendered = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]
    assert rendered == cells(path.read_text())
    assert any(cell.get("outputs") for cell in notebook["cells"])
    assert not any(output["output_type"] == "error" for cell in notebook["cells"] for output in cell.get("outputs", ()))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_first_cell_installs_what_the_page_needs_and_nothing_where_it_is_there(path):
    first = next(text for kind, text in cells(path.read_text()) if kind == "code")
    wanted = re.search(r'"/content/modicum(?:\[(\w+)\])?"', first)
    assert wanted, first
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert wanted[1] is None or (wanted[1] in extras and f"'.[{wanted[1]}]'" in path.read_text())
    assert subprocess.run([sys.executable, "-c", first], capture_output=True, check=True).stdout == b""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    for extra in {"conference": ("av", "constriction", "skimage"), "federated": ("cryptography",)}.get(path.stem, ()):
        pytest.importorskip(extra)
    script = tmp_path / path.name
    script.write_text(shortened(path.read_text()))
    environment = {**os.environ, "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_page_is_rendered_from_its_script_without_times(tmp_path, monkeypatch, capsys):
    for name in ("jupytext", "nbconvert", "ipykernel"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import notebooks

    script = tmp_path / "page.py"
    script.write_text("# %% [markdown]\n# # A page\n\n# %%\nprint(6 * 7)\n")
    page = notebooks.rendered(script)
    assert [cell["source"] for cell in page["cells"]] == ["# A page", "print(6 * 7)"]
    assert page["cells"][1]["outputs"][0]["text"] == "42\n"
    assert [cell["id"] for cell in page["cells"]] == ["cell-0", "cell-1"]
    assert all(cell["metadata"] == {} for cell in page["cells"])
    # an answer of its own to interrupts would stay behind
    monkeypatch.setattr(notebooks.command, "stop_at_once_on_interrupt", lambda: None)
    monkeypatch.setattr(sys, "argv", ["notebooks.py", "spikng"])
    assert notebooks.main() == 2
    assert "notebooks.py: name must be one of" in capsys.readouterr().err
