"""A folder of files that is complete and undamaged, or refused.

The checksums find damage (a flipped bit, a truncated copy, a mixed-up file); they are no signature, and keep out
nobody who rewrites them.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = "modicum.bundle"
VERSION = 2
MANIFEST = "manifest.json"
CHECKSUM = "manifest.sha256"
CONTENT = ("model.stablehlo", "model.mlir", "weights.npz")
"""What every bundle holds beside its manifest; with native kernels there is more, and the manifest says what."""


def write(folder: Path, content: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Writes a bundle as a whole or not at all; replaces an older bundle, and nothing else.

    All files go to a hidden folder beside `folder` that is renamed at the end, so a reader never sees half a
    bundle. One writer at a time: what an interrupted one left behind is removed by the next.

    Args:
        folder: where the bundle goes: a path that does not exist yet, an empty folder or an older bundle.
        content: the bytes of each file, those of `CONTENT` among them.
        manifest: JSON-able description; the files' sizes and checksums are added to it.

    Raises:
        ValueError: if `folder` is a file, or a folder that holds anything but a bundle.
    """
    folder = Path(os.path.abspath(folder))
    _check_free(folder)
    described = {
        "format": FORMAT,
        "version": VERSION,
        **manifest,
        "files": {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in content.items()},
    }
    text = (json.dumps(described, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    partial, older = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "older"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for name, data in {**content, MANIFEST: text, CHECKSUM: _checksum(text)}.items():
            _write_file(partial / name, data)
        _replace(partial, folder, older)
    except BaseException:  # an interrupt too must leave nothing behind
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(older, ignore_errors=True)


def read(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The content and the manifest of a bundle, after every byte of it was verified.

    Nothing is parsed before its checksum holds, and what is returned is what was verified: files are read once.

    Raises:
        ValueError: naming the first file that is missing, damaged or does not belong there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"folder must be a bundle, got {str(folder)!r}, which is no folder")
    present = set(os.listdir(folder))

    def data(name: str) -> bytes:
        if name not in present or not (folder / name).is_file():
            raise ValueError(f"bundle {folder} must hold {name}, which is missing")
        return (folder / name).read_bytes()

    text = data(MANIFEST)
    if data(CHECKSUM) != _checksum(text):
        raise ValueError(f"bundle {folder} is damaged: {MANIFEST} and {CHECKSUM} do not agree")
    manifest = _parsed(folder, text)
    content = {name: data(name) for name in manifest["files"]}
    for name in sorted(present - {*content, MANIFEST, CHECKSUM}):
        raise ValueError(f"bundle {folder} must hold nothing but its own files, got {name}")
    for name, blob in content.items():
        stated = manifest["files"][name]
        if len(blob) != stated["bytes"]:
            raise ValueError(f"bundle {folder} is damaged: {name} has {len(blob)} bytes, not {stated['bytes']}")
        if _digest(blob) != stated["sha256"]:
            raise ValueError(f"bundle {folder} is damaged: {name} does not have its SHA-256")
    return content, manifest


def _parsed(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
        made = manifest["format"], manifest["version"]
        files = manifest["files"]
        complete = all({"bytes", "sha256"} <= files[name].keys() for name in {*CONTENT, *files})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"bundle {folder} must be described by its {MANIFEST}, got one that is no manifest") from error
    if made[0] == FORMAT and isinstance(made[1], int) and made[1] > VERSION:
        raise ValueError(
            f"bundle {folder} must have version {VERSION} or less, got {made[1]}: a newer modicum wrote it"
        )
    if made != (FORMAT, VERSION) or not complete:
        raise ValueError(f"bundle {folder} must have format {FORMAT} {VERSION}, got {made[0]} {made[1]}")
    return manifest


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _checksum(manifest: bytes) -> bytes:
    # The format of sha256sum, so that `sha256sum -c manifest.sha256` works too.
    return f"{_digest(manifest)}  {MANIFEST}\n".encode()


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _check_free(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"folder must be a folder or not exist, got {str(folder)!r}, which is a file or a link")
    if folder.is_dir() and any(folder.iterdir()) and not _is_bundle(folder):
        raise ValueError(f"folder must be absent, empty or an older bundle, got {str(folder)!r} with other files in it")


def _is_bundle(folder: Path) -> bool:
    try:
        described = json.loads((folder / MANIFEST).read_bytes())
        whole = set(os.listdir(folder)) == {*described["files"], MANIFEST, CHECKSUM}
        return whole and described["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _replace(partial: Path, folder: Path, older: Path) -> None:
    # A folder cannot be renamed over a full one: the older bundle steps aside, and comes back if that fails.
    try:
        if folder.exists():
            shutil.rmtree(older, ignore_errors=True)
            folder.rename(older)
        partial.rename(folder)
    except BaseException:
        if older.exists() and not folder.exists():
            older.rename(folder)
        raise
