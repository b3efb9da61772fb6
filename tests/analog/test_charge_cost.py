"""The macro's published throughput and power, the modes that follow, and costs of sites by counting."""

import jax.numpy as jnp
import pytest

from modicum import core
from modicum.analog import CAPRAM, ChargeSpec, Macro, capram, charge_cost, mode, mode_table, report

BINARY = ChargeSpec(encoding="twos_complement", weight_bits=1, input_format="unsigned")

# (encoding, weight bits, input bits): GOPS and TOPS/W as derived from the paper's powers, to the digits given there
DERIVED = {
    ("twos_complement", 1, 4): (573.4, 49.35),
    ("ternary", 2, 4): (573.4, 39.9),
    ("twos_complement", 2, 4): (286.7, 24.6),
    ("ternary", 3, 4): (286.7, 19.8),
    ("twos_complement", 4, 4): (143.4, 12.2),
    ("ternary", 5, 4): (143.4, 9.85),
    ("twos_complement", 8, 4): (71.7, 6.07),
    ("twos_complement", 8, 8): (35.8, 2.95),
}


def digits_of(number):
    return len(str(number).split(".")[1])


def test_published_figures():
    best = mode(BINARY)
    assert best.gops == pytest.approx(573.44, rel=1e-12)
    assert best.milliwatts == pytest.approx(11.62, rel=1e-12)
    assert best.tops_per_watt == pytest.approx(49.35, abs=5e-3)
    # of the paper's two roundings, 49.4 and 49.3, the exact value lies between
    assert 49.3 < best.tops_per_watt < 49.4
    assert best.gops / CAPRAM.area_mm2 / 1000 == pytest.approx(3.2, abs=0.01)


@pytest.mark.parametrize("which", DERIVED, ids=str)
def test_mode_table_has_the_derived_figures(which):
    (row,) = [row for row in mode_table() if row[:3] == which]
    gops, efficiency = DERIVED[which]
    assert round(row.gops, digits_of(gops)) == gops
    assert round(row.tops_per_watt, digits_of(efficiency)) == efficiency


def test_mode_table_is_complete():
    rows = mode_table()
    assert len({row[:3] for row in rows}) == len(rows) == 14
    narrow = {row[:2]: row for row in rows if row.input_bits == 4}
    for row in rows:
        if row.input_bits == 8:
            # two cycles: half the throughput, and the accumulators' second figure
            assert row.gops == pytest.approx(narrow[row[:2]].gops / 2)
            assert row.milliwatts == pytest.approx(narrow[row[:2]].milliwatts + 0.78 - 0.46)
    assert mode(ChargeSpec(input_bits=1)).gops == mode(ChargeSpec(input_bits=4)).gops
    assert mode(ChargeSpec(input_bits=5)).gops == mode(ChargeSpec(input_bits=8)).gops


def test_output_levels_are_the_papers():
    # level i: 2^i bits in two's complement, 2^(i-1) + 1 ternary; a single pair has nothing to add
    levels = {
        bits: charge_cost.output_level(ChargeSpec(encoding="twos_complement", weight_bits=bits))
        for bits in (1, 2, 4, 8)
    }
    assert levels == {1: 0, 2: 1, 4: 2, 8: 3}
    assert {bits: charge_cost.output_level(ChargeSpec(weight_bits=bits)) for bits in (2, 3, 5)} == {2: 0, 3: 2, 5: 3}


def test_another_macro_is_charged_by_its_own_numbers():
    fast = Macro(hertz=140e6, converter_milliwatts=10.0)
    assert mode(BINARY, fast).gops == pytest.approx(2 * 573.44)
    assert mode(BINARY, fast).milliwatts == pytest.approx(11.62 - 7.56 + 10)


def matrix_site(rows, columns, vectors):
    (site,) = core.sites(lambda w, x: x @ w, jnp.zeros((rows, columns)), jnp.zeros((vectors, rows)))
    return site


@pytest.mark.parametrize(
    ("encoding", "weight_bits", "input_bits"), [("twos_complement", 1, 4), ("ternary", 3, 4), ("twos_complement", 8, 8)]
)
def test_a_full_macro_works_at_its_peak(encoding, weight_bits, input_bits):
    spec = ChargeSpec(encoding=encoding, weight_bits=weight_bits, input_bits=input_bits, input_format="unsigned")
    columns = 32 // spec.digits
    site = matrix_site(128, columns, 7)
    got, peak = charge_cost.cost(site, spec), mode(spec)
    assert got.energy_joules / got.latency_seconds == pytest.approx(peak.milliwatts * 1e-3)
    assert 2 * site.macs / got.latency_seconds == pytest.approx(peak.gops * 1e9)
    assert 2 * site.macs / got.energy_joules == pytest.approx(peak.tops_per_watt * 1e12)
    assert (got.crossbars, got.area_mm2) == (1, 0.179)
    assert got.cells == 128 * 32 * spec.polarities


def test_lenets_first_layer_takes_576_cycles():
    # 24 x 24 positions, 5 x 5 windows in two's complement: one cycle each while all bits of all filters fit 32 ADCs
    site = matrix_site(25, 4, 24 * 24)
    spec = ChargeSpec(encoding="twos_complement", weight_bits=8, input_format="unsigned")
    assert charge_cost.cost(site, spec).latency_seconds == pytest.approx(576 / 70e6)


def test_partly_filled_macros_by_hand():
    # 300 rows: 3 blocks; 40 columns of 2 digits: 80 conversions, 3 cycles; both signs and both nibbles: x 4
    spec = ChargeSpec(weight_bits=3, input_bits=8)
    got = charge_cost.cost(matrix_site(300, 40, 5), spec)
    cycles, reads = 5 * 2 * 2, 3 * 3
    assert got.conversions == cycles * 3 * 80
    assert got.cells == 300 * 40 * 4
    # 3 x 80 pairs of slices of 8 rows x 32 pairs
    assert got.crossbars == 1
    assert got.latency_seconds == pytest.approx(cycles * reads / 70e6)
    other = 6.35 + 0.78 + 0.10
    expected = got.conversions * 7.56e-3 / (32 * 70e6) + cycles * reads * other * 1e-3 / 70e6
    assert got.energy_joules == pytest.approx(expected)


def test_macros_share_the_reads():
    # 4 blocks of 512 x 512 ternary weights: 2,048 pairs are 8 macros, 64 reads are 8 each
    got = charge_cost.cost(matrix_site(512, 512, 1), ChargeSpec(input_format="unsigned"))
    assert got.crossbars == 8
    assert got.latency_seconds == pytest.approx(8 / 70e6)
    assert got.area_mm2 == pytest.approx(8 * 0.179)


def test_report_adds_macros_up(key):
    params = {"first": jnp.ones((200, 30)), "second": jnp.ones((30, 4))}

    def fun(params, x):
        return jnp.maximum(x @ params["first"], 0.0) @ params["second"]

    device = capram(weight_bits=5)
    table = report(fun, device, params, jnp.ones((3, 200)))
    sites = core.sites(fun, params, jnp.ones((3, 200)))
    for site, row in zip(sites, table.rows, strict=True):
        assert row.energy_joules == charge_cost.cost(site, device.spec).energy_joules
    assert table.total.crossbars == 2
    assert table.total.energy_joules == pytest.approx(sum(row.energy_joules for row in table.rows))
