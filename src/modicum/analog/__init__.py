"""Simulated analog hardware: what a crossbar computes instead of a matrix product, and what it costs."""

from modicum.analog import charge, charge_cost
from modicum.analog.capram import capram
from modicum.analog.charge import ChargeChip
from modicum.analog.charge_calibration import calibrate
from modicum.analog.charge_cost import CAPRAM, Macro, Mode, mode, mode_table
from modicum.analog.charge_functional import capram_functional, error_deviation
from modicum.analog.charge_spec import ChargeSpec
from modicum.analog.chip import Chip, age, certify, fold_wires, held_weights, mapping_error, program, reading_spec
from modicum.analog.compiled import CompiledChip, compile_chip, compiled_integers, read_compiled
from modicum.analog.converters import (
    effective_bits,
    limb_bits,
    quantize_inputs,
    quantize_weights,
    slice_cells,
    transitions,
    weight_step,
)
from modicum.analog.cost import FORMS, ISAAC, Activity, Architecture, Component, Cost, activity, converter_ratio, cost
from modicum.analog.crossbar import read
from modicum.analog.functional import FunctionalSpec, functional
from modicum.analog.products import fold, integer_product, read_path
from modicum.analog.reads import read_noise
from modicum.analog.report import Report, Row, measured, merged, report
from modicum.analog.scales import least_squares_step, scaled
from modicum.analog.simulate import Device, crossbar, simulate, site_key
from modicum.analog.spec import CrossbarSpec
from modicum.analog.variation import drift, faults, gaussian, lognormal
from modicum.analog.wires import ir_drop

__all__ = [
    "CAPRAM",
    "FORMS",
    "ISAAC",
    "Activity",
    "Architecture",
    "ChargeChip",
    "ChargeSpec",
    "Chip",
    "CompiledChip",
    "Component",
    "Cost",
    "CrossbarSpec",
    "Device",
    "FunctionalSpec",
    "Macro",
    "Mode",
    "Report",
    "Row",
    "activity",
    "age",
    "calibrate",
    "capram",
    "capram_functional",
    "certify",
    "charge",
    "charge_cost",
    "compile_chip",
    "compiled_integers",
    "converter_ratio",
    "cost",
    "crossbar",
    "drift",
    "effective_bits",
    "error_deviation",
    "faults",
    "fold",
    "fold_wires",
    "functional",
    "gaussian",
    "held_weights",
    "integer_product",
    "ir_drop",
    "least_squares_step",
    "limb_bits",
    "lognormal",
    "mapping_error",
    "measured",
    "merged",
    "mode",
    "mode_table",
    "program",
    "quantize_inputs",
    "quantize_weights",
    "read",
    "read_compiled",
    "read_noise",
    "read_path",
    "reading_spec",
    "report",
    "scaled",
    "simulate",
    "site_key",
    "slice_cells",
    "transitions",
    "weight_step",
]
