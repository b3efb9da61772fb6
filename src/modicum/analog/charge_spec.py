"""The static numbers of a charge-domain SRAM macro (CAP-RAM)."""

import math
from dataclasses import dataclass

from modicum.analog.spec import CrossbarSpec
from modicum.core import check

LINES = 128
"""Input lines of a macro: the rows of one read (section III)."""
NIBBLE_BITS = 4
"""Bits of the DACs: what one cycle takes of an input (section III-C)."""
LARGEST_NIBBLE = 2**NIBBLE_BITS - 1
LARGEST_SUM = LINES * LARGEST_NIBBLE
"""Largest sum of a slice, 1920 (section IV-A.4)."""
WEIGHT_BITS = {"twos_complement": (1, 2, 4, 8), "ternary": (2, 3, 5)}
"""Weight widths of each encoding (section III-D)."""


@dataclass(frozen=True, kw_only=True)
class ChargeSpec:
    r"""A 6T SRAM macro that multiplies on capacitors and adds by sharing their charge.

    A slice holds one binary digit of 128 weights. Its output line moves by
    `unit_farads / (128 unit_farads + line_farads) sum_i w_i x_i full_scale_volts / 15` and is converted in steps of
    `lsb` such products; a read of more rows, other digits and the second nibble of an input are added digitally. The
    ideal macro is `ChargeSpec(adc_bits=None, dac_volts=0, residue_volts=0, noise_lsb=0)`, and so is one with
    `adc_bits=12, lsb=1` in place of `adc_bits=None`.

    What varies from part to part (all but `noise_lsb`) is drawn once per chip. The defaults are what the paper
    states; what it does not give is 0.

    Attributes:
        encoding: `'ternary'` holds digits -1, 0, +1 in a pair of slices, which one differential converter reads;
            `'twos_complement'` holds bits, the highest of which counts negative, read one slice at a time.
        weight_bits: 2, 3 or 5 if ternary (`2 weight_bits - 2` cells); 1, 2, 4 or 8 in two's complement, where one bit
            is 0 or 1 (the reversal of the highest bit's sign is a switch, section III-D).
        input_bits: 1 to 8; up to 4 take one cycle, more take two. A sign is not among them: `'signed'` inputs take a
            second pass. Inputs below 4 bits use the lower codes of the DAC.
        adc_bits: bits of the differential converter, 2 to 14, the sign included (the paper: 7); two's complement
            drops the sign and has one bit less (6). `None` neither rounds nor saturates.
        lsb: products `w x` per converter step, above 0. The paper's 64 codes for sums up to 1920 make 30.
        full_scale_volts: swing of an input line at code 15. Inferred: 1.2 V less the 600 mV at which the DAC still is
            linear (section III-C).
        unit_farads: capacitor of a cluster (section II-A).
        line_farads: capacitance of the output line (section II-B).
        dac_volts: standard deviation of an input line at code 15, where it is largest (section III-C: 1.56 mV). Each
            of the 128 DACs has four binary sized branches, whose variances are as their sizes.
        residue_volts: standard deviation of what coupling and charge injection leave on a slice's line (section II-A,
            equations 4 to 7: 0.6 mV).
        noise_lsb: standard deviation of the random noise of a conversion, at the converter's input (section IV-B.2:
            0.35). The paper measures codes, in which rounding adds to the noise: 0.22 at the input makes 0.35 in
            codes, and 0.35 at the input, the cautious reading, makes 0.45.
        capacitor_sigma: relative standard deviation of a cluster's capacitor; not given.
        gain_sigma: relative standard deviation of a slice's gain; shown in figure 16(a), not given.
        offset_lsb: standard deviation of a slice's offset in converter steps; shown in figure 16(a), not given.
        inl_lsb: bend that all slices share, the factor of a cubic Legendre polynomial over the converter's range, in
            converter steps; not given (the calibrated sum of all bends is below 2, section IV-A.4).
        inl_spread_lsb: standard deviation of each slice's own quadratic and cubic bends; not given.
        input_format: `'signed'` reads `max(x, 0)` and `max(-x, 0)` in two passes; `'unsigned'` reads once and takes
            negative inputs as 0.
        input_scale: value of one input step, or `'max'`: the largest magnitude of the call gets the highest code.
        copies: lines that carry each input, 1 to 128: every weight is held as often, sums grow as much against what
            conversions add, and are divided again digitally. A layer of few rows so uses lines that would idle (25
            rows: 5 copies in the same 128 lines). Our own; the paper tells of no such mapping.
        weight_scale: value of one weight step, or `'max'` or `'grid'` as in `CrossbarSpec`. Only a number reaches
            the lowest two's complement level, the one without a positive partner.

    Raises:
        ValueError: for a number out of its range, or a width that the encoding does not have.

    Reference: Chen et al., CAP-RAM, IEEE JSSC 2021.
    """

    encoding: str = "ternary"
    weight_bits: int = 2
    input_bits: int = 4
    adc_bits: int | None = 7
    lsb: float = 30.0
    full_scale_volts: float = 0.6
    unit_farads: float = 1.2e-15
    line_farads: float = 80e-15
    dac_volts: float = 1.56e-3
    residue_volts: float = 0.6e-3
    noise_lsb: float = 0.35
    capacitor_sigma: float = 0.0
    gain_sigma: float = 0.0
    offset_lsb: float = 0.0
    inl_lsb: float = 0.0
    inl_spread_lsb: float = 0.0
    input_format: str = "signed"
    input_scale: float | str = "max"
    weight_scale: float | str = "grid"
    copies: int = 1

    def __post_init__(self):
        check.one_of(tuple(WEIGHT_BITS), encoding=self.encoding)
        check.integer(weight_bits=self.weight_bits)
        if self.weight_bits not in WEIGHT_BITS[self.encoding]:
            allowed = ", ".join(map(str, WEIGHT_BITS[self.encoding]))
            raise ValueError(
                f"weight_bits must be one of {allowed} for the encoding {self.encoding!r}, got {self.weight_bits!r}"
            )
        check.integer(1, 2 * NIBBLE_BITS, input_bits=self.input_bits)
        check.integer(1, LINES, copies=self.copies)
        if self.adc_bits is not None:
            check.integer(2, 14, adc_bits=self.adc_bits)
        for name in ("lsb", "full_scale_volts", "unit_farads", "line_farads"):
            check.positive(**{name: getattr(self, name)})
        for name in ("dac_volts", "residue_volts", "noise_lsb", "capacitor_sigma", "gain_sigma"):
            check.non_negative(**{name: getattr(self, name)})
        for name in ("offset_lsb", "inl_lsb", "inl_spread_lsb"):
            check.non_negative(**{name: getattr(self, name)})
        check.not_infinite(**{name: value for name, value in vars(self).items() if isinstance(value, float)})
        # what is shared with the crossbar is checked there
        _ = self.steps

    @property
    def steps(self) -> CrossbarSpec:
        """How numbers become levels and codes: the part that a crossbar of these widths has in common."""
        return CrossbarSpec(
            weight_bits=max(self.weight_bits, 2),
            input_bits=self.input_bits,
            input_format=self.input_format,
            input_scale=self.input_scale,
            weight_scale=self.weight_scale,
        )

    @property
    def levels(self) -> tuple[int, int]:
        """Lowest and highest weight, in steps."""
        highest = 2 ** (self.weight_bits - 1) - 1
        if self.encoding == "ternary":
            return -highest, highest
        return (0, 1) if self.weight_bits == 1 else (-highest - 1, highest)

    @property
    def polarities(self) -> int:
        """Slices per converted digit: 2 if a converter reads a pair."""
        return 2 if self.encoding == "ternary" else 1

    @property
    def digits(self) -> int:
        """Converted digits per weight: `weight_bits`, or one less if ternary."""
        return self.weight_bits - self.polarities + 1

    @property
    def places(self) -> tuple[int, ...]:
        """What each digit counts, lowest first."""
        places = [2**digit for digit in range(self.digits)]
        if self.encoding == "twos_complement" and self.weight_bits > 1:
            places[-1] = -places[-1]
        return tuple(places)

    @property
    def cycles(self) -> int:
        """Cycles per pass: 2 for inputs of more than one nibble."""
        return -(-self.input_bits // NIBBLE_BITS)

    @property
    def passes(self) -> int:
        """Passes over the inputs: 2 if they have a sign."""
        return self.steps.passes

    @property
    def codes(self) -> tuple[float, float]:
        """Lowest and highest code of the converter in this encoding's mode; infinite for the ideal one."""
        if self.adc_bits is None:
            return -math.inf, math.inf
        half = 2 ** (self.adc_bits - 1)
        return float(-half if self.polarities == 2 else 0), float(half - 1)

    @property
    def sharing(self) -> float:
        """Part of the clusters' charge that counts: `128 C / (128 C + C_line)`, 0.6575 with the paper's values."""
        clusters = LINES * self.unit_farads
        return clusters / (clusters + self.line_farads)

    @property
    def lsb_volts(self) -> float:
        """Swing of the output line per converter step: 6.16 mV with the paper's values."""
        return self.lsb * self.sharing * self.full_scale_volts / LARGEST_SUM
