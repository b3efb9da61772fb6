"""A spec refuses bad numbers in one sentence, and knows what follows from good ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.analog import CrossbarSpec, crossbar, limb_bits, program

BAD = {
    "fragment": [(0, "at least 1"), (129, "at most 128"), (True, "whole number")],
    "weight_bits": [(1, "at least 2"), (17, "at most 16")],
    "cell_bits": [(0, "at least 1"), (7, "at most 6")],
    "input_bits": [(0, "at least 1"), (17, "at most 16")],
    "adc_bits": [(0, "at least 1"), (13, "at most 12")],
    "adc_mode": [("wrap", "'clip', 'flip'")],
    "encoding": [("biased", "'differential', 'polarized', 'offset'")],
    "variation": [("uniform", "'lognormal', 'gaussian'")],
    "sigma": [(-0.1, "below 0"), (float("nan"), "number"), (float("inf"), "finite")],
    "on_off_ratio": [(1.0, "above 1"), (0, "above 0")],
    "input_format": [("float", "'signed', 'unsigned'")],
    "input_scale": [(0.0, "above 0"), ("mean", "'max'"), (float("inf"), "finite"), ("grid", "'max'")],
    "weight_scale": [(-1.0, "above 0"), ("mean", "'max', 'grid'")],
    "stuck_off": [(-0.1, "from 0 to 1"), (1.5, "from 0 to 1")],
    "stuck_on": [(-0.1, "from 0 to 1"), (2, "from 0 to 1")],
    "wire_ratio": [(-1e-4, "below 0"), (float("inf"), "finite")],
    "read_noise": [(-0.1, "below 0"), (float("inf"), "finite"), (float("nan"), "number")],
    "adc_offset": [(float("nan"), "number"), (1e9, "from -4096 to 4096")],
    "adc_gain": [(0.0, "above 0"), (float("inf"), "finite")],
    "adc_inl": [((0.1,), "tuple of 15 finite numbers"), ((float("nan"),) * 15, "finite")],
}


def test_every_field_is_checked():
    assert set(BAD) == {field.name for field in dataclasses.fields(CrossbarSpec)}


@pytest.mark.parametrize(("name", "value", "allowed"), [(n, v, a) for n, cases in BAD.items() for v, a in cases])
def test_bad_numbers_are_named(name, value, allowed):
    with pytest.raises(ValueError, match=rf"^{name} must .*{allowed}.*got ") as error:
        CrossbarSpec(**{name: value})
    assert repr(value) in str(error.value)


def test_grid_search_refuses_wide_weights():
    with pytest.raises(ValueError, match=r"weight_scale must be 'max' or a number .* 16 bits"):
        CrossbarSpec(weight_bits=16, weight_scale="grid")


def test_device_refuses_unknown_fields():
    with pytest.raises(ValueError, match=r"crossbar takes the fields fragment.*got 'fragmnet'"):
        crossbar(fragmnet=4)
    assert crossbar(CrossbarSpec(fragment=4), sigma=0.1).spec == CrossbarSpec(fragment=4, sigma=0.1)


def test_stuck_probabilities_add_up_to_one_at_most():
    with pytest.raises(ValueError, match=r"^stuck_on must be at most 1 - stuck_off = 0.5, got 0.6"):
        CrossbarSpec(stuck_off=0.5, stuck_on=0.6)


@pytest.mark.parametrize("change", [{"adc_offset": 0.1}, {"adc_gain": 1.1}, {"adc_inl": (0.0,)}])
def test_an_ideal_converter_has_no_errors(change):
    with pytest.raises(ValueError, match=rf"^{next(iter(change))} must be .* for an ideal converter .*got "):
        CrossbarSpec(adc_bits=None, **change)


def test_linear_reads_need_perfect_converters_and_whole_levels():
    assert CrossbarSpec().linear
    for change in ({"sigma": 0.1}, {"wire_ratio": 1e-4}, {"read_noise": 0.1}, {"adc_gain": 0.9}, {"stuck_on": 0.01}):
        assert not CrossbarSpec(**change).linear, change
    # a converter of one more bit holds every fault, an ideal one reads anything that stands still
    assert CrossbarSpec(stuck_on=0.01, adc_bits=5).linear
    assert CrossbarSpec(adc_bits=None, wire_ratio=1e-4, stuck_off=0.1).linear


@pytest.mark.parametrize(
    ("bits", "cell_bits", "levels", "cells"), [(8, 2, 127, 4), (4, 2, 7, 2), (16, 2, 32767, 8), (2, 3, 1, 1)]
)
def test_what_follows(bits, cell_bits, levels, cells):
    spec = CrossbarSpec(weight_bits=bits, cell_bits=cell_bits, weight_scale="max")
    assert (spec.levels, spec.cells) == (levels, cells)
    assert (2**cell_bits) ** cells > levels
    assert (2**cell_bits) ** (cells - 1) <= levels
    offset = CrossbarSpec(weight_bits=bits, cell_bits=cell_bits, weight_scale="max", encoding="offset")
    assert (offset.bias, offset.polarities, offset.largest_weight) == (levels + 1, 1, levels)
    assert (2**cell_bits) ** offset.cells > levels + offset.bias >= (2**cell_bits) ** (offset.cells - 1)


def test_exact_bits_of_forms_and_isaac():
    # FORMS' bits are one short of ISAAC's equation 2 without the flip encoding, and right with it
    for fragment, stated in ((4, 3), (8, 4), (16, 5)):
        assert CrossbarSpec(fragment=fragment, adc_mode="flip").exact_adc_bits == stated
        assert CrossbarSpec(fragment=fragment, adc_mode="clip").exact_adc_bits == stated + 1
    assert CrossbarSpec(fragment=128, adc_mode="flip").exact_adc_bits == 8


@pytest.mark.parametrize("ratio", [1.5, 10.0, 1000.0])
def test_off_conductance_gives_the_ratio(ratio):
    spec = CrossbarSpec(on_off_ratio=ratio)
    assert (spec.cell_levels + spec.off_conductance) / spec.off_conductance == pytest.approx(ratio)


@pytest.mark.parametrize("spec", [CrossbarSpec(), CrossbarSpec(sigma=0.1), CrossbarSpec(adc_mode="clip", adc_bits=12)])
def test_limbs_never_overflow(spec):
    for rows in (1, 100, 4608):
        bits = limb_bits(spec, rows)
        fragments = -(-rows // spec.fragment)
        largest = spec.fragment * spec.levels
        if not spec.linear:
            code = max(spec.largest_code, spec.fragment * spec.cell_levels if spec.flips else 0)
            largest = 2 * 2 * code * sum(4**cell for cell in range(spec.cells))
        assert fragments * largest * (2**bits - 1) < 2**31
        assert bits == spec.input_bits or fragments * largest * (2 ** (bits + 1) - 1) >= 2**31


def test_too_many_rows_are_refused():
    spec = CrossbarSpec(weight_bits=16, adc_bits=12, adc_mode="clip", weight_scale="max", sigma=0.1, fragment=1)
    with pytest.raises(ValueError, match=r"rows must be few enough for int32 sums .*got 10"):
        program(jax.random.key(0), jnp.ones((10, 1)), spec)
    assert np.asarray(program(jax.random.key(0), jnp.ones((1, 1)), spec).conductance).shape == (2, 8, 1, 1, 1)
