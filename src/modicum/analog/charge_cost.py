"""Throughput, power, energy and area of the CAP-RAM macro, from the powers that its paper measured."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from modicum.analog.charge_spec import LINES, WEIGHT_BITS, ChargeSpec
from modicum.analog.cost import Cost
from modicum.core import Site, matmul_form


@dataclass(frozen=True, kw_only=True)
class Macro:
    """A charge-domain macro. The defaults are the 65 nm prototype at 1.2 V and 25 C.

    Attributes:
        hertz: cycles per second; one cycle is a read with its conversions (section III).
        converters: ADCs, one per pair of slices (section III).
        slices: output lines (section III: 32 pairs).
        rows: cells of a cluster, one of which takes part in a cycle (section II-A).
        area_mm2: of the macro (section IV).
        array_milliwatts: SRAM array, DACs and timing, one slice of each pair at work (section IV-C).
        paired_milliwatts: the same with both slices at work (section IV-C).
        converter_milliwatts: all ADCs with their shared control (section IV-C).
        accumulator_milliwatts: accumulators and two's complement for inputs of one cycle (section IV-C).
        nibble_milliwatts: the same when two cycles are accumulated (section IV-C).
        adder_milliwatts: adder tree by output level (section IV-C; level 0 passes it by).
    """

    hertz: float = 70e6
    converters: int = 32
    slices: int = 64
    rows: int = 8
    area_mm2: float = 0.179
    array_milliwatts: float = 3.60
    paired_milliwatts: float = 6.35
    converter_milliwatts: float = 7.56
    accumulator_milliwatts: float = 0.46
    nibble_milliwatts: float = 0.78
    adder_milliwatts: tuple[float, ...] = (0.0, 0.04, 0.10, 0.19)


CAPRAM = Macro()
"""The prototype. Its area of 0.179 mm2 gives 3.2 TOPS/mm2; the paper's 3.4 must rest on another area."""


class Mode(NamedTuple):
    """The macro, always busy, with one kind of weights and inputs."""

    encoding: str
    weight_bits: int
    input_bits: int
    gops: float
    """Giga operations per second, 2 per product and addition of whole weights and inputs."""
    milliwatts: float
    tops_per_watt: float


def output_level(spec: ChargeSpec) -> int:
    """Level of the adder tree at which weights come out, 0 to 3: it adds up `2 ** level` slices.

    Reference: CAP-RAM, section III-D. By its count a ternary 2-bit weight is level 1; but this is one pair, whose
    converter has already subtracted, and the tree has nothing to add: level 0. With the 0.04 mW of level 1 the mode
    would reach 39.8 in place of 39.9 TOPS/W.
    """
    return 0 if spec.digits == 1 else math.ceil(math.log2(spec.digits * spec.polarities))


def mode(spec: ChargeSpec, macro: Macro = CAPRAM) -> Mode:
    r"""Peak throughput and power of a kind of weights and inputs.

    `gops = 2 128 converters hertz / (digits cycles)`, and the power is the sum of the parts at work. One-bit weights
    and 4-bit inputs: `2 128 32 70 MHz = 573.44 GOPS` at `3.60 + 7.56 + 0.46 = 11.62 mW`, 49.35 TOPS/W (the paper
    prints 49.4 in its abstract and 49.3 in its conclusion). The paper prints no other mode; they follow from its
    powers.

    Args:
        spec: reads the widths and the encoding; inputs are without sign here.
        macro: its numbers.

    Example:
        >>> best = mode(ChargeSpec(encoding="twos_complement", weight_bits=1))
        >>> round(best.gops, 2), round(best.milliwatts, 2), round(best.tops_per_watt, 2)
        (573.44, 11.62, 49.35)

    Reference: CAP-RAM, sections III-D and IV-C.
    """
    gops = 2 * LINES * macro.converters * macro.hertz * 1e-9 / (spec.digits * spec.cycles)
    milliwatts = macro.converter_milliwatts + _other_milliwatts(spec, macro)
    # giga operations per milliwatt are tera operations per watt
    return Mode(spec.encoding, spec.weight_bits, spec.input_bits, gops, milliwatts, gops / milliwatts)


