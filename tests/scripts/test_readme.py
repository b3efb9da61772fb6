"""The README keeps its promises: its figures are those of the results JSON, its commands and links exist."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def tables(monkeypatch):
    # both: the module may have been imported by a test whose paths are gone
    for folder in ("scripts", "scripts/bench"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import tables

    return tables


def test_readme_shows_the_results_that_were_measured(tables):
    assert tables.written(README) == README


def test_results_table_holds_the_numbers(tables):
    """By hand from the JSON, not by the script's own formatting."""
    for path in tables.RESULTS.glob("quickstart-*.json"):
        entry = json.loads(path.read_text())
        (line,) = [line for line in tables.table().splitlines() if line.startswith(f"| {entry['results']['data']},")]
        mean = sum(entry["results"]["admm"]) / len(entry["results"]["admm"])
        assert f"{100 * mean:.2f}" in line
        assert f"{entry['results']['packed_bytes']:,}" in line
        assert entry["results"]["violation"] == 0
        assert entry["versions"]["commit"][:7] in line


def test_spread_is_the_standard_deviation_of_the_sample(tables):
    assert tables.percent([0.9, 0.92, 0.94]) == "92.00 ± 2.00%"
    assert tables.percent(0.5) == "50.00%"


def test_collecting_from_no_run_is_one_sentence(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "tables.py"), "--collect", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "run folder must hold" in result.stderr


def test_commands_of_the_readme_exist():
    # links: tests/scripts/test_docs.py
    for script in re.findall(r"scripts/\w+\.(?:sh|py)", README):
        assert (ROOT / script).exists(), script
    for script in ("scripts/quickstart.sh", "scripts/test.sh", ".ci/run"):
        assert os.access(ROOT / script, os.X_OK)


def test_ci_runs_the_test_command_of_the_readme():
    assert "scripts/test.sh" in README
    assert re.search(r"^scripts/test\.sh( \|\| status=\$\?)?$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_setup_takes_an_interpreter_that_runs_and_passes_over_a_shim_that_fails(tmp_path):
    shim = tmp_path / "python3.14"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    script = "source scripts/setup.sh; modicum_python"
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    chosen = result.stdout.strip()
    assert chosen != str(shim)
    assert subprocess.run([chosen, "-c", "import venv"], check=False).returncode == 0


def test_setup_says_when_there_is_no_python(tmp_path):
    script = "source scripts/setup.sh; modicum_environment $PWD/never ''"
    empty = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    (tmp_path / "cksum").symlink_to("/usr/bin/cksum")
    (tmp_path / "cat").symlink_to("/bin/cat")
    result = subprocess.run(
        ["/bin/bash", "-c", script], cwd=ROOT, env=empty, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "no working Python 3.11 or newer was found" in result.stderr
    assert not (ROOT / "never").exists()
