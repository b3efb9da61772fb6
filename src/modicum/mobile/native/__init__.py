"""Native kernels: a network in C, made for its own shapes, weights and zeros.

`build` writes the program of a graph, `load` compiles it for this machine and calls it, from Python or in JAX.
"""

from modicum.mobile.native.build import compiler, library
from modicum.mobile.native.call import Library, load
from modicum.mobile.native.cell import Cell, gru_cell
from modicum.mobile.native.choose import Choice
from modicum.mobile.native.emit import Tile
from modicum.mobile.native.machine import AARCH64_ANDROID, AARCH64_LINUX, AVX2, AVX512, NEON, Machine, host
from modicum.mobile.native.memory import aligned
from modicum.mobile.native.package import PACKAGE, check_target, describe, load_package, write_package
from modicum.mobile.native.partition import Network, network, whole, without_kernel
from modicum.mobile.native.parts import Built, Program
from modicum.mobile.native.program import build
from modicum.mobile.native.tune import Tuner

__all__ = [
    "AARCH64_ANDROID",
    "AARCH64_LINUX",
    "AVX2",
    "AVX512",
    "NEON",
    "PACKAGE",
    "Built",
    "Cell",
    "Choice",
    "Library",
    "Machine",
    "Network",
    "Program",
    "Tile",
    "Tuner",
    "aligned",
    "build",
    "check_target",
    "compiler",
    "describe",
    "gru_cell",
    "host",
    "library",
    "load",
    "load_package",
    "network",
    "whole",
    "without_kernel",
    "write_package",
]
