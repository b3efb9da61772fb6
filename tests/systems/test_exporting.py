"""From a recipe to a bundle that runs: scripts/export.py and what is behind it, on the bundled digits."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from modicum.systems import exporting
from modicum.systems.compression_config import load_recipe
from tests.systems.test_compression import DIGITS, SMALL

pytest.importorskip("ziglang")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    recipe = load_recipe(DIGITS, SMALL)
    return exporting.run(recipe, "admm", folder / "runs" / "admm", folder / "bundle"), folder


def test_the_bundle_says_what_the_network_said(exported):
    outcome, folder = exported
    assert outcome.folder == folder / "bundle"
    assert (folder / "bundle" / "model.c").exists()
    assert outcome.examples == 500
    assert outcome.accuracy == outcome.accuracy_before > 0.2
    assert outcome.difference < 1e-5
    assert 0 < outcome.seconds < 1
    kernels = {kernel.name: kernel for kernel in outcome.report.kernels}
    # 28% of the kernels, 4 of 9 positions each: fewer products than the dense layer
    second = kernels["params/Conv_1/kernel"]
    assert 0 < second.macs < second.dense_macs
    assert second.seconds > 0


def test_the_command(exported):
    _, folder = exported

    def command(*words):
        script = [sys.executable, ROOT / "scripts" / "export.py", *words]
        return subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=300)

    litert = ("--litert", "digits.tflite") if importlib.util.find_spec("litert_converter") else ()
    done = command(DIGITS, *SMALL, "--run", "runs/admm", "--bundle", "phone", "--target", "aarch64-linux", *litert)
    assert done.returncode == 0, done.stderr
    if litert:
        size = (folder / "digits.tflite").stat().st_size
        assert f"digits.tflite: {size:,} bytes, answers a held-out example as the network does" in done.stdout
    assert "of 500 held-out examples" in done.stdout
    assert (folder / "phone" / "libmodel.a").exists()
    wrong = command(DIGITS, *SMALL, "--run", "runs/admm", "--target", "toaster")
    assert wrong.returncode == 2
    assert wrong.stderr.splitlines()[-1] == (
        "export.py: target must be one of 'host', 'aarch64-linux', 'aarch64-android', got 'toaster'"
    )
