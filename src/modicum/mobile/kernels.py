"""Native kernels as `compile` and bundles want them: made when first needed, or read from a bundle."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from modicum.core import Params
from modicum.mobile import native
from modicum.mobile.graph import Conv, Dense, Graph, Gru, fuse, trace

TARGETS = {"host": None, "aarch64-linux": native.AARCH64_LINUX, "aarch64-android": native.AARCH64_ANDROID}
"""What kernels may be written for; None stands for this machine."""

MODES = ("auto", "native", "xla")
"""Native kernels where they serve, in any case, or not at all."""

Package = tuple[Mapping[str, bytes], Mapping[str, Any]]
"""Files of a native program, and what a manifest says of them."""


def _check_backend() -> None:
    # a custom call for CPUs is unknown to the compilers of other devices
    if jax.default_backend() != "cpu":
        raise ValueError(f"kernels='native' must run on JAX's backend 'cpu', got {jax.default_backend()!r}")


@dataclass(frozen=True, eq=False)
class Wish:
    """What `compile` was asked for; see there.

    Attributes:
        fun: the network.
        params: its parameters.
        example: its input.
        target: what a package is for, None for this machine.
        threads: threads of a call.
        batch: "fixed" or "any".
        mode: one of `MODES`.
        tuning_seconds: how long kernels may be timed.
    """

    fun: Callable[..., Any]
    params: Params
    example: Any
    target: native.Machine | None
    threads: int
    batch: str
    mode: str
    tuning_seconds: float

    @functools.cached_property
    def graph(self) -> Graph:
        """The fused layers."""
        return fuse(trace(self.fun, self.params, self.example))

    def chooser(self, machine: native.Machine) -> native.Tuner | None:
        """How products are computed; only this machine can be timed."""
        return native.Tuner(machine, self.tuning_seconds) if self.tuning_seconds and machine.triple is None else None

    def program(self, machine: native.Machine) -> native.Program:
        """The whole network in C for a machine."""
        return native.build(self.graph, machine, "model", self.chooser(machine))

    @functools.cached_property
    def own_program(self) -> native.Program:
        """That for this machine, which a call and a bundle share."""
        return self.program(native.host())

    def network(self) -> native.Network | None:
        """The network in native kernels for this machine, None where they do not serve.

        Raises:
            ValueError: in mode "native", where there is no compiler, or an operator without a kernel.
        """
        if self.mode == "xla":
            return None
        try:
            _check_backend()
            machine = native.host()
            native.compiler(machine)
            graph = self.graph
            left = native.without_kernel(graph)
            products = [layer for layer in graph.layers if isinstance(layer, Conv | Dense | Gru)]
            served = any(layer.name not in left for layer in products)
            if not served or (self.batch == "any" and left):
                names = ", ".join(sorted(set(left.values()))) or "no product"
                raise ValueError(f"kernels='native' must serve fun with batch={self.batch!r}, got operators {names}")
            if not left:
                return native.whole(native.load(self.own_program, machine, self.threads))
            return native.network(graph, machine, self.threads, self.chooser(machine))
        except ValueError:
            if self.mode == "native":
                raise
            return None

    def package(self) -> Package | None:
        """The whole network as a native program for the target, None where it cannot be one.

        Raises:
            ValueError: in mode "native" or for another target than this machine, where it cannot.
        """
        if self.mode == "xla":
            return None
        try:
            machine = native.host() if self.target is None else self.target
            native.compiler(machine)
            if left := native.without_kernel(self.graph):
                names = ", ".join(sorted(set(left.values())))
                raise ValueError(f"fun must have kernels for all layers to be a C program, got operators {names}")
            program = self.own_program if self.target is None else self.program(machine)
            files = native.write_package(program, machine, self.threads)
            return files, native.describe(program, machine, self.threads)
        except ValueError:
            if self.mode == "native" or self.target is not None:
                raise
            return None


def kept(
    files: Mapping[str, bytes], described: Mapping[str, Any] | None, mode: str
) -> tuple[Callable[[], native.Network | None], Callable[[], Package | None]]:
    """The native program of a bundle: how it is loaded, and how it is saved again.

    Args:
        files: of the bundle, verified.
        described: what its manifest says of the program, None where it holds none.
        mode: one of `MODES`.

    Raises:
        ValueError: unless the mode is "xla", if the program is of a newer version or for another machine, or in mode
            "native" if there is none.
    """
    if described is None:
        if mode == "native":
            raise ValueError("kernels='native' must find a native program in the bundle, got none")
        return (lambda: None), (lambda: None)
    mine = {name: data for name, data in files.items() if name in native.PACKAGE}
    if mode == "xla" or (mode == "auto" and jax.default_backend() != "cpu"):
        return (lambda: None), (lambda: (mine, described))
    _check_backend()
    machine = native.host()
    native.check_target(described, machine)
    return (lambda: native.whole(native.load_package(mine, described, machine))), (lambda: (mine, described))
