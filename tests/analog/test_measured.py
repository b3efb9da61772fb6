"""A run that is metered: the numbers of `simulate`, the cycles of its own activations; scales fixed by data."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum.analog import (
    FORMS,
    ISAAC,
    ChargeSpec,
    CrossbarSpec,
    capram,
    crossbar,
    least_squares_step,
    measured,
    merged,
    report,
    scaled,
    simulate,
)

SPEC = CrossbarSpec(fragment=4, adc_bits=3, sigma=0.2, input_bits=4, weight_bits=4, input_format="unsigned")


def two_layers(params, x):
    return jnp.maximum(x @ params["a"], 0) @ params["b"]


@pytest.fixture(scope="module")
def problem():
    first, second, third = jax.random.split(jax.random.key(3), 3)
    params = {"a": jax.random.normal(first, (10, 8)), "b": jax.random.normal(second, (8, 3))}
    return params, jax.random.uniform(third, (5, 10))


def effective(codes, fragment):
    """Mean bit length of the largest code of each fragment, one by one."""
    lengths = [
        int(max(vector[start : start + fragment])).bit_length()
        for vector in codes
        for start in range(0, len(vector), fragment)
    ]
    return np.mean(lengths)


def test_outputs_are_those_of_the_simulation_and_cycles_those_of_its_activations(problem):
    params, inputs = problem
    key = jax.random.key(0)
    outputs, table = measured(two_layers, crossbar(SPEC))(key, params, inputs)
    expected = jax.jit(simulate(two_layers, crossbar(SPEC)))(key, params, inputs)
    np.testing.assert_array_equal(np.asarray(outputs), np.asarray(expected))
    # the second layer sees what the first layer's chip made, not what exact weights would
    hidden = jax.jit(simulate(lambda p, x: jnp.maximum(x @ p["a"], 0), crossbar(SPEC)))(key, params, inputs)
    codes = np.rint(np.asarray(hidden, np.float64) * 15 / float(hidden.max())).astype(int)
    assert table.rows[1].activity.effective_bits == pytest.approx(effective(codes, 4), rel=1e-6)
    exact = report(two_layers, crossbar(SPEC), params, inputs).rows[1].activity.effective_bits
    assert exact != table.rows[1].activity.effective_bits


def test_parts_add_up_and_reports_merge(problem):
    params, inputs = problem
    for device in (crossbar(SPEC), crossbar(SPEC, architecture=ISAAC), capram()):
        table = report(two_layers, device, params, inputs)
        for row in (*table.rows, table.total):
            assert math.fsum(joules for _, joules in row.parts) == pytest.approx(row.energy_joules, rel=1e-12)
    first, second = (report(two_layers, crossbar(SPEC), params, part) for part in (inputs, 0 * inputs))
    both = merged([first, second])
    assert both.total.macs == 2 * first.total.macs
    assert both.total.area_mm2 == first.total.area_mm2
    assert both.total.energy_joules == pytest.approx(first.total.energy_joules + second.total.energy_joules)
    # no input, no cycle: half of the mean
    assert both.rows[0].activity.effective_bits == pytest.approx(first.rows[0].activity.effective_bits / 2)
    with pytest.raises(ValueError, match="reports must be at least one, all of the same sites, got 0"):
        merged([])


def test_isaac_skips_nothing(problem):
    params, inputs = problem
    skipping, streaming = (
        report(two_layers, crossbar(SPEC, architecture=table), params, 0 * inputs).total.conversions
        for table in (FORMS, dataclasses.replace(FORMS, skips=False))
    )
    assert skipping == 0
    # 5 vectors, 4 bits, 3 and 2 fragments, 8 and 3 outputs, 2 polarities of 2 cells
    assert streaming == 5 * 4 * (3 * 8 + 2 * 3) * 4


def test_scales_follow_the_data(problem):
    params, _ = problem
    inputs = jnp.linspace(0.0, 2.0, 101)[:100].reshape(10, 10)
    seen = {}

    def spy(site):
        device = scaled(two_layers, crossbar(SPEC), params, inputs, quantile=0.5)(site)
        seen[site.name] = device.spec
        return device

    simulate(two_layers, spy)(jax.random.key(0), params, inputs)
    assert seen["a"].input_scale == pytest.approx(0.99 / 15, rel=1e-5)  # the median
    assert seen["a"].input_format == "unsigned"
    signed = scaled(two_layers, crossbar(SPEC, input_format="signed"), params, -inputs, quantile=1.0)
    formats = {}
    simulate(two_layers, lambda site: formats.setdefault(site.name, signed(site)))(jax.random.key(0), params, inputs)
    assert formats["a"].spec.input_format == "signed"
    with pytest.raises(ValueError, match="quantile must be"):
        scaled(two_layers, crossbar(SPEC), params, inputs, quantile=0.0)


@pytest.mark.parametrize("spec", [ChargeSpec(), ChargeSpec(weight_bits=5), SPEC], ids=["ternary", "5 bits", "crossbar"])
def test_weight_steps_are_of_least_error(spec):
    weights = np.random.default_rng(0).laplace(size=400)
    lowest, highest = spec.levels if isinstance(spec.levels, tuple) else (-spec.levels, spec.levels)

    def error(step):
        return np.square(weights - step * np.clip(np.rint(weights / step), lowest, highest)).sum()

    step = least_squares_step(weights, spec)
    finer = np.linspace(1e-3, 1, 1999) * np.abs(weights).max() / highest
    assert error(step) <= 1.02 * min(map(error, finer))
    assert error(np.abs(weights).max() / highest) > 1.1 * error(step)
