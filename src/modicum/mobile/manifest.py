"""What a bundle says about itself, and back: packed weights and report rows as JSON and one `.npz`."""

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax.numpy as jnp
import numpy as np

from modicum.core import Bytes, Packed
from modicum.mobile.report import Row

PARTS = ("payload", "index", "metadata")


def describe_weights(packed: Mapping[str, Packed]) -> dict[str, Any]:
    """Layout, shape and arrays of each leaf: all of `Packed` but the numbers in the arrays."""

    def arrays(part: Mapping[str, Any]) -> dict[str, Any]:
        return {name: {"shape": list(array.shape), "dtype": array.dtype.name} for name, array in part.items()}

    return {
        path: {
            "layout": leaf.layout,
            "shape": list(leaf.shape),
            "dtype": leaf.dtype,
            "static": leaf.static,
            "bytes": leaf.nbytes._asdict(),
            "arrays": {part: arrays(getattr(leaf, part)) for part in PARTS},
        }
        for path, leaf in packed.items()
    }


def weights_to_npz(packed: Mapping[str, Packed]) -> bytes:
    """All packed arrays in one file, named `path:part:name`; the same weights give the same bytes."""
    arrays = {
        f"{path}:{part}:{name}": np.asarray(array)
        for path, leaf in packed.items()
        for part in PARTS
        for name, array in getattr(leaf, part).items()
    }
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def weights_from_npz(data: bytes, described: Mapping[str, Any], order: list[str]) -> dict[str, Packed]:
    """The packed leaves again, in tree order; never unpickles."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:

        def part(path: str, name: str) -> dict[str, Any]:
            return {
                # numpy writes bfloat16 and its like as plain bytes: the manifest knows the dtype
                key: jnp.asarray(file[f"{path}:{name}:{key}"].view(jnp.dtype(array["dtype"])))
                for key, array in described[path]["arrays"][name].items()
            }

        return {
            path: Packed(
                **{name: part(path, name) for name in PARTS},
                layout=described[path]["layout"],
                shape=tuple(described[path]["shape"]),
                dtype=described[path]["dtype"],
                static=_hashable(described[path]["static"]),
            )
            for path in order
        }


def describe_row(row: Row) -> dict[str, Any]:
    """A report row as JSON."""
    return {**asdict(row), "shape": list(row.shape), "packed": row.packed._asdict()}


def row_from(described: Mapping[str, Any]) -> Row:
    """The row again."""
    fields: dict[str, Any] = {**described, "shape": tuple(described["shape"]), "packed": Bytes(**described["packed"])}
    return Row(**fields)


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value
