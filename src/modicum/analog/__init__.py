"""Simulated analog hardware: what a crossbar computes instead of a matrix product, and what it costs."""

from modicum.analog.chip import Chip, certify, held_weights, mapping_error, program
from modicum.analog.converters import (
    effective_bits,
    limb_bits,
    quantize_inputs,
    quantize_weights,
    slice_cells,
    weight_step,
)
from modicum.analog.cost import FORMS, ISAAC, Activity, Architecture, Component, Cost, activity, converter_ratio, cost
from modicum.analog.crossbar import read
from modicum.analog.products import fold, integer_product, read_path
from modicum.analog.report import Report, Row, report
from modicum.analog.simulate import Device, crossbar, simulate, site_key
from modicum.analog.spec import CrossbarSpec
from modicum.analog.variation import gaussian, lognormal

__all__ = [
    "FORMS",
    "ISAAC",
    "Activity",
    "Architecture",
    "Chip",
    "Component",
    "Cost",
    "CrossbarSpec",
    "Device",
    "Report",
    "Row",
    "activity",
    "certify",
    "converter_ratio",
    "cost",
    "crossbar",
    "effective_bits",
    "fold",
    "gaussian",
    "held_weights",
    "integer_product",
    "limb_bits",
    "lognormal",
    "mapping_error",
    "program",
    "quantize_inputs",
    "quantize_weights",
    "read",
    "read_path",
    "report",
    "simulate",
    "site_key",
    "slice_cells",
    "weight_step",
]
