"""Component tables give the published sums; costs of sites follow from counting."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modicum import core
from modicum.analog import FORMS, ISAAC, Activity, CrossbarSpec, converter_ratio, cost, crossbar, report
from tests.core.nets import scanned_gru

# (architecture, published milliwatts of all units of a tile, of a tile, of a chip; mm2 of a chip)
PUBLISHED = {
    "FORMS": (FORMS, 280.05, 333.1, 66360.8, 89.15),
    "ISAAC": (ISAAC, 288.96, 329.81, 65808.08, 85.4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sums(name):
    architecture, units, tile, chip, area = PUBLISHED[name]
    assert architecture.units * architecture.unit_total[0] == pytest.approx(units, abs=1e-9)
    assert architecture.tile_total[0] == pytest.approx(tile, abs=1e-9)
    assert architecture.chip_total[0] == pytest.approx(chip, abs=1e-6)
    # areas are published rounded, and FORMS' tile less than its parts: .25 + .152 > .39
    assert architecture.chip_total[1] == pytest.approx(area, rel=0.01)


def test_isaacs_tile_rows_are_its_digital_unit():
    assert sum(component.power_milliwatts for component in ISAAC.tile) == pytest.approx(40.85)
    assert all(component.source for component in (*FORMS.unit, *FORMS.tile, *FORMS.chip, *ISAAC.unit, *ISAAC.tile))


def test_energy_of_a_conversion():
    assert pytest.approx(0.226e-12, rel=2e-3) == FORMS.conversion_joules
    assert pytest.approx(1.667e-12, rel=1e-3) == ISAAC.conversion_joules


def test_converter_scaling():
    assert converter_ratio(4, 4) == (1.0, 1.0)
    energy, area = converter_ratio(8, 4)
    assert (energy, area) == pytest.approx((1.67 / 0.79, 1200 / 361))
    assert converter_ratio(3, 4)[0] == pytest.approx(0.79 / 0.99)
    assert converter_ratio(11, 10)[0] == pytest.approx(2.38 / 1.97)
    energies = [converter_ratio(bits, 8)[0] for bits in range(1, 13)]
    assert energies == sorted(energies)


def matrix_site(rows, columns, vectors):
    (site,) = core.sites(lambda w, x: x @ w, jnp.zeros((rows, columns)), jnp.zeros((vectors, rows)))
    return site


FORMS_SPEC = CrossbarSpec(input_bits=16, encoding="polarized", input_format="unsigned")
ISAAC_SPEC = CrossbarSpec(fragment=128, input_bits=16, adc_bits=8, encoding="polarized", input_format="unsigned")


def test_conversions_per_mac_of_16_bit_inputs_and_8_bit_weights():
    # FORMS, fragments of 8: 16 bits x 4 cells / 8 rows; ISAAC: / 128 rows. Energy: 1.81 and .833 pJ per MAC.
    site = matrix_site(128, 32, 10)
    ours, isaac = cost(site, FORMS_SPEC), cost(site, ISAAC_SPEC, architecture=ISAAC)
    assert ours.conversions / site.macs == 8
    assert isaac.conversions / site.macs == 0.5
    assert ours.conversions / site.macs * FORMS.conversion_joules == pytest.approx(1.81e-12, rel=1e-3)
    assert isaac.conversions / site.macs * ISAAC.conversion_joules == pytest.approx(0.833e-12, rel=1e-3)
    assert ours.crossbars == isaac.crossbars == 1
    assert ours.cells == isaac.cells == 128 * 128


def test_time_of_one_input_bit():
    site = matrix_site(128, 32, 1)
    # 128 columns on four 2.1 GHz converters: 15.24 ns a fragment, 243.8 ns for 16; on one of 1.2 GHz 106.7 ns
    assert cost(site, FORMS_SPEC).latency_seconds / 16 == pytest.approx(243.8e-9, rel=1e-3)
    assert cost(site, ISAAC_SPEC, architecture=ISAAC).latency_seconds / 16 == pytest.approx(106.67e-9, rel=1e-3)


def test_a_busy_chip_draws_its_published_power():
    # every crossbar of a tile busy: energy over time is a tile's power
    site = matrix_site(128 * 12, 32 * 8, 3)
    full = cost(site, FORMS_SPEC)
    assert full.crossbars == 96
    assert full.energy_joules / full.latency_seconds == pytest.approx(0.3331, rel=1e-9)
    assert full.area_mm2 == pytest.approx(FORMS.tile_total[1], rel=1e-9)


def test_partly_filled_crossbars_by_hand():
    # differential 4-bit weights: 4 columns each, 32 outputs a crossbar; fragments of 9: 14 a crossbar, 126 rows
    spec = CrossbarSpec(fragment=9, weight_bits=4, input_bits=8, adc_bits=4)
    site = matrix_site(130, 40, 2)
    got = cost(site, spec)
    assert got.crossbars == 2 * 2
    assert got.cells == 130 * 40 * 4
    cycles = 2 * 2 * 8  # vectors, passes, bits
    assert got.conversions == cycles * 15 * 160
    assert got.latency_seconds == pytest.approx(cycles * 14 * 32 / 2.1e9)
    busy = cycles * 15 * (32 + 8) / 2.1e9
    other = (280.05 / 12 - 15.2 + 53.05 / 12) * 1e-3 / 8
    assert got.energy_joules == pytest.approx(got.conversions * 15.2e-3 / 32 / 2.1e9 + busy * other)


def test_zero_skipping_shortens_time_and_energy_alike():
    site = matrix_site(64, 16, 5)
    all_bits, half = cost(site, FORMS_SPEC), cost(site, FORMS_SPEC, Activity(jnp.array(8.0), jnp.array(0.0)))
    assert half.energy_joules == pytest.approx(all_bits.energy_joules / 2)
    assert half.latency_seconds == pytest.approx(all_bits.latency_seconds / 2)
    assert half.area_mm2 == all_bits.area_mm2


def test_an_ideal_converter_is_charged_as_the_smallest_exact_one():
    site = matrix_site(64, 16, 5)
    free = CrossbarSpec(adc_bits=None)
    assert cost(site, free) == cost(site, CrossbarSpec(adc_bits=4))
    clip = CrossbarSpec(adc_bits=None, adc_mode="clip")
    assert cost(site, clip) == cost(site, CrossbarSpec(adc_bits=5, adc_mode="clip"))
    assert cost(site, clip).energy_joules > cost(site, free).energy_joules
    assert cost(site, clip).area_mm2 > cost(site, free).area_mm2


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), padding="VALID", use_bias=False, name="conv")(x))
        shared = nn.Dense(36, use_bias=False, name="dense")
        x = x.reshape(x.shape[0], -1)
        return shared(nn.relu(shared(x)))


def test_report_measures_bits_and_adds_up(key):
    images = jnp.full((1, 5, 5, 1), 3.0).at[0, 0, 0, 0].set(15.0)
    params = Pair().init(key, images)
    device = crossbar(weight_bits=4, input_bits=4, input_format="unsigned", fragment=9, input_scale=1.0)
    table = report(Pair().apply, device, params, images)
    conv, first, second = table.rows
    assert [row.calls for row in table.rows] == [1, 1, 1]
    assert conv.macs == 9 * 9 * 4
    # of the 9 windows one holds the 15 (4 bits), the others only threes (2 bits)
    assert conv.activity.effective_bits == pytest.approx((4 + 8 * 2) / 9)
    for site, row in zip(core.sites(Pair().apply, params, images), table.rows, strict=True):
        expected = cost(site, device.spec, row.activity)
        assert (row.energy_joules, row.latency_seconds) == (expected.energy_joules, expected.latency_seconds)
    total = table.total
    assert total.energy_joules == pytest.approx(sum(row.energy_joules for row in table.rows))
    # the dense layer's two sites use the same crossbars
    assert table.leaves == ("params/conv/kernel", "params/dense/kernel", "params/dense/kernel")
    assert total.crossbars == conv.crossbars + first.crossbars
    assert total.area_mm2 == pytest.approx(conv.area_mm2 + second.area_mm2)
    assert table.interval_seconds == max(row.latency_seconds for row in table.rows)


def test_report_counts_the_calls_of_loops_and_leaves_digital_sites_out(key):
    fun, params, sequence = scanned_gru(key)

    def device(site):
        return None if "cell/ir" in site.name else crossbar(weight_bits=4)

    table = report(fun, device, params, sequence)
    assert table.digital == ("params/cell/ir/kernel",)
    assert {row.calls for row in table.rows} == {7}
    macs = {site.name: site.macs for site in core.sites(fun, params, sequence)}
    assert table.total.macs == 7 * sum(macs[row.name] for row in table.rows)
    text = str(table)
    lines = text.splitlines()
    assert len(lines) == 1 + 5 + 1 + 2
    assert lines[0].split()[:3] == ["site", "calls", "MACs"]
    assert lines[-1] == "left digital: params/cell/ir/kernel"
    assert f"{table.total.macs:,}" in lines[6]
    assert len({len(line) for line in lines[:7]}) == 1


def test_mapping_error_shows_what_an_encoding_loses(key):
    weights = jax.random.normal(key, (16, 4))
    inputs = jax.random.normal(key, (2, 16))
    lossy = report(lambda w, x: x @ w, crossbar(encoding="polarized"), weights, inputs).rows[0]
    fine = report(lambda w, x: x @ w, crossbar(), weights, inputs).rows[0]
    assert fine.activity.mapping_error < 0.01
    w = np.asarray(weights)
    parts = w.reshape(2, 8, 4)
    lost = np.minimum((np.maximum(parts, 0) ** 2).sum(1), (np.minimum(parts, 0) ** 2).sum(1)).sum()
    assert lossy.activity.mapping_error == pytest.approx(np.sqrt(lost) / np.linalg.norm(w), rel=0.02)


def test_a_branch_that_does_not_run_costs_nothing():
    def fun(params, x):
        return jax.lax.cond(x.sum() > 0, lambda v: v @ params["yes"], lambda v: v @ params["no"], x)

    params = {"yes": jnp.ones((4, 2)), "no": jnp.ones((4, 2))}
    table = report(fun, crossbar(), params, jnp.ones((1, 4)))
    assert {row.name: row.calls for row in table.rows} == {"yes": 1, "no": 0}
    assert [row.energy_joules > 0 for row in table.rows] == [row.name == "yes" for row in table.rows]
    assert "yes" in str(table)
