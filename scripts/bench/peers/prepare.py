"""Which environment runs which engine, and the files that each needs besides the network folder."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PROJECT = "project"
"""The environment of the process itself, which has JAX."""
ENVIRONMENTS = {
    "numpy": PROJECT,
    "onnxruntime": "onnx",
    "openvino": "onnx",
    "openvino_bf16": "onnx",
    "litert": "litert",
    "mnn": "mnn",
    "ncnn": "ncnn",
    "torch": "torch",
    "torch_compile": "torch",
    "deepsparse": "deepsparse",
    "xla": PROJECT,
    "iree": PROJECT,
}
"""Environment of each engine: its folder is `peers-NAME`."""
REDUCED = frozenset({"openvino_bf16"})
"""Engines that compute in less than float32: shown beside the others, never compared with them."""
MODELS = {
    "onnxruntime": "model.onnx",
    "openvino": "model.onnx",
    "openvino_bf16": "model.onnx",
    "deepsparse": "model.onnx",
    "litert": "model.tflite",
    "mnn": "model.mnn",
    "ncnn": "model.ncnn.param",
}
"""The file that an engine loads, where it does not read the network folder itself."""
TIMEOUT_SECONDS = 900


class Conversion(NamedTuple):
    """How a file is made.

    Attributes:
        environment: whose Python or programs make it.
        convert: does it in a folder of its own that holds what `source` names: environment's `bin`, folder -> command.
        source: the files it reads.
        made: the files it makes, the one it is named after included.
    """

    environment: str
    convert: Callable[[Path, Path], list[str]]
    source: tuple[str, ...]
    made: tuple[str, ...]


def _script(name: str) -> Callable[[Path, Path], list[str]]:
    return lambda programs, folder: [str(programs / "python"), str(HERE / name), str(folder)]


def _mnn(programs: Path, folder: Path) -> list[str]:
    files = ["--modelFile", str(folder / "model.onnx"), "--MNNModel", str(folder / "model.mnn")]
    return [str(programs / "mnnconvert"), "-f", "ONNX", *files, "--bizCode", "modicum"]


def _ncnn(programs: Path, folder: Path) -> list[str]:
    # the program itself: the script in bin imports torch; it halves the weights' precision unless told not to
    program = next(programs.parent.glob("lib/python3*/site-packages/pnnx/pnnx"), programs / "pnnx")
    return [str(program), str(folder / "model.onnx"), "fp16=0"]


NETWORK = ("network.json", "weights.npz")
CONVERSIONS = {
    "model.onnx": Conversion("onnx", _script("onnx_model.py"), NETWORK, ("model.onnx",)),
    "model.tflite": Conversion("litert", _script("tflite_model.py"), NETWORK, ("model.tflite",)),
    "model.mnn": Conversion("mnn", _mnn, ("model.onnx",), ("model.mnn",)),
    "model.ncnn.param": Conversion("ncnn", _ncnn, ("model.onnx",), ("model.ncnn.param", "model.ncnn.bin")),
}


def programs_of(environment: str) -> Path:
    """The `bin` folder of an environment, under `MODICUM_PEERS` or in `env` beside the checkout."""
    if environment == PROJECT:
        return Path(sys.executable).parent
    default = HERE.parents[2].parent / "env"
    return Path(os.environ.get("MODICUM_PEERS", default)) / f"peers-{environment}" / "bin"


def _make(folder: Path, name: str) -> None:
    """Makes a file and those it is made from, unless it is newer than they are.

    Raises:
        RuntimeError: if a program fails or is absent.
    """
    conversion = CONVERSIONS[name]
    for source in conversion.source:
        if source in CONVERSIONS:
            _make(folder, source)
    made = [folder / file for file in conversion.made]
    newest = max((folder / source).stat().st_mtime for source in conversion.source)
    if all(path.exists() and path.stat().st_mtime > newest for path in made):
        return
    # in a folder apart, since converters leave copies of the network behind, and a file is whole or not there
    with tempfile.TemporaryDirectory(dir=folder) as apart:
        for source in conversion.source:
            (Path(apart) / source).symlink_to((folder / source).resolve())
        command = conversion.convert(programs_of(conversion.environment), Path(apart))
        try:
            done = subprocess.run(
                command, cwd=apart, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"{name} is not made: {error}") from error
        if done.returncode or not all((Path(apart) / path.name).exists() for path in made):
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise RuntimeError(f"{name} is not made, {Path(command[0]).name} ended with {done.returncode}: {last}")
        for path in made:
            shutil.move(Path(apart) / path.name, path)


def prepare(folder: str | Path, engines: Iterable[str]) -> dict[str, str]:
    """Makes the files that some engines load.

    Args:
        folder: a network folder.
        engines: names; those that are no peers, and those that read the folder itself, need nothing.

    Returns:
        A sentence for each engine whose file could not be made.
    """
    failures = {}
    for engine in engines:
        try:
            if engine in MODELS:
                _make(Path(folder), MODELS[engine])
        except RuntimeError as error:
            failures[engine] = f"{engine}: {error}"
    return failures
