"""A program as files that an app takes: C, weights, libraries, an example, and no Python."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from modicum.mobile.native.build import LEVELS, archive, bare, cache, compiler, library, version
from modicum.mobile.native.call import Library, handler_flags, opened
from modicum.mobile.native.choose import choice_from
from modicum.mobile.native.machine import AARCH64_LINUX, Machine
from modicum.mobile.native.parts import Built, Program

PACKAGE = ("model.c", "model.h", "weights.bin", "libmodel.a", "libmodel.so", "example.c", "README.txt")
"""What a package may hold."""

VERSION = 1
"""Of what `describe` says and of the files behind it; a newer one is refused."""

RUNS = {"avx512": ("avx512", "avx2"), "avx2": ("avx2",), "neon": ("neon",)}
"""Targets whose libraries each machine can load."""

EXAMPLE = """/* Runs {name} without Python: {input} floats of each image in, {output} floats out. */
#include <stdio.h>
#include <stdlib.h>
#include "model.h"

int main(int count, char **names) {{
  char *weights = aligned_alloc(64, {name}_weight_bytes()), *arena = aligned_alloc(64, {name}_arena_bytes());
  float *x = malloc({name}_input_floats() * 4), *y = malloc({name}_output_floats() * 4);
  FILE *file = count == 4 ? fopen(names[1], "rb") : NULL, *in = count == 4 ? fopen(names[2], "rb") : NULL;
  if (!file || !in) return fprintf(stderr, "usage: %s weights.bin input.f32 output.f32\\n", names[0]), 2;
  FILE *out = fopen(names[3], "wb");
  if (!weights || !arena || !x || !y || !out) return perror(names[0]), 1;
  if (fread(weights, 1, {name}_weight_bytes(), file) != {name}_weight_bytes())
    return fprintf(stderr, "%s is too short\\n", names[1]), 1;
  while (fread(x, 4, {name}_input_floats(), in) == {name}_input_floats()) {{
    {name}_run(weights, x, y, arena); /* or {name}_run_threads(weights, x, y, arena, threads) */
    if (fwrite(y, 4, {name}_output_floats(), out) != {name}_output_floats()) return perror(names[3]), 1;
  }}
  return fclose(out) ? perror(names[3]), 1 : 0;
}}
"""

README = """{name}: a network in C for {target}, made by Modicum

model.c      the network; needs nothing but libc and threads
model.h      what it declares
weights.bin  read into memory that begins at a multiple of 64 bytes, or mapped
{libraries}
example.c    runs it on a file of float32: images one after the other, channels last, {input} floats each;
             writes {output} floats for each

With the library:

  cc -O2 example.c libmodel.a -pthread -o example
  ./example weights.bin input.f32 output.f32

From the source:
{compilers}
-DMODICUM_NO_THREADS leaves threads out, for targets without <pthread.h>; {name}_run_threads then runs on one.
"""

HOST = """
  cc {options} {here} example.c model.c -pthread -o example
