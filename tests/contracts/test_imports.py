"""What an import brings along: `import modicum` next to nothing, a package neither extras nor what few calls need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import modicum

SOURCE = Path(modicum.__file__).parent
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
EXTRAS = {"av", "constriction", "cryptography", "dcap_qvl", "flwr", "iree", "nir", "onnx", "safetensors", "skimage"}
EXTRAS |= {"ai_edge_litert", "litert_converter", "tensorboard", "tensorboardX"}
"""What extras bring."""
LATER = {"array_record", "cv2", "matplotlib", "orbax", "scipy", "sklearn", "tensorflow", "tensorflow_datasets", "torch"}
"""What is installed with the core, or by the user, and heavy: imported by the call that needs it."""

PROGRAM = """
import importlib, json, sys
names = json.loads(sys.argv[1])
loaded = {}
for name in names:
    importlib.import_module(name)
    loaded[name] = sorted({module.partition(".")[0] for module in sys.modules})
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded():
    """Top-level modules that are there after each import, one after the other in a fresh interpreter."""
    names = ["modicum", *(f"modicum.{name}" for name in PACKAGES)]
    command = [sys.executable, "-c", PROGRAM, json.dumps(names)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return {name: set(modules) for name, modules in json.loads(done.stdout).items()}


def test_the_top_level_brings_nothing(loaded):
    assert not loaded["modicum"] & {"jax", "jaxlib", "numpy", "flax", "optax", *EXTRAS, *LATER}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_brings_no_extra_and_nothing_heavy(loaded, package):
    assert not loaded[f"modicum.{package}"] & (EXTRAS | LATER)


def test_packages_are_attributes():
    program = "import modicum; print(modicum.constraints.TopK(3), set(modicum.__all__) <= set(dir(modicum)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "TopK(k=3) True\n"
    assert set(modicum.__all__) <= set(PACKAGES)


def test_what_is_no_package_is_named():
    with pytest.raises(AttributeError, match="has no attribute 'spikes': it has admm, analog"):
        modicum.spikes  # noqa: B018 - the lookup is what is tested
