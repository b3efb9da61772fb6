"""The static numbers of a ReRAM crossbar."""

import math
from dataclasses import dataclass

from modicum.core import check


@dataclass(frozen=True, kw_only=True)
class CrossbarSpec:
    """A bit-sliced, bit-serial crossbar that reads one fragment of rows at a time.

    A weight is an integer of `-levels ... levels` times a step, its magnitude cut into `cells` digits of `cell_bits`
    bits. Inputs arrive one bit per cycle; in each cycle and for each fragment every column's current is converted by
    an ADC whose step is one cell level, then shifted, signed and added digitally. The ideal chip is
    `CrossbarSpec(adc_bits=None, sigma=0)`.

    Attributes:
        fragment: rows activated together, 1 to 128. Fragments run down a column.
        weight_bits: bits of a weight, its sign included, 2 to 16: magnitudes up to `2 ** (weight_bits - 1) - 1`.
        cell_bits: bits per cell, 1 to 6.
        input_bits: bits streamed in one pass, 1 to 16: magnitudes up to `2 ** input_bits - 1`. A sign is not among
            them: `'signed'` inputs take a second pass.
        adc_bits: bits of the converter, 1 to 12; `None` is an ideal converter that neither rounds nor saturates.
        adc_mode: `'clip'` saturates at `2 ** adc_bits - 1`; `'flip'` first stores the complement of every fragment
            column whose cells sum to more than half, which halves the largest current (ISAAC's encoding).
        encoding: `'differential'` holds positive and negative parts in two columns and can hold any weight;
            `'polarized'` holds magnitudes and one sign per fragment and column (FORMS): a weight against its
            fragment's sign is lost, so train with the `Polarized` constraint; `'offset'` holds every weight plus
            `2 ** (weight_bits - 1)`, and subtracts that times the number of active inputs, which an ideal unit column
            counts (ISAAC, with `fragment=128, adc_bits=8`).
        variation: `'lognormal'` multiplies each conductance by `exp(sigma z)`; `'gaussian'` adds
            `sigma z` times the range of conductance and stops at zero.
        sigma: size of the programming variation, not below 0.
        on_off_ratio: largest over smallest conductance, above 1; `None` is infinite. The current of as many erased
            cells as there are active inputs is subtracted by an ideal reference column, so that cells without
            variation read the same whatever the ratio; what varies with the conductance of erased cells remains.
        input_format: `'signed'` streams `max(x, 0)` and `max(-x, 0)` in two passes; `'unsigned'` streams once and
            reads negative inputs as 0.
        input_scale: value of one input step, or `'max'`: the largest magnitude of the call gets the highest code.
        weight_scale: value of one weight step; or `'max'`: the largest magnitude gets the highest level; or
            `'grid'`: among the steps `max|w| / j`, `j = 1 ... levels`, the one of least squared error
            (up to 10 bits), so that weights on a grid, whatever part of it they use, are held exactly.
        stuck_off: probability that a cell is stuck at level 0, 0 to 1 (`faults`).
        stuck_on: probability that a cell is stuck at the highest level; both together at most 1.
        wire_ratio: resistance of the wire from cell to cell times the conductance of the highest level, not below 0:
            what `fold_wires` makes of it is part of the chip. 0 is ideal wires.
        read_noise: standard deviation of the Gaussian noise of every read, in steps of the converter (cell levels),
            not below 0; drawn from the key of `read`. Every bit is read, leading zeros too.
        adc_offset: offset of the converter in steps: a current of `x` reads as one of `x + adc_offset`.
        adc_gain: gain of the converter, above 0: a current of `x` reads as one of `adc_gain x`.
        adc_inl: integral non-linearity in steps of each of the `2 ** adc_bits - 1` transitions between codes, or
            `None` for none; see `transitions`.

    Raises:
        ValueError: for a number out of its range.

    Reference: Yuan et al., FORMS, ISCA 2021, sections III-IV; Shafiee et al., ISAAC, ISCA 2016, section V (flip
    encoding; biased weights and the unit column). ISAAC's weights reach down to `-2 ** (weight_bits - 1)`; ours are
    symmetric, so that level 0 of a whole weight is never stored. A finite on/off ratio compensated by a column of
    erased cells: Chen, Peng, Yu, NeuroSim, IEEE TCAD 2018 (dummy column).
    """

    fragment: int = 8
    weight_bits: int = 8
    cell_bits: int = 2
    input_bits: int = 8
    adc_bits: int | None = 4
    adc_mode: str = "flip"
    encoding: str = "differential"
    variation: str = "lognormal"
    sigma: float = 0.0
    on_off_ratio: float | None = None
    input_format: str = "signed"
    input_scale: float | str = "max"
    weight_scale: float | str = "grid"
    stuck_off: float = 0.0
    stuck_on: float = 0.0
    wire_ratio: float = 0.0
    read_noise: float = 0.0
    adc_offset: float = 0.0
    adc_gain: float = 1.0
    adc_inl: tuple[float, ...] | None = None

    def __post_init__(self):
        check.integer(1, 128, fragment=self.fragment)
        check.integer(2, 16, weight_bits=self.weight_bits)
        check.integer(1, 6, cell_bits=self.cell_bits)
        check.integer(1, 16, input_bits=self.input_bits)
        if self.adc_bits is not None:
            check.integer(1, 12, adc_bits=self.adc_bits)
        check.one_of(("clip", "flip"), adc_mode=self.adc_mode)
        check.one_of(("differential", "polarized", "offset"), encoding=self.encoding)
        check.one_of(("lognormal", "gaussian"), variation=self.variation)
        for name in ("sigma", "wire_ratio", "read_noise"):
            check.non_negative(**{name: getattr(self, name)})
            check.not_infinite(**{name: getattr(self, name)})
        check.between(0, 1, stuck_off=self.stuck_off, stuck_on=self.stuck_on)
        if self.stuck_off + self.stuck_on > 1:
            raise ValueError(f"stuck_on must be at most 1 - stuck_off = {1 - self.stuck_off}, got {self.stuck_on!r}")
        self._check_converter()
        if self.on_off_ratio is not None:
            check.positive(on_off_ratio=self.on_off_ratio)
            if self.on_off_ratio <= 1:
                raise ValueError(f"on_off_ratio must be above 1, got {self.on_off_ratio!r}")
        check.one_of(("signed", "unsigned"), input_format=self.input_format)
        self._check_scale("input_scale", self.input_scale, ("max",))
        self._check_scale("weight_scale", self.weight_scale, ("max", "grid"))
        if self.weight_scale == "grid" and self.weight_bits > 10:
            raise ValueError(
                f"weight_scale must be 'max' or a number for weights of more than 10 bits, "
                f"got 'grid' for {self.weight_bits} bits"
            )

    def _check_converter(self) -> None:
        check.between(-(2**12), 2**12, adc_offset=self.adc_offset)
        check.finite_positive(adc_gain=self.adc_gain)
        if self.largest_code is None:
            ideal = {"adc_offset": 0, "adc_gain": 1, "adc_inl": None}
            for name, value in ideal.items():
                if getattr(self, name) != value:
                    raise ValueError(
                        f"{name} must be {value} for an ideal converter (adc_bits=None), got {getattr(self, name)!r}"
                    )
        elif self.adc_inl is not None and (
            not isinstance(self.adc_inl, tuple)
            or len(self.adc_inl) != self.largest_code
            or not all(isinstance(value, int | float) and math.isfinite(value) for value in self.adc_inl)
        ):
            raise ValueError(
                f"adc_inl must be None or a tuple of {self.largest_code} finite numbers, one for each transition of "
                f"{self.adc_bits} bits, got {self.adc_inl!r}"
            )

    @staticmethod
    def _check_scale(name: str, value: float | str, words: tuple[str, ...]) -> None:
        if isinstance(value, str):
            if value not in words:
                allowed = ", ".join(map(repr, words))
                raise ValueError(f"{name} must be a number above 0 or one of {allowed}, got {value!r}")
            return
        check.finite_positive(**{name: value})

    @property
    def levels(self) -> int:
        """Largest magnitude of a weight, in steps."""
        return 2 ** (self.weight_bits - 1) - 1

    @property
    def bias(self) -> int:
        """What is added to a weight's level before it is stored: `2 ** (weight_bits - 1)`, or 0 without an offset."""
        return 2 ** (self.weight_bits - 1) if self.encoding == "offset" else 0

    @property
    def cells(self) -> int:
        """Cells that hold one magnitude, or one weight with its offset."""
        bits = self.weight_bits if self.encoding == "offset" else self.weight_bits - 1
        return -(-bits // self.cell_bits)

    @property
    def faulty(self) -> bool:
        """Whether cells may be stuck."""
        return self.stuck_off > 0 or self.stuck_on > 0

    @property
    def largest_weight(self) -> int:
        """Largest magnitude, in steps, that cells at whole levels can stand for: above `levels` if some are stuck."""
        if not self.faulty:
            return self.levels
        return max(2 ** (self.cells * self.cell_bits) - 1 - self.bias, self.bias)

    @property
    def cell_levels(self) -> int:
        """Largest digit of a cell."""
        return 2**self.cell_bits - 1

    @property
    def input_levels(self) -> int:
        """Largest input code."""
        return 2**self.input_bits - 1

    @property
    def polarities(self) -> int:
        """Columns per cell: 2 if positive and negative parts are kept apart."""
        return 2 if self.encoding == "differential" else 1

    @property
    def passes(self) -> int:
        """Passes over the input bits: 2 if inputs have a sign."""
        return 2 if self.input_format == "signed" else 1

    @property
    def flips(self) -> bool:
        """Whether complements are stored: flipping serves the converter alone."""
        return self.adc_bits is not None and self.adc_mode == "flip"

    @property
    def largest_code(self) -> int | None:
        """The converter's largest code, `None` for the ideal one."""
        return None if self.adc_bits is None else 2**self.adc_bits - 1

    @property
    def off_conductance(self) -> float:
        """Conductance of an erased cell, in cell levels: `cell_levels / (on_off_ratio - 1)`."""
        return 0.0 if self.on_off_ratio is None else self.cell_levels / (self.on_off_ratio - 1)

    @property
    def exact_adc_bits(self) -> int:
        """Converter bits at which no read of unvaried cells can saturate, whatever the weights, inputs and faults.

        Faults come after flips, so that these save no bit where cells may be stuck.
        """
        largest = self.fragment * self.cell_levels
        halved = self.adc_mode == "flip" and not self.faulty
        return max((largest // 2 if halved else largest).bit_length(), 1)

    @property
    def transfers(self) -> bool:
        """Whether the converter has offset, gain or non-linearity."""
        return self.adc_offset != 0 or self.adc_gain != 1 or self.adc_inl is not None

    @property
    def whole(self) -> bool:
        """Whether the cells of a programmed chip sit at whole levels."""
        return self.sigma == 0 and self.wire_ratio == 0

    @property
    def linear(self) -> bool:
        """Whether every read is certainly linear, so that one product with folded weights gives the same numbers.

        True for an ideal converter, and for one without errors of its own where cells sit at whole levels and no
        weights and inputs can saturate it: currents are then whole numbers of converter steps.
        """
        if self.adc_bits is None:
            return True
        perfect = self.read_noise == 0 and not self.transfers
        return perfect and self.whole and self.adc_bits >= self.exact_adc_bits