"""

AARCH64 = """
  aarch64 Linux, from anywhere, static (pip install ziglang):
  python -m ziglang cc --target=aarch64-linux-musl -mcpu={zig} {options} -fno-sanitize=all \\
      -static example.c model.c -pthread -o example

  aarch64 Linux, by its own gcc, which spills registers without the last flag:
  gcc {options} -mcpu={cpu} -fno-schedule-insns example.c model.c -pthread -o example

  Android, by the compiler of the NDK in $NDK/toolchains/llvm/prebuilt/*/bin:
  aarch64-linux-android24-clang {options} -mcpu={cpu} -fPIC -c model.c
  llvm-ar rcs libmodel.a model.o
"""


def write_package(program: Program, machine: Machine, threads: int = 1) -> dict[str, bytes]:
    """The files of a native bundle; the same program and compiler give the same bytes.

    | file | what it holds |
    |---|---|
    | `model.c`, `model.h` | the generated program |
    | `weights.bin` | what it reads, at a multiple of 64 bytes |
    | `libmodel.a` | compiled for every processor with the machine's instruction set |
    | `libmodel.so` | the same, shared, with the handler for XLA where it runs here; none where libc is missing |
    | `example.c` | runs it on a file |
    | `README.txt` | how to compile and link |

    Args:
        program: what `build` made.
        machine: what it was made for.
        threads: threads of a run under XLA.

    Raises:
        ValueError: if there is no compiler, or it fails.
    """
    command = compiler(machine)
    files = {
        "model.c": program.source.encode(),
        "model.h": program.header.encode(),
        "weights.bin": program.weights.tobytes(),
        "libmodel.a": archive(library(program.source, machine, shared=False, portable=True), machine, "model.o"),
        "example.c": _filled(EXAMPLE, program).encode(),
    }
    if not bare(machine, command):
        extra = ["-Wl,-soname,libmodel.so"] + (handler_flags(threads) if machine.triple is None else [])
        files["libmodel.so"] = library(program.source, machine, extra, portable=True).read_bytes()
    files["README.txt"] = _readme(program, machine, command, "libmodel.so" in files).encode()
    return files


def describe(program: Program, machine: Machine, threads: int = 1) -> dict[str, Any]:
    """What a manifest says about a package: what `load_package` needs to know, and by what it was compiled."""
    command = compiler(machine)
    return {
        "version": VERSION,
        "target": machine.name,
        "compiler": version(command),
        "name": program.name,
        "threads": threads,
        "arena": program.arena,
        "input_shape": list(program.input_shape),
        "output_shape": list(program.output_shape),
        "steps": [asdict(built) for built in program.built],
    }


def _step(described: Mapping[str, Any]) -> Built:
    """A step as `describe` wrote it down."""
    fields = dict(described)
    if fields["choice"] is not None:
        fields["choice"] = choice_from(fields["choice"])
    return Built(**fields)


def check_target(described: Mapping[str, Any], machine: Machine) -> None:
    """Refuses a package that cannot run here.

    Args:
        described: what `describe` said.
        machine: this one.

    Raises:
        ValueError: if the package is of a newer version, or for a machine that this one is not.
    """
    if described["version"] > VERSION:
        raise ValueError(f"native package must have version {VERSION} or less, got {described['version']}")
    runs = RUNS.get(machine.name, (machine.name,))
    if described["target"] not in runs:
        raise ValueError(f"native package must be for target {' or '.join(runs)} here, got {described['target']!r}")


def load_package(files: Mapping[str, bytes], described: Mapping[str, Any], machine: Machine) -> Library:
    """The library of a package, loaded as it is: nothing is compiled.

    Args:
        files: what `write_package` made, verified.
        described: what `describe` said.
        machine: this one.

    Raises:
        ValueError: as `check_target`.
    """
    check_target(described, machine)
    program = Program(
        name=described["name"],
        source=files["model.c"].decode(),
        header=files["model.h"].decode(),
        weights=np.frombuffer(files["weights.bin"], np.uint8),
        arena=described["arena"],
        input_shape=tuple(described["input_shape"]),
        output_shape=tuple(described["output_shape"]),
        built=tuple(map(_step, described["steps"])),
    )
    return opened(_kept(files["libmodel.so"]), program, described["threads"])


def _kept(data: bytes) -> Path:
    """A library as a file that stays where it is while it is loaded, whatever becomes of the bundle."""
    folder = cache() / "native"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (hashlib.sha256(data).hexdigest()[:24] + ".so")
    if not path.exists() or path.read_bytes() != data:
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(data)
        os.replace(partial, path)
    return path


def _filled(text: str, program: Program, **more: str) -> str:
    sizes = {"input": int(np.prod(program.input_shape[1:])), "output": int(np.prod(program.output_shape[1:]))}
    return text.format(name=program.name, **sizes, **more)


def _readme(program: Program, machine: Machine, command: tuple[str, ...], shared: bool) -> str:
    made = f"for {machine.name} by {version(command)}"
    if bare(machine, command):
        made += ", without threads"
    libraries = f"libmodel.a   {made}"
    if shared:
        libraries += "\nlibmodel.so  the same, shared"
    options = "-O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math"
    if machine.name.startswith("avx"):
        wide = " -mprefer-vector-width=512" if machine.name == "avx512" else ""
        compilers = HOST.format(options=options, here=f"-march={LEVELS[machine.name]}{wide}")
    else:
        cpu = AARCH64_LINUX.cpu if machine.triple is None else machine.cpu
        compilers = AARCH64.format(options=options, zig=cpu, cpu=cpu.replace("_", "-"))
    return _filled(README, program, target=machine.name, libraries=libraries, compilers=compilers)
