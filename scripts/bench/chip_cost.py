"""Sums of the published component tables: `python scripts/bench/chip_cost.py` writes results/chip-cost.json at once.

Power and area of a FORMS and an ISAAC chip, and throughput, power and efficiency of the CAP-RAM macro in every mode, by
the cost models of `modicum.analog`; beside them the sums that the papers print. Tests hold them against each other.
"""

from pathlib import Path
from typing import Any

from modicum import train
from modicum.analog import FORMS, ISAAC, mode_table
from modicum.analog.cost import Architecture

RESULTS = Path(__file__).parent / "results" / "chip-cost.json"
PUBLISHED = {
    "FORMS": {"units_milliwatts": 280.05, "tile_milliwatts": 333.1, "chip_milliwatts": 66360.8, "chip_mm2": 89.15},
    "ISAAC": {"units_milliwatts": 288.96, "tile_milliwatts": 329.81, "chip_milliwatts": 65808.08, "chip_mm2": 85.4},
    "CAP-RAM": {"gops": 573.4, "milliwatts": 11.62, "tops_per_watt": [49.3, 49.4]},
}
"""FORMS, tables III and IV (ISAAC's power as FORMS lists it, its area from ISAAC's table I); CAP-RAM, section IV-C
(its abstract and its conclusion print different efficiencies)."""


def sums(architecture: Architecture) -> dict[str, float]:
    """Power of the units of a tile, of a tile and of a chip, and a chip's area."""
    chip_milliwatts, chip_mm2 = architecture.chip_total
    return {
        "units_milliwatts": architecture.units * architecture.unit_total[0],
        "tile_milliwatts": architecture.tile_total[0],
        "chip_milliwatts": chip_milliwatts,
        "chip_mm2": chip_mm2,
    }


def entry() -> dict[str, Any]:
    """All of it."""
    return {
        "published": PUBLISHED,
        "chips": {"FORMS": sums(FORMS), "ISAAC": sums(ISAAC)},
        "modes": [mode._asdict() for mode in mode_table()],
    }


if __name__ == "__main__":
    train.report.write_json(RESULTS, {**entry(), "versions": train.report.versions()})
