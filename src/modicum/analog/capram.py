"""The charge-domain SRAM macro as a device for any network."""

from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float

from modicum.analog.charge import ChargeChip, program, read
from modicum.analog.charge_calibration import calibrate
from modicum.analog.charge_cost import CAPRAM, Macro, cost
from modicum.analog.charge_spec import ChargeSpec
from modicum.analog.simulate import Device, changed
from modicum.core import Key


def capram(
    spec: ChargeSpec | None = None, *, macro: Macro = CAPRAM, calibrated: bool = False, **changes: Any
) -> Device:
    """A charge-domain SRAM macro (CAP-RAM) as a device, for `simulate` and `report`.

    Args:
        spec: its numbers, by default `ChargeSpec()`: ternary weights, 4-bit inputs, the noise that the paper states.
        macro: powers and sizes for the cost.
        calibrated: whether a line is fitted to every slice after programming, as for the paper's networks. It pays
            where gain or offset vary, and costs 2,000 reads of every slice (4,000 of a pair).
        **changes: fields of the spec to replace.

    Raises:
        ValueError: for an unknown field or a number out of its range.

    Example:
        >>> capram(weight_bits=3).spec.digits
        2

    Reference: Chen et al., CAP-RAM, IEEE JSSC 2021, section IV-B.3.
    """
    chosen = changed("capram", ChargeSpec() if spec is None else spec, changes)
    return Device(chosen, _program_calibrated if calibrated else program, read, partial(cost, macro=macro))


def _program_calibrated(key: Key, weights: Float[Array, " k n"], spec: ChargeSpec) -> ChargeChip:
    programming, calibrating = jax.random.split(key)
    return calibrate(calibrating, program(programming, weights, spec), spec)
