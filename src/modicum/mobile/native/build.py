"""From C text to a library: finding a compiler, calling it, keeping what it made."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from modicum.mobile.native.machine import Machine

_FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC")


def cache() -> Path:
    """Where libraries are kept: `$MODICUM_CACHE`, else `~/.cache/modicum`."""
    return Path(os.environ.get("MODICUM_CACHE") or Path.home() / ".cache" / "modicum")


def compiler(machine: Machine) -> tuple[str, ...]:
    """The command of a compiler: clang of the package `ziglang`, else `clang` or, for this machine, `cc`.

    Raises:
        ValueError: if there is none, naming the extra to install.
    """
    try:
        import ziglang  # noqa: F401 - only whether it is there

        return (sys.executable, "-m", "ziglang", "cc")
    except ImportError:
        pass
    for name in ("clang", "cc", "gcc"):
        if (found := shutil.which(name)) and (machine.triple is None):
            return (found,)
    raise ValueError(f"target {machine.name!r} must have a C compiler, got none: pip install 'modicum[native]'")


def flags(machine: Machine, command: Sequence[str]) -> tuple[str, ...]:
    """Flags for a machine."""
    zig = "ziglang" in command
    parts: list[str] = list(_FLAGS)
    if zig:
        parts += ["-fno-sanitize=all"]
    if machine.triple is not None:
        parts += [f"--target={machine.triple}", f"-mcpu={machine.cpu}"]
    elif machine.name == "neon" or zig:
        parts += ["-mcpu=native"]
    else:
        parts += ["-march=native"]
    if machine.name == "avx512":
        # without features by name gcc 12 misses those of newer processors
        parts += ["-mprefer-vector-width=512"] + ([] if zig else ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mfma"])
    if machine.name == "neon" and not zig:
        parts += ["-fno-schedule-insns"]
    return tuple(parts)


def library(source: str, machine: Machine, extra: Sequence[str] = (), *, shared: bool = True) -> Path:
    """The compiled library of a C text, from the cache where it is known.

    Args:
        source: C text.
        machine: what to compile for.
        extra: further flags.
        shared: a shared library, or else an object file.

    Raises:
        ValueError: if the compiler fails; its first error is quoted.
    """
    command = compiler(machine)
    every = (*flags(machine, command), *extra)
    text = "\0".join([source, *command, *every, str(shared)])
    folder = cache() / "native"
    target = folder / (hashlib.sha256(text.encode()).hexdigest()[:24] + (".so" if shared else ".o"))
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        file, made = Path(scratch) / "model.c", Path(scratch) / target.name
        file.write_text(source)
        how = ["-shared", "-pthread"] if shared else ["-c"]
        done = subprocess.run([*command, *every, *how, "-o", str(made), str(file)], capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
            raise ValueError(f"compiler {command[-1]!r} must accept the generated C, got: {lines[0]}")
        os.replace(made, target)
    return target
