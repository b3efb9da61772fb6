"""Markdown tables of import-time.json, torch-peers.json and litert-files.json: imports, and files of other houses."""

import json
from pathlib import Path

from tabular import header, line


def made_with(versions: dict) -> str:
    """Machine and commit."""
    return f"{versions['machine']['cores']} cores, jax {versions['jax']}, commit {str(versions['commit'])[:7]}."


def import_table(folder: Path) -> str:
    """CPU seconds of imports, without the interpreter's own; empty where nothing is measured."""
    path = folder / "import-time.json"
    if not path.exists():
        return ""
    stored = json.loads(path.read_text())
    lines = header(("import", "CPU s", "of import jax"))
    for name, row in stored["rows"].items():
        if "cpu_ratio_to_jax" in row:
            lines.append(line((f"`{name}`", f"{row['own_cpu_seconds']:.2f}", f"{row['cpu_ratio_to_jax']:.2f}x")))
    foot = f"Medians of {stored['rounds']} fresh processes that took turns, {made_with(stored['versions'])}"
    return "\n".join([*lines, "", foot])


KINDS = ("safetensors", "ONNX", "ONNX, folded")


def peer_table(folder: Path) -> str:
    """How far outputs are from torch's, by the way the weights came; empty where nothing is measured."""
    path = folder / "torch-peers.json"
    if not path.exists():
        return ""
    stored = json.loads(path.read_text())
    lines = header(("network of torch", "weights", *(f"by {kind}" for kind in KINDS)))
    for name, row in stored["rows"].items():
        found = [row.get(kind, {}) for kind in KINDS]
        shown = [
            f"{cell['relative_difference']:.1e}"
            if cell.get("same_classes")
            else f"{cell['relative_difference']:.1e}, other classes"
            if "relative_difference" in cell
            else "refused, in a sentence"
            if cell
            else ""
            for cell in found
        ]
        numbers = next(cell["numbers"] for cell in found if "numbers" in cell)
        lines.append(line((name, f"{numbers:,}", *shown)))
    peers = ", ".join(f"{name} {version}" for name, version in stored["peers"].items())
    foot = f"Largest difference of outputs, relative to torch's largest; {peers}, {made_with(stored['versions'])}"
    return "\n".join([*lines, "", foot])


def litert_table(folder: Path) -> str:
    """LiteRT files of our networks; empty where nothing is measured."""
    path = folder / "litert-files.json"
    if not path.exists():
        return ""
    stored = json.loads(path.read_text())
    lines = header(("network as a LiteRT file", "weights", "bytes", "difference"))
    for name, row in stored["rows"].items():
        difference = f"{row['relative_difference']:.1e}{'' if row['same_classes'] else ', other classes'}"
        lines.append(line((name, f"{row['weights']:,}", f"{row['bytes']:,}", difference)))
    packages = ", ".join(f"{name} {version}" for name, version in stored["packages"].items())
    foot = f"Of LiteRT's interpreter from the network, relative; {packages}, {made_with(stored['versions'])}"
    return "\n".join([*lines, "", foot])


def interchange_tables(folder: Path) -> str:
    """Both directions."""
    return "\n\n".join(filter(None, (peer_table(folder), litert_table(folder))))
