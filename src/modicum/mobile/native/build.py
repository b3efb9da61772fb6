"""From C text to a library: finding a compiler, calling it, keeping what it made."""

import functools
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from modicum.mobile.native.machine import Machine, cpuinfo

_FLAGS = ("-std=gnu11", "-O3", "-g0", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
_OLDEST_CLANG = 14
_ZIG = (sys.executable, "-m", "ziglang")

LEVELS = {"avx512": "x86-64-v4", "avx2": "x86-64-v3", "neon": "armv8-a"}
"""What every processor with an instruction set has, by the compilers' names."""


def cache() -> Path:
    """Where libraries are kept: `$MODICUM_CACHE`, else `~/.cache/modicum`."""
    return Path(os.environ.get("MODICUM_CACHE") or Path.home() / ".cache" / "modicum")


@functools.lru_cache(maxsize=32)
def version(command: tuple[str, ...]) -> str:
    """What a compiler says it is, in one line.

    Raises:
        ValueError: if it cannot be run.
    """
    if command[: len(_ZIG)] == _ZIG:
        return f"zig clang {metadata.version('ziglang')}"
    try:
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"compiler must be a C compiler that runs, got {shlex.join(command)!r}") from error
    return (said.splitlines() or ["?"])[0]


def kind(command: tuple[str, ...]) -> str:
    """Whose flags a compiler takes: "zig", "clang" or "gcc"."""
    said = version(command)
    return "zig" if said.startswith("zig") else "clang" if "clang" in said else "gcc"


def compiler(machine: Machine) -> tuple[str, ...]:
    """The command of a compiler.

    `$MODICUM_CC` where it is set; else for this machine clang 14 or newer, the clang of the package `ziglang`, or
    gcc; for others `ziglang`, which has their headers and C library with it, or clang, which makes objects alone.

    Raises:
        ValueError: if there is none, naming the extra to install; if `$MODICUM_CC` does not run, or is gcc and the
            machine another one.
    """
    named = tuple(shlex.split(os.environ.get("MODICUM_CC", "")))
    if named:
        if machine.triple is not None and kind(named) == "gcc":
            raise ValueError(f"compiler for target {machine.name!r} must be zig or clang, got {shlex.join(named)!r}")
        version(named)
        return named
    found = {kind(command): command for command in reversed(list(_installed()))}
    for wanted in ("clang", "zig", "gcc") if machine.triple is None else ("zig", "clang"):
        if wanted in found:
            return found[wanted]
    raise ValueError(f"target {machine.name!r} must have a C compiler, got none: pip install 'modicum[native]'")


def _installed() -> Iterator[tuple[str, ...]]:
    if importlib.util.find_spec("ziglang") is not None:
        yield (*_ZIG, "cc")
    for name in ("clang", "gcc", "cc"):
        if path := shutil.which(name):
            release = re.search(r"clang version (\d+)", version((path,)))
            if release is None or int(release[1]) >= _OLDEST_CLANG:
                yield (path,)


def bare(machine: Machine, command: tuple[str, ...]) -> bool:
    """Whether a target's headers and C library are missing, so that only objects without threads can be made."""
    return machine.triple is not None and (kind(command) != "zig" or "android" in machine.triple)


def flags(machine: Machine, command: tuple[str, ...], *, portable: bool = False) -> tuple[str, ...]:
    """Flags for a machine.

    Args:
        machine: what to compile for.
        command: the compiler.
        portable: for every processor with the machine's instruction set, or else for the one that is here.
    """
    whose = kind(command)
    parts = [*_FLAGS]
    if whose == "zig":
        parts += ["-fno-sanitize=all"]
    if machine.triple is not None:
        # zig spells processors with underscores, clang with hyphens
        cpu = machine.cpu if whose == "zig" else machine.cpu.replace("_", "-")
        parts += [f"--target={machine.triple}", f"-mcpu={cpu}"]
    elif portable:
        level = LEVELS[machine.name]
        zig = "generic" if machine.name == "neon" else level.replace("-", "_")
        parts += [f"-mcpu={zig}" if whose == "zig" else f"-march={level}"]
    else:
        parts += ["-mcpu=native" if machine.name == "neon" or whose == "zig" else "-march=native"]
    if machine.name == "avx512":
        parts += ["-mprefer-vector-width=512"]
        # without features by name gcc 12 misses those of newer processors
        parts += [] if whose == "zig" else ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mfma"]
    if machine.name == "neon" and whose == "gcc":
        # gcc 12 else moves all loads to the front, and spills what does not fit
        parts += ["-fno-schedule-insns"]
    if bare(machine, command):
        parts += ["-ffreestanding", "-DMODICUM_NO_THREADS"]
    return tuple(parts)


def call(command: Sequence[str], arguments: Sequence[str], folder: Path) -> None:
    """Runs a compiler in a folder; short names of files keep paths of this machine out of what it makes.

    Raises:
        ValueError: if it fails; its first error is quoted.
    """
    try:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=folder)
    except OSError as error:
        raise ValueError(f"compiler must be a C compiler that runs, got {shlex.join(command)!r}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise ValueError(f"compiler {shlex.join(command)!r} must accept the generated C, got: {lines[0]}")


def library(
    source: str, machine: Machine, extra: Sequence[str] = (), *, shared: bool = True, portable: bool = False
) -> Path:
    """The compiled library of a C text, from the cache where it is known.

    Args:
        source: C text.
        machine: what to compile for.
        extra: further flags.
        shared: a shared library, or else an object file.
        portable: see `flags`.

    Raises:
        ValueError: if the compiler fails; its first error is quoted.
    """
    command = compiler(machine)
    every = (*flags(machine, command, portable=portable), *extra)
    # a cache may be shared by machines that differ in what "native" means
    here = [] if portable or machine.triple is not None else cpuinfo("flags", "Features")[:1]
    text = "\0".join([source, *command, version(command), *every, str(shared), *here])
    folder = cache() / "native"
    target = folder / (hashlib.sha256(text.encode()).hexdigest()[:24] + (".so" if shared else ".o"))
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    # who builds the same at a time makes the same file: the last to be renamed stays
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        (Path(scratch) / "model.c").write_text(source)
        how = ["-shared", "-pthread"] if shared else ["-c"]
        call(command, [*every, *how, "-o", target.name, "model.c"], Path(scratch))
        os.replace(Path(scratch) / target.name, target)
    return target


def archive(member: Path, machine: Machine, name: str) -> bytes:
    """An object file as a static library.

    Args:
        member: the object file.
        machine: what it was compiled for.
        name: what it is called in the library.
    """
    whose = kind(compiler(machine))
    command = (*_ZIG, "ar") if whose == "zig" else ("llvm-ar" if whose == "clang" else "ar",)
    if whose == "clang" and machine.triple is None and not shutil.which("llvm-ar"):
        command = ("ar",)
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copyfile(member, Path(scratch) / name)
        # D: no time, no owner
        call(command, ["rcsD", "library.a", name], Path(scratch))
        return (Path(scratch) / "library.a").read_bytes()
