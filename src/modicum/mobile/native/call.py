"""A program as a function: from Python by ctypes, from JAX by a custom call."""

import ctypes
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modicum.mobile.native.build import library
from modicum.mobile.native.machine import Machine
from modicum.mobile.native.memory import aligned, copied
from modicum.mobile.native.parts import Program


@dataclass(frozen=True, eq=False)
class Library:
    """A compiled program, loaded.

    Attributes:
        program: what was compiled.
        threads: threads of a run.
        weights: its weights, aligned.
    """

    program: Program
    threads: int
    weights: np.ndarray = field(repr=False)
    _library: Any = field(repr=False)

    def run(self, x: np.ndarray, arena: np.ndarray | None = None) -> np.ndarray:
        """The outputs of a batch, image by image; no JAX.

        Args:
            x: float32, of the program's input shape but for the batch.
            arena: scratch memory from `aligned(program.arena)`; made anew where None.
        """
        program = self.program
        x = np.ascontiguousarray(x, np.float32)
        if x.shape[1:] != program.input_shape[1:]:
            raise ValueError(f"x must have shape {('batch', *program.input_shape[1:])}, got {x.shape}")
        y = np.empty((x.shape[0], *program.output_shape[1:]), np.float32)
        arena = aligned(program.arena) if arena is None else arena
        for image in range(x.shape[0]):
            self.call(x[image], y[image : image + 1], arena)
        return y

    def call(self, x: np.ndarray, y: np.ndarray, arena: np.ndarray) -> None:
        """One image, in memory that is there: what is timed."""
        run = getattr(self._library, f"{self.program.name}_run_threads")
        if run(self.weights.ctypes.data, x.ctypes.data, y.ctypes.data, arena.ctypes.data, self.threads):
            raise OSError("threads cannot be started")

    def profile(self, x: np.ndarray, rounds: int = 7) -> dict[str, float]:
        """Seconds of each layer on one thread, the least of some rounds; see `Program.built`.

        Args:
            x: float32, one image of the program's input shape or the first of several.
            rounds: turns in which every layer is run for at least 0.2 ms.
        """
        program, arena = self.program, aligned(self.program.arena)
        x, y = np.ascontiguousarray(x, np.float32), np.empty(program.output_shape, np.float32)
        step = getattr(self._library, f"{program.name}_step")
        step.argtypes = [ctypes.c_size_t, *[ctypes.c_void_p] * 4, ctypes.c_int]

        def seconds(number: int, repeats: int) -> float:
            places = (self.weights.ctypes.data, x.ctypes.data, y.ctypes.data, arena.ctypes.data)
            started = time.perf_counter()
            step(number, *places, repeats)
            return (time.perf_counter() - started) / repeats

        repeats = [max(1, round(2e-4 / seconds(number, 1))) for number in range(len(program.built))]
        least = [min(seconds(number, repeats[number]) for _ in range(rounds)) for number in range(len(program.built))]
        return {built.name: value for built, value in zip(program.built, least, strict=True)}

    def __call__(self, x: Any) -> Any:
        """The same in JAX; works under `jit`."""
        program = self.program
        shapes = (
            jax.ShapeDtypeStruct((x.shape[0], *program.output_shape[1:]), jnp.float32),
            jax.ShapeDtypeStruct((program.arena,), jnp.uint8),
        )
        return jax.ffi.ffi_call(self.target, shapes)(jnp.asarray(self.weights), x)[0]

    @property
    def target(self) -> str:
        """Name of the custom call, registered with XLA once it was asked for; the same program has the same."""
        target = f"modicum_{Path(self._library._name).stem}_{self.threads}"
        _register(target, self._library, self.program.name)
        return target


_REGISTERED: set[str] = set()


def _register(target: str, library: Any, name: str) -> None:
    # XLA knows targets by name for the whole process, and refuses a second one of the same name
    if target not in _REGISTERED:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, f"{name}_xla")), platform="cpu")
        _REGISTERED.add(target)


def handler_flags(threads: int) -> list[str]:
    """What the compiler must be told for a program to hold a handler for XLA.

    Args:
        threads: threads of a run under XLA.
    """
    # JAX's version stands here so that a library in the cache is not one of an older header
    defined = ("XLA", f"XLA_THREADS={threads}", f"JAX={jax.__version__}")
    return [*(f"-DMODICUM_{name}" for name in defined), f"-I{jax.ffi.include_dir()}"]


def opened(path: Path, program: Program, threads: int) -> Library:
    """A compiled program, loaded.

    Args:
        path: its shared library.
        program: what was compiled.
        threads: threads of a run.
    """
    loaded = ctypes.CDLL(str(path))
    run = getattr(loaded, f"{program.name}_run_threads")
    run.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int]
    run.restype = ctypes.c_int
    return Library(program, threads, copied(program.weights), loaded)


def load(program: Program, machine: Machine, threads: int = 1) -> Library:
    """Compiles and loads a program for this machine.

    Args:
        program: what `build` made.
        machine: this one.
        threads: threads of a run.
    """
    return opened(library(program.source, machine, handler_flags(threads)), program, threads)
