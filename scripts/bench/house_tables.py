"""Markdown tables of import-time.json and torch-peers.json: what imports cost, and whose networks are read."""

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
