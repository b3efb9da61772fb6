"""Markdown tables of accuracy-TABLE.json, whose cells scripts/bench/accuracy.py measured."""

import json
from collections.abc import Iterable
from pathlib import Path

from tabular import header, interval, line, percent


def anchors(table: str) -> dict[str, str]:
    """What others published, by row."""
    import accuracy

    return {row.name: row.anchor for row in accuracy.TABLES.get(table, ())}


def comparisons(table: str, cells: dict[str, dict]) -> list[str]:
    """Rows against rows: differences paired by seed, where both are measured."""
    import accuracy

    def of(row: str, arm: str) -> dict[int, dict]:
        return {cell["seed"]: cell for name, cell in cells.items() if name.startswith(f"{row} | {arm} | ")}

    lines = []
    for first, second in accuracy.COMPARISONS.get(table, ()):
        chosen = [of(row, arm) for row, arm in (first, second)]
        seeds = sorted(set(chosen[0]) & set(chosen[1]))
        if seeds:
            difference = interval([chosen[0][seed]["accuracy"] - chosen[1][seed]["accuracy"] for seed in seeds])
            lines.append(f"- {first[0]} - {second[0]}: {difference} ({len(seeds)} seeds)")
    return lines


def accuracy_row(name: str, cells: list[dict], anchor: str) -> str:
    """One line: a set of weights, all its arms and seeds."""
    arms: dict[str, dict[int, dict]] = {}
    for cell in cells:
        arms.setdefault(cell["arm"], {})[cell["seed"]] = cell

    def paired(first: str, second: str | None) -> str:
        ours, theirs = arms.get(first, {}), arms.get(second or first, {})
        seeds = sorted(set(ours) & set(theirs))
        reference = "dense_accuracy" if second is None else "accuracy"
        return interval([ours[seed]["accuracy"] - theirs[seed][reference] for seed in seeds]) if seeds else ""

    def scores(arm: str) -> str:
        chosen = [cell for _, cell in sorted(arms.get(arm, {}).items())]
        if not chosen:
            return ""
        hard = sum(cell["hard_accuracy"] for cell in chosen) / len(chosen)
        return f"{100 * hard:.1f} → {percent([cell['accuracy'] for cell in chosen])}"

    dense = {cell["seed"]: cell["dense_accuracy"] for cell in cells}
    best = list(arms.get("admm", next(iter(arms.values()))).values())
    rate = sum(cell["constrained_weights"] / cell["constrained_kept"] for cell in best) / len(best)
    size = sum(cell["dense_bytes"] / cell["packed_bytes"] for cell in best) / len(best)
    columns = (
        name,
        f"{rate:.1f}x",
        f"{size:.1f}x",
        percent([dense[seed] for seed in sorted(dense)]),
        scores("admm"),
        scores("one_shot"),
        scores("gradual"),
        paired("admm", None),
        paired("admm", "one_shot"),
        f"{max(cell['violation'] for cell in cells):g}",
        f"{len(dense)} x {cells[0]['steps']:,}",
        # a cell that was resumed counts its last part only, hence the longest
        f"{max(cell.get('cpu_seconds', 0) for cell in best):.0f}",
        anchor,
    )
    return line(columns)


def accuracy_table(path: Path) -> str:
    """The table of one file of cells; `scripts/bench/accuracy.py` measured them."""
    head = (
        "sets",
        "weights",
        "bytes",
        "dense",
        "ADMM: projected → retrained",
        "one-shot, equal steps",
        "gradual, equal steps",
        "ADMM - dense",
        "ADMM - one-shot",
        "violation",
        "seeds x steps",
        "CPU s per ADMM run",
        "published",
    )
    rows: dict[str, list[dict]] = {}
    cells, table = json.loads(path.read_text())["cells"], path.stem.removeprefix("accuracy-")
    for name, cell in cells.items():
        rows.setdefault(name.split(" | ")[0], []).append(cell)
    published = anchors(table)
    order = [name for name in published if name in rows] + [name for name in rows if name not in published]
    lines = header(head)
    lines += [accuracy_row(name, rows[name], published.get(name, "")) for name in order]
    compared = comparisons(table, cells)
    return "\n".join(
        [*lines, *(["", "Differences of accuracy in points, paired by seed:", ""] if compared else []), *compared]
    )


def tables(folder: Path, names: Iterable[str] | None = None) -> str:
    """Tables of cells, each under its title.

    Args:
        folder: of the results JSON.
        names: of the tables, such as mnist; all where none are given.
    """
    parts = []
    for path in sorted(folder.glob("accuracy-*.json")):
        if names is not None and path.stem.removeprefix("accuracy-") not in names:
            continue
        cell = next(iter(json.loads(path.read_text())["cells"].values()))
        title = f"**{cell['data']}, {cell['model']}** ({cell['test_examples']:,} held out)"
        parts.append(f"{title}\n\n{accuracy_table(path)}")
    return "\n\n".join(parts)
