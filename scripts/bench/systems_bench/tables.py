"""The table of systems in Markdown, whole or of one system."""

from pathlib import Path

from tabular import grid

from systems_bench import calls, chips, compressed, federated, spiking
from systems_bench.rows import Row, cells_of, reader

ROOT = Path(__file__).resolve().parents[3]
SYSTEMS: dict[str, tuple[str, tuple[Row, ...]]] = {
    "spiking": ("Reversible spiking node (arXiv 2308.08649)", spiking.ROWS),
    "patdnn": ("PatDNN (ASPLOS 2020)", compressed.PATDNN),
    "pattern": ("Pattern-based sparsity (PCONV, AAAI 2020; ECCV 2020)", compressed.PATTERN),
    "rtmobile": ("RTMobile (DAC 2020)", compressed.RTMOBILE),
    "unification": ("Micro-structured unification (arXiv 2106.08301)", compressed.UNIFICATION),
    "forms": ("FORMS (ISCA 2021)", chips.FORMS),
    "capram": ("CAP-RAM (JSSC 2021)", chips.CAPRAM),
    "sefl": ("SEFL (EMNLP 2021)", federated.SEFL),
    "enclave": ("Federated learning in SGX (ESMFL, arXiv 2009.01867)", federated.ENCLAVE),
    "conference": ("FAIVConf (arXiv 2207.04090)", calls.ROWS),
    "pipelines": ("Pipelines across systems", calls.pipeline_rows(ROOT / "configs" / "pipelines")),
}
"""Title and rows by the name that `scripts/tables.py NAME` takes."""
HEAD = ("what", "paper", "aim", "ours", "outcome", "measured by", "commits")


def table(name: str, folder: Path) -> str:
    """One system's rows under its title.

    Args:
        name: one of `SYSTEMS`.
        folder: of the results JSON.
    """
    title, rows = SYSTEMS[name]
    results = reader(folder)
    return f"**{title}**\n\n{grid(HEAD, (cells_of(row, row.find(results)) for row in rows))}"


def tables(folder: Path) -> str:
    """All systems, and how many of their aims are reached."""
    results = reader(folder)
    found = [row.find(results) for _, rows in SYSTEMS.values() for row in rows if row.aim]
    reached, missing = sum(figure is not None and bool(figure.met) for figure in found), found.count(None)
    foot = f"Of {len(found)} aims {reached} are reached, {len(found) - reached - missing} missed"
    foot += f" and {missing} not measured yet." if missing else "."
    return "\n\n".join([*(table(name, folder) for name in SYSTEMS), foot])
