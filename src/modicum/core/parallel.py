"""Data parallelism: parameters on every device, each batch split over them, in one process or in several.

XLA partitions the program (`jax.sharding`): a trainer runs on a mesh unchanged, and computes what it computes on one
device up to the order of sums over the batch - batch statistics and random numbers included.

    mesh = parallel.data_mesh()                        # all devices of all processes
    train.fit(state, step_fn, batches, 1000, mesh=mesh)

Several processes: each calls `join` first; they share the run folder, which the first one writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from modicum.core import check

AXIS = "data"
"""Name of the mesh's axis."""


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Makes this process one of several that train together; before anything else is done with JAX.

    Args:
        coordinator: `host:port` of the first process; None on TPU pods, Slurm and Open MPI, where JAX finds out.
        processes: how many there are, at least 1; None likewise.
        process: number of this one, from 0; None likewise.

    Raises:
        ValueError: if some but not all are given, or a number is out of range.
    """
    given = (coordinator, processes, process)
    if any(part is None for part in given) and not all(part is None for part in given):
        raise ValueError(f"coordinator, processes and process must be given together, got {given}")
    if processes is not None:
        check.integer(1, processes=processes)
        check.integer(0, processes - 1, process=process)
    jax.distributed.initialize(coordinator, processes, process)


def first() -> bool:
    """Whether this is the process that writes: the only one, or number 0 of several."""
    return jax.process_index() == 0


def wait(what: str) -> None:
    """Waits until all processes are here; at once where there is one.

    Args:
        what: a name, the same in each.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def anywhere(flag: bool) -> bool:
    """Whether a flag is set in any process; all have to ask.

    Args:
        flag: of this process.
    """
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def data_mesh(devices: int | None = None) -> Mesh:
    """A mesh of one axis, `"data"`.

    Args:
        devices: how many of all, at least 1; all where None, and always where there are several processes.

    Raises:
        ValueError: if there are fewer, or each of several processes would not take part with all of its own.
    """
    every = jax.devices()
    if devices is not None:
        least = len(every) if jax.process_count() > 1 else 1
        check.integer(least, len(every), devices=devices)
    return Mesh(np.array(every[:devices]), (AXIS,))


def named_mesh(devices: str) -> Mesh | None:
    """The mesh of a number as it is written, or of "all"; None for "1", which needs none.

    Args:
        devices: what a command line says.

    Raises:
        ValueError: if it is neither, or there are fewer devices.
    """
    if devices == "1":
        return None
    if devices != "all" and not devices.isdecimal():
        raise ValueError(f"devices must be a number or 'all', got {devices!r}")
    return data_mesh(None if devices == "all" else int(devices))


def _placed(leaf: Any, sharding: NamedSharding) -> Any:
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
        return leaf
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        words = _placed(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=str(jax.random.key_impl(leaf)))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Every array whole on every device; in several processes each must bring the same.

    Args:
        tree: any pytree of arrays, typed PRNG keys among them.
        mesh: from `data_mesh`.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: _placed(leaf, everywhere), tree)


def spread(tree: Any, mesh: Mesh) -> Any:
    """Every array split over the devices by its first axis, which the number of devices divides.

    Args:
        tree: any pytree of arrays.
        mesh: from `data_mesh`.
    """
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: _placed(leaf, rows), tree)


def local(tree: Any) -> Any:
    """Arrays that lie on many devices as whole arrays on one of this process's own; others as they are.

    Args:
        tree: what `replicate` made, or a trainer of it; in one process what `spread` made, too.
    """

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=str(jax.random.key_impl(leaf)))
        return jnp.asarray(np.asarray(leaf))

    return jax.tree.map(one, tree)


def constrained(tree: Any, mesh: Mesh | None) -> Any:
    """Inside a traced function: arrays that are to leave it whole on every device; as they are without a mesh.

    Args:
        tree: a pytree of arrays.
        mesh: from `data_mesh`, or None.
    """
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Static:
    """A mesh inside a pytree."""

    mesh: Mesh


def _spread(batches: Callable[[Any], Any], static: _Static, step: Any) -> Any:
    rows = NamedSharding(static.mesh, PartitionSpec(AXIS))
    return jax.tree.map(
        lambda leaf: jax.lax.with_sharding_constraint(leaf, rows) if jnp.ndim(leaf) else leaf, batches(step)
    )


def check_even(batches: Callable[[Any], Any], mesh: Mesh | None, what: str = "batch") -> None:
    """Refuses batches that do not split evenly over the devices; traces them, and moves no data.

    Args:
        batches: as for `shard`.
        mesh: from `data_mesh`; None refuses nothing.
        what: the name of the first axis' length in the message.

    Raises:
        ValueError: if an array of the batch has a first axis that does not split evenly.
    """
    if mesh is None:
        return
    for leaf in jax.tree.leaves(jax.eval_shape(batches, jnp.zeros((), jnp.int32))):
        if leaf.ndim and leaf.shape[0] % mesh.size:
            raise ValueError(f"{what} must be a multiple of {mesh.size}, the number of devices, got {leaf.shape[0]}")


def shard(batches: Callable[[Any], Any], mesh: Mesh, what: str = "batch") -> Partial:
    """The same batches, split over the devices by their first axis; scalars (a key, a number of the step) stay whole.

    Args:
        batches: a traceable function `step -> batch`. As a `jax.tree_util.Partial` its arrays are put whole on every
            device, where each takes its own rows.
        mesh: from `data_mesh`.
        what: the name of the first axis' length in the message.

    Returns:
        A function of the step, a pytree.

    Raises:
        ValueError: as `check_even`.
    """
    check_even(batches, mesh, what)
    batches = batches if isinstance(batches, Partial) else Partial(batches)
    return Partial(_spread, replicate(batches, mesh), _Static(mesh))