def _other_milliwatts(spec: ChargeSpec, macro: Macro) -> float:
    """Power of a busy macro without its converters."""
    return sum(_other_parts(spec, macro).values())


def _other_parts(spec: ChargeSpec, macro: Macro) -> dict[str, float]:
    return {
        "array, DACs and timing": macro.paired_milliwatts if spec.polarities == 2 else macro.array_milliwatts,
        "accumulators": macro.nibble_milliwatts if spec.cycles == 2 else macro.accumulator_milliwatts,
        "adder tree": macro.adder_milliwatts[output_level(spec)],
    }


def mode_table(macro: Macro = CAPRAM) -> tuple[Mode, ...]:
    """All 14 modes: every encoding and width of weights with inputs of 4 bits (or fewer) and 8 (or from 5 on).

    Example:
        >>> len(mode_table())
        14

    Reference: CAP-RAM, sections III-D (widths) and IV-C (powers).
    """
    return tuple(
        mode(ChargeSpec(encoding=encoding, weight_bits=weight_bits, input_bits=input_bits), macro)
        for input_bits in (4, 8)
        for encoding, widths in WEIGHT_BITS.items()
        for weight_bits in widths
    )


def cost(site: Site, spec: ChargeSpec, activity: Any = None, macro: Macro = CAPRAM) -> Cost:
    r"""Cost of a site that holds its weights in macros of its own, without copies.

    With `F` blocks of 128 rows in each of `G` groups, `d` digits, `V` vectors (positions of a convolution), `p`
    passes and `q` nibbles there are `conversions = V p q G F n d`. A cycle reads one block with all converters, so
    that a vector takes `reads = G F ceil(n d / converters)` cycles, which the macros share:

    `latency = V p q ceil(reads / macros) / hertz`,
    `energy = conversions converter_power / (converters hertz) + V p q reads other_power / hertz`.

    A block takes `n d` slices (ternary: pairs) of one row each; a macro has `rows` times `slices` of them, and layers
    too large take several macros, as in the paper's ResNet-20.

    Left out: writing the weights, idle power, what is not on the macro (activations, the digital sums of blocks).

    Args:
        site: from `core.sites`.
        spec: macro. Its converter is charged as the published one, whatever `adc_bits`.
        activity: unused: the paper gives powers for random inputs alone.
        macro: its numbers.

    Returns:
        A `Cost` whose `crossbars` are macros.

    Reference: CAP-RAM, sections IV-B.3 (mapping) and IV-C (powers).
    """
    del activity
    form = matmul_form(site)
    blocks = form.groups * -(-form.rows * spec.copies // LINES)
    cycles = form.batch * spec.passes * spec.cycles
    reads = blocks * -(-form.columns * spec.digits // macro.converters)
    macros = -(-blocks * form.columns * spec.digits * spec.polarities // (macro.rows * macro.slices))
    conversions = cycles * blocks * form.columns * spec.digits
    conversion_joules = macro.converter_milliwatts * 1e-3 / (macro.converters * macro.hertz)
    busy_seconds = cycles * reads / macro.hertz
    parts = [("ADCs and control", conversions * conversion_joules)]
    parts += [(name, busy_seconds * power * 1e-3) for name, power in _other_parts(spec, macro).items()]
    return Cost(
        energy_joules=math.fsum(joules for _, joules in parts),
        latency_seconds=cycles * -(-reads // macros) / macro.hertz,
        area_mm2=macros * macro.area_mm2,
        conversions=float(conversions),
        crossbars=macros,
        cells=form.groups * form.rows * spec.copies * form.columns * spec.digits * spec.polarities,
        parts=tuple(parts),
    )
