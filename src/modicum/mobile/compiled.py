"""Compile a network, save it as a bundle, load it without its code."""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

import modicum
from modicum.core import Packed, Params, check
from modicum.mobile import bundle, manifest, native, signature, stablehlo
from modicum.mobile.kernels import MODES, TARGETS, Wish, kept
from modicum.mobile.lower import bake, lower
from modicum.mobile.report import Report, Row, layers
from modicum.mobile.weights import choose, pack

BATCHES = ("fixed", "any")


@dataclass(frozen=True, eq=False, kw_only=True)
class Compiled:
    """A network with its weights inside: what `compile` and `load` return.

    Call it with `x`. Native kernels are compiled at the first call. Where there are none, XLA runs the portable module,
    in which the weights stay packed and are decoded in every call.

    Attributes:
        exported: the `jax.export` form, for several platforms, perhaps with a symbolic batch.
        module: portable StableHLO for other consumers; shapes of the example, no custom calls.
        packed: every parameter leaf in packed form, by path.
        rows: the layers of the report.
        settings: `target`, `threads` and `batch` as given to `compile`, `shapes` of the example's arrays.
        portable: what a call runs without native kernels, jitted.
        maker: makes the native network; it returns None where there is none.
        package: makes the files of the native program for the target, and what the manifest says of them, or None.
    """

    exported: export.Exported = field(repr=False)
    module: bytes = field(repr=False)
    packed: Mapping[str, Packed] = field(repr=False)
    rows: tuple[Row, ...] = field(repr=False)
    settings: Mapping[str, Any]
    portable: Callable[[Any], Any] = field(repr=False)
    maker: Callable[[], native.Network | None] = field(repr=False)
    package: Callable[[], tuple[Mapping[str, bytes], Mapping[str, Any]] | None] = field(repr=False)

    @functools.cached_property
    def network(self) -> native.Network | None:
        """The native kernels, compiled when first asked for; None where XLA runs everything."""
        return self.maker()

    @functools.cached_property
    def _function(self) -> Callable[[Any], Any]:
        return self.portable if self.network is None else jax.jit(self.network)

    def __call__(self, x: Any) -> Any:
        """The network's output; works under `jit`.

        Raises:
            ValueError: if `x` does not have the structure, shape or dtype of the example.
        """
        signature.check_inputs(self.exported, x)
        return self._function(x)

    def stablehlo(self, *, custom_calls: bool = False) -> str:
        """The module as MLIR text.

        Args:
            custom_calls: the module of `with_kernels` in place of the portable one.

        Raises:
            ValueError: as `with_kernels`.
        """
        return self.with_kernels().mlir_module() if custom_calls else stablehlo.text(self.module)

    def with_kernels(self) -> export.Exported:
        """The network as `jax.export` has it, its native programs as custom calls with their weights as constants.

        It runs where these programs are registered: in this process, and in one that has loaded the bundle and asked
        for `network.libraries[...].target`.

        Raises:
            ValueError: if there are no native kernels.
        """
        if self.network is None:
            raise ValueError("kernels must be native to be called, got a network that XLA runs: compile with 'native'")
        calls = [export.DisabledSafetyCheck.custom_call(library.target) for library in self.network.libraries]
        (x,), _ = jax.tree.unflatten(self.exported.in_tree, self.exported.in_avals)
        shape = tuple(self.settings["shapes"][0]) if self.settings["batch"] == "any" else x.shape
        spec = jax.ShapeDtypeStruct(shape, x.dtype)
        return export.export(jax.jit(self.network), platforms=("cpu",), disabled_checks=calls)(spec)

    def report(self, x: Any = None) -> Report:
        """Bytes and MACs per layer, and the native kernels; `print` it for a table.

        Args:
            x: an input; with it the first image is run layer by layer and each kernel is timed.
        """
        network = self.network
        kernels = () if network is None else network.report(None if x is None else np.asarray(x))
        return Report(rows=self.rows, module_bytes=len(self.module), kernels=kernels)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes the bundle, as a whole or not at all.

        | file | what it holds |
        |---|---|
        | `model.stablehlo` | what `jax.export.deserialize` reads |
        | `model.mlir` | a portable StableHLO artifact (MLIR bytecode), for IREE and others; its function is `main` |
        | `weights.npz` | the packed arrays, `path:part:name` |
        | `model.c`, `model.h`, `libmodel.a`, `libmodel.so`, `weights.bin`, `example.c`, `README.txt` | the native
        program for the target, where every layer has a kernel: see `native.write_package` |
        | `manifest.json` | shapes, layouts, report, versions, SHA-256 of the files above |
        | `manifest.sha256` | SHA-256 of the manifest |

        Args:
            folder: a path that does not exist, an empty folder, or an older bundle, which is replaced.

        Returns:
            The folder.

        Raises:
            ValueError: if `folder` holds anything else: it is left alone.
        """
        content = {
            "model.stablehlo": bytes(self.exported.serialize()),
            "model.mlir": self.module,
            "weights.npz": manifest.weights_to_npz(self.packed),
        }
        described = self._manifest()
        packed = self.package()
        if packed is not None:
            content |= packed[0]
            described["native"] = packed[1]
        bundle.write(Path(folder), content, described)
        return Path(folder)

    def _manifest(self) -> dict[str, Any]:
        total = Report(rows=self.rows, module_bytes=len(self.module)).total
        return {
            "modicum": modicum.__version__,
            "jax": jax.__version__,
            "settings": dict(self.settings),
            "platforms": list(self.exported.platforms),
            "inputs": [tensor._asdict() for tensor in signature.inputs(self.exported)],
            "outputs": [tensor._asdict() for tensor in signature.outputs(self.exported)],
            "order": list(self.packed),
            "weights": manifest.describe_weights(self.packed),
            "report": [manifest.describe_row(row) for row in self.rows],
            "total": {"macs": total.macs, "dense_bytes": total.dense_bytes, "packed_bytes": total.packed.total},
        }


def compile(
    fun: Callable[..., Any],
    params: Params,
    example: Any,
    *,
    constraints: Any = None,
    target: str = "host",
    threads: int = 1,
    batch: str = "fixed",
    kernels: str = "auto",
    tuning_seconds: float = 0.0,
) -> Compiled:
    """`fun(params, x)` as a function of `x` alone: native kernels for this processor, and a portable module.

    The kernels are C, written for the network's shapes and for the zeros in its weights, whatever set these lie in
    (`native`); layers without a kernel are left to XLA. In the portable module a leaf with a constraint lies as
    `constraint.encode` wrote it and is decoded there; every other leaf lies there as it is. All of it is pure
    StableHLO, so any compiler that reads StableHLO can run it.

    Args:
        fun: any JAX function `(params, x) -> y`; `x` and `y` are arrays or trees of them.
        params: a pytree of finite numbers; constrained leaves are members of their sets (violation exactly 0).
        example: `x`, or its shapes and dtypes (`jax.ShapeDtypeStruct`).
        constraints: a pytree like `params` with a constraint or `None` for each leaf, or a callable
            `params -> such a pytree`.
        target: what `save` writes kernels for: one of `TARGETS`. A call runs on this machine in any case.
        threads: threads of a call, at least 1.
        batch: `"fixed"` for the example's shapes, or `"any"` for a free first axis of every array of `x`. The module
            of `stablehlo()` keeps the example's shapes in either case.
        kernels: `"auto"` for native kernels where JAX runs on a CPU, there is a C compiler, and they compute every
            layer or, with a `"fixed"` batch, some product; `"native"` to insist; `"xla"` for the portable module alone.
        tuning_seconds: how long kernels may be timed on this machine to find the fastest; at 0 a model chooses. What
            was found once is remembered.

    Returns:
        The compiled network.

    Raises:
        ValueError: in one sentence, if an argument is not as above, or `fun` does not lower to pure StableHLO (it
            calls LAPACK or Python, say).

    Example:
        >>> import jax.numpy as jnp
        >>> net = compile(lambda p, x: jnp.tanh(x @ p["kernel"]), {"kernel": jnp.eye(3)}, jnp.ones((2, 3)))
        >>> net(jnp.zeros((2, 3))).shape
        (2, 3)
        >>> [(row.name, row.macs, row.packed.total) for row in net.report().rows]
        [('kernel', 18, 36)]
    """
    check.one_of(tuple(TARGETS), target=target)
    check.integer(1, 64, threads=threads)
    check.one_of(BATCHES, batch=batch)
    check.one_of(MODES, kernels=kernels)
    check.non_negative(tuning_seconds=tuning_seconds)
    chosen = choose(constraints, params)
    packed = pack(params, chosen)
    model = bake(fun, packed, chosen, jax.tree.structure(params))
    lowered = lower(model, example, batch)
    shapes = [list(np.shape(leaf)) for leaf in jax.tree.leaves(example)]
    wish = Wish(fun, params, example, TARGETS[target], threads, batch, kernels, tuning_seconds)
    return Compiled(
        exported=lowered.exported,
        module=lowered.module,
        packed=packed,
        rows=layers(fun, params, example, packed),
        settings={"target": target, "threads": threads, "batch": batch, "shapes": shapes, "kernels": kernels},
        portable=jax.jit(model),
        maker=wish.network,
        package=wish.package,
    )


def load(folder: str | os.PathLike[str], *, kernels: str = "auto") -> Compiled:
    """The network in a bundle, after every byte of it was verified; needs none of the network's code.

    Args:
        folder: what `Compiled.save` wrote.
        kernels: `"auto"` runs the native library where the bundle has one, `"native"` insists on one, `"xla"` runs the
            portable module, also of a bundle for another machine. No compiler is needed in any case.

    Raises:
        ValueError: if a file is missing, damaged, truncated or does not belong there, naming it; if the bundle or its
            library is of a newer version or for another machine; or if this version of JAX cannot read the module.
    """
    content, described = bundle.read(Path(folder))
    check.one_of(MODES, kernels=kernels)
    maker, package = kept(content, described.get("native"), kernels)
    try:
        exported = export.deserialize(bytearray(content["model.stablehlo"]))
        return Compiled(
            exported=exported,
            module=content["model.mlir"],
            packed=manifest.weights_from_npz(content["weights.npz"], described["weights"], described["order"]),
            rows=tuple(manifest.row_from(row) for row in described["report"]),
            settings=described["settings"],
            portable=jax.jit(exported.call),
            maker=maker,
            package=package,
        )
    except Exception as error:  # undamaged, but of another JAX or a hand-made manifest
        raise ValueError(
            f"bundle {folder} must be readable by jax {jax.__version__}, got one of jax {described.get('jax')}"
        ) from error
