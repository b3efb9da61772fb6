"""Energy, time and area of a site on a crossbar chip, from published component tables."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Array, Float

from modicum.analog.chip import mapping_error
from modicum.analog.converters import effective_bits, quantize_inputs
from modicum.analog.spec import CrossbarSpec
from modicum.core import Site, matmul_form


class Component(NamedTuple):
    """One row of a published table, for all its copies together."""

    name: str
    power_milliwatts: float
    area_mm2: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A chip of tiles of units of crossbars. Sums are the published ones (`tests/analog/test_cost.py`).

    Attributes:
        converter: the ADCs of a unit, which are charged per conversion.
        unit: the other components of a unit (FORMS: MCU, ISAAC: IMA).
        tile: the digital components of a tile.
        chip: what a chip has once.
        converters: ADCs of one crossbar, which share its columns.
        converter_hertz: conversions per second of one ADC.
        converter_bits: resolution for which `converter` is listed.
        crossbar_rows: rows, and columns, of a crossbar.
        skips: whether inputs' leading zeros are skipped; all bits are streamed where not.
    """

    converter: Component
    unit: tuple[Component, ...]
    tile: tuple[Component, ...]
    chip: tuple[Component, ...]
    converters: int
    converter_hertz: float
    converter_bits: int
    crossbar_rows: int = 128
    crossbars: int = 8
    units: int = 12
    tiles: int = 168
    skips: bool = True

    @property
    def unit_total(self) -> tuple[float, float]:
        """Milliwatts and mm2 of a unit."""
        return _sum((self.converter, *self.unit))

    @property
    def tile_total(self) -> tuple[float, float]:
        """Milliwatts and mm2 of a tile."""
        return _weighted(self.unit_total, self.units, _sum(self.tile))

    @property
    def chip_total(self) -> tuple[float, float]:
        """Milliwatts and mm2 of a chip."""
        return _weighted(self.tile_total, self.tiles, _sum(self.chip))

    @property
    def conversion_joules(self) -> float:
        """Energy of one conversion at `converter_bits`."""
        return self.converter.power_milliwatts * 1e-3 / (self.crossbars * self.converters * self.converter_hertz)

    @property
    def other_watts(self) -> float:
        """Power of a working crossbar without its ADCs: its part of the unit and of the tile's digital components."""
        unit = _sum(self.unit)[0] + _sum(self.tile)[0] / self.units
        return unit * 1e-3 / self.crossbars


def _sum(components: tuple[Component, ...]) -> tuple[float, float]:
    return math.fsum(c.power_milliwatts for c in components), math.fsum(c.area_mm2 for c in components)


def _weighted(part: tuple[float, float], copies: int, rest: tuple[float, float]) -> tuple[float, float]:
    return part[0] * copies + rest[0], part[1] * copies + rest[1]


_FORMS_3 = "FORMS (ISCA 2021), Table III"
_FORMS_4 = "FORMS (ISCA 2021), Table IV"
_ISAAC_1 = "ISAAC (ISCA 2016), Table I"
_REGISTERS = (
    Component("input register 2 KB", 1.24, 0.0021, _ISAAC_1),
    Component("output register 256 B", 0.23, 0.00077, _ISAAC_1),
)
_LINK = (Component("HyperTransport, 4 links at 1.6 GHz", 10400.0, 22.88, _ISAAC_1),)

FORMS = Architecture(
    converter=Component("ADC 4 bits 2.1 GHz x32", 15.2, 0.0091, _FORMS_3),
    unit=(
        Component("DAC 1 bit 8x128", 4.0, 0.00017, _FORMS_3),
        Component("sample and hold 8x128", 0.0055, 0.000023, _FORMS_3),
        Component("crossbar 128x128 2 bits/cell x8", 2.44, 0.00024, _FORMS_3),
        Component("shift and add x4", 0.2, 0.000024, _FORMS_3),
        Component("skipping logic", 0.01, 0.0000001, _FORMS_3),
        Component("sign indicator", 0.012, 0.0000031, _FORMS_3),
        *_REGISTERS,
    ),
    tile=(Component("digital unit", 53.05, 0.25, _FORMS_4),),
    chip=_LINK,
    converters=4,
    converter_hertz=2.1e9,
    converter_bits=4,
)
"""FORMS with fragments of 8. Its Table III leaves out the registers; with ISAAC's, Table IV's sums come out."""

ISAAC = Architecture(
    converter=Component("ADC 8 bits 1.2 GHz x8", 16.0, 0.0096, _ISAAC_1),
    unit=(
        Component("DAC 1 bit 8x128", 4.0, 0.00017, _ISAAC_1),
        Component("sample and hold 8x128", 0.01, 0.00004, _ISAAC_1),
        Component("crossbar 128x128 2 bits/cell x8", 2.4, 0.0002, _ISAAC_1),
        Component("shift and add x4", 0.2, 0.00024, _ISAAC_1),
        *_REGISTERS,
    ),
    tile=(
        Component("eDRAM 64 KB", 20.7, 0.083, _ISAAC_1),
        Component("bus 256 bits", 7.0, 0.090, _ISAAC_1),
        Component("router, shared by 4 tiles", 42.0 / 4, 0.151 / 4, _ISAAC_1),
        Component("sigmoid x2", 0.52, 0.0006, _ISAAC_1),
        Component("shift and add", 0.05, 0.00006, _ISAAC_1),
        Component("max pool", 0.4, 0.00024, _ISAAC_1),
        Component("output register 3 KB", 1.68, 0.0032, _ISAAC_1),
    ),
    chip=_LINK,
    converters=1,
    converter_hertz=1.2e9,
    converter_bits=8,
    skips=False,
)
"""ISAAC-CE."""

