"""Trees of arrays as safetensors files: the path of a leaf, with `/` between, is its name."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modicum.core import Params, leaves_by_path, optional, trees

_KINDS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}
_KNOWN = {np.dtype(kind) for kind in _KINDS.values()}


def _array(name: str, leaf: Any) -> np.ndarray:
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise ValueError(f"params must be arrays, got a PRNG key at {name}: save jax.random.key_data of it")
    array = np.asarray(leaf)
    if array.dtype not in _KNOWN:
        raise ValueError(f"params must be of a dtype that safetensors has, got {array.dtype} at {name}")
    # ascontiguousarray alone would make vectors of numbers
    return np.ascontiguousarray(array).reshape(array.shape)


def _named(params: Params) -> dict[str, Any]:
    """Leaves by path; two leaves of one name cannot be told apart in a file."""
    named = leaves_by_path(params)
    if len(named) != len(jax.tree.leaves(params)):
        raise ValueError("params must have a name for each leaf, got two that are equal where '/' is part of a key")
    return named


def save(path: str | Path, params: Params, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a file that is whole or not there.

    Args:
        path: the file, by custom ending in `.safetensors`; one that is there is replaced.
        params: any pytree of arrays; a list's or a tuple's entries are named by their number.
        metadata: words that go along, such as a model's name and the data it was trained on.

    Raises:
        ValueError: if a leaf is no array of a kind that the format has, or two leaves have one name.
        ImportError: without the extra `interchange`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/a.safetensors", {"dense": {"bias": jnp.ones(2, jnp.bfloat16)}}, {"data": "none"})
        ...     load(f"{folder}/a.safetensors"), metadata(f"{folder}/a.safetensors")
        ({'dense': {'bias': Array([1, 1], dtype=bfloat16)}}, {'data': 'none'})

    Reference:
        https://github.com/huggingface/safetensors, section "Format".
    """
    numpy_files = optional.package("safetensors.numpy", "interchange", "safetensors")
    arrays = {name: _array(name, leaf) for name, leaf in _named(params).items()}
    for name, text in (metadata or {}).items():
        if not isinstance(text, str):
            raise ValueError(f"metadata must be words by name, got {text!r} at {name}")
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.tmp")
    try:
        numpy_files.save_file(arrays, unfinished, dict(metadata or {}))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, in no particular order.

    Args:
        path: the file.

    Raises:
        ValueError: if it is no whole safetensors file, or holds a kind of number that NumPy has not.
        ImportError: without the extra `interchange`.
    """
    safetensors = optional.package("safetensors", "interchange")
    content = Path(path).read_bytes()
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"path must be a whole safetensors file, got {path}: {error}") from error
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in _KINDS:
            raise ValueError(
                f"path must hold numbers of a kind that NumPy has, got {entry['dtype']} at {name} of {path}"
            )
        flat = np.frombuffer(bytes(entry["data"]), np.dtype(_KINDS[entry["dtype"]]))
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def metadata(path: str | Path) -> dict[str, str]:
    """The words that `save` was given; none in a file without.

    Args:
        path: the file.

    Raises:
        ValueError: if it is no safetensors file.
    """
    # eight bytes of length, then JSON: the library would map the whole file
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if length > 100_000_000:
                raise ValueError(f"a header of {length} bytes")
            return dict(json.loads(file.read(length)).get("__metadata__", {}))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"path must be a safetensors file, got {path}: {error}") from error


def load(path: str | Path, like: Params | None = None) -> Params:
    """The tree that a file holds, bit for bit.

    Args:
        path: the file.
        like: a tree of the structure, shapes and dtypes that are wanted (arrays or `jax.ShapeDtypeStruct`); without
            it, dicts within dicts.

    Raises:
        ValueError: if the file is damaged, or does not hold exactly the leaves of `like`: all that are missing, not
            asked for, or of another shape or dtype are named.
        ImportError: without the extra `interchange`.
    """
    arrays = read(path)
    if like is None:
        return _nested(arrays, path)
    wanted = _named(like)
    shown = {name: trees.described(array) for name, array in arrays.items()}
    expected = {name: trees.described(leaf) for name, leaf in wanted.items()}
    problems = trees.differences(expected, shown)
    if problems:
        raise ValueError(f"path must hold the leaves of like, got {path} with {problems}")
    return trees.map_by_path(lambda name, _: jnp.asarray(arrays[name]), like)


def _nested(arrays: Mapping[str, np.ndarray], path: str | Path) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in sorted(arrays.items()):
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise ValueError(f"path must hold a tree, got {path} where {name} lies below another array")
        place[last] = jnp.asarray(array)
    return tree
