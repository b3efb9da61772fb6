"""Native kernels: a network in C, made for its own shapes, weights and zeros.

`build` writes the program of a graph, `load` compiles it for this machine and calls it, from Python or in JAX.
"""

from modicum.mobile.native.build import compiler, library
from modicum.mobile.native.call import Library, aligned, load
from modicum.mobile.native.choose import Choice
from modicum.mobile.native.emit import Tile
from modicum.mobile.native.machine import AARCH64_ANDROID, AARCH64_LINUX, AVX2, AVX512, NEON, Machine, host
from modicum.mobile.native.program import Built, Program, build

__all__ = [
    "AARCH64_ANDROID",
    "AARCH64_LINUX",
    "AVX2",
    "AVX512",
    "NEON",
    "Built",
    "Choice",
    "Library",
    "Machine",
    "Program",
    "Tile",
    "aligned",
    "build",
    "compiler",
    "host",
    "library",
    "load",
]