# Picojoules per conversion and um2 of ISAAC-style ADCs by bits: Accelergy hwcomponents-library, isaac.py.
_CONVERTERS = {
    4: (0.79, 361.0),
    5: (0.99, 477.0),
    6: (1.20, 627.0),
    7: (1.42, 845.0),
    8: (1.67, 1200.0),
    9: (1.97, 1828.0),
    10: (2.38, 3002.0),
}


def converter_ratio(bits: int, reference_bits: int) -> tuple[float, float]:
    """Energy and area of an ADC against one of `reference_bits`, as ISAAC-style converters scale.

    Outside 4 to 10 bits the last step's factor is continued.
    """

    def at(bits: int, column: int) -> float:
        low, high = min(_CONVERTERS), max(_CONVERTERS)
        edge, inner = (low, low + 1) if bits < low else (high, high - 1)
        if low <= bits <= high:
            return _CONVERTERS[bits][column]
        factor = _CONVERTERS[edge][column] / _CONVERTERS[inner][column]
        return _CONVERTERS[edge][column] * factor ** abs(bits - edge)

    return at(bits, 0) / at(reference_bits, 0), at(bits, 1) / at(reference_bits, 1)


class Activity(NamedTuple):
    """What the numbers at a site decide about its cost."""

    effective_bits: Float[Array, ""]
    """Mean input bits streamed per pass and fragment once leading zeros are skipped."""
    mapping_error: Float[Array, ""]
    """Relative distance of the weights from what the crossbar can hold."""


def activity(weights: Float[Array, " k n"], inputs: Float[Array, " b k"], spec: CrossbarSpec) -> Activity:
    """Measure a product: its effective input bits and how well its weights fit."""
    codes, _ = quantize_inputs(inputs, spec)
    return Activity(effective_bits(codes, spec), mapping_error(weights, spec))


class Cost(NamedTuple):
    """One call of a site: all its input vectors, one after another."""

    energy_joules: float
    latency_seconds: float
    area_mm2: float
    conversions: float
    crossbars: int
    cells: int
    parts: tuple[tuple[str, float], ...] = ()
    """Names of components and the energy of each, joules: they sum up to the whole."""


def cost(site: Site, spec: CrossbarSpec, activity: Activity | None = None, architecture: Architecture = FORMS) -> Cost:
    r"""Cost of a site that holds its weights in crossbars of its own, without copies.

    With `c` columns per weight, `F` fragments, `V` vectors (positions of a convolution), `p` passes and `e` effective
    bits, there are `conversions = V p e F n c`. A crossbar works through its fragments one at a time; a step takes
    `ceil(columns / converters) / converter_hertz`. Crossbars work in parallel:

    `latency = V p e min(F, fragments of a crossbar) step`,
    `energy = conversions conversion_joules + (busy time of all crossbars) other_watts`.

    Left out: the chip's external link, filling the 22-stage pipeline once per inference, idle power.

    Args:
        site: from `core.sites`.
        spec: crossbar. An ideal converter is charged as the smallest exact one. Another resolution than the
            architecture's is scaled by `converter_ratio`, at the same rate. Cell bits do not change power.
        activity: measured on data; `None` streams every input bit (no zero skipping).
        architecture: component tables.

    Reference: FORMS, sections III-D and IV, Tables III and IV; ISAAC, Table I.
    """
    form = matmul_form(site)
    skips = architecture.skips and activity is not None
    bits = float(activity.effective_bits) if skips else spec.input_bits
    columns_per_weight = spec.cells * spec.polarities
    held = architecture.crossbar_rows // columns_per_weight
    stacked = architecture.crossbar_rows // spec.fragment
    fragments = -(-form.rows // spec.fragment)
    full, rest = divmod(form.columns, held)
    crossbars = form.groups * -(-fragments // stacked) * (full + (rest > 0))
    cycles = form.batch * spec.passes * bits

    def step_seconds(outputs: int) -> float:
        return -(-outputs * columns_per_weight // architecture.converters) / architecture.converter_hertz

    converter_bits = spec.exact_adc_bits if spec.adc_bits is None else spec.adc_bits
    energy_ratio, area_ratio = converter_ratio(converter_bits, architecture.converter_bits)
    conversions = form.groups * cycles * fragments * form.columns * columns_per_weight
    busy_seconds = form.groups * cycles * fragments * (full * step_seconds(held) + step_seconds(rest))
    crossbar_mm2 = architecture.tile_total[1] / (architecture.units * architecture.crossbars)
    crossbar_mm2 += (area_ratio - 1) * architecture.converter.area_mm2 / architecture.crossbars
    converting = conversions * architecture.conversion_joules * energy_ratio
    return Cost(
        energy_joules=converting + busy_seconds * architecture.other_watts,
        latency_seconds=cycles * min(fragments, stacked) * step_seconds(min(form.columns, held)),
        area_mm2=crossbars * crossbar_mm2,
        conversions=conversions,
        crossbars=crossbars,
        cells=form.groups * form.rows * form.columns * columns_per_weight,
        parts=((architecture.converter.name, converting), *_busy_parts(architecture, busy_seconds)),
    )


def _busy_parts(architecture: Architecture, busy_seconds: float) -> list[tuple[str, float]]:
    """What a working crossbar's share of the unit's and the tile's components takes, joules."""
    shares = [(component, 1) for component in architecture.unit]
    shares += [(component, architecture.units) for component in architecture.tile]
    return [
        (component.name, busy_seconds * component.power_milliwatts * 1e-3 / (architecture.crossbars * units))
        for component, units in shares
    ]
