"""What a network costs on a device, layer by layer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from modicum.analog.simulate import Devices, on_chip, pick
from modicum.core import Key, Params, Site, matmul_form, rewrite, sites


@dataclass(frozen=True, kw_only=True)
class Row:
    """One site over a whole evaluation, or the total.

    Attributes:
        name: of the site.
        calls: how often it ran.
        macs: multiply-accumulate operations, all calls.
        crossbars: arrays it occupies.
        conversions: ADC conversions, all calls.
        energy_joules: all calls.
        latency_seconds: all calls, one after another.
        area_mm2: of the arrays with their share of the periphery.
        activity: means of what the device measures on the data (`None` if it measures nothing).
        parts: components and the energy of each, joules, all calls.
    """

    name: str
    calls: int
    macs: int
    crossbars: int
    conversions: float
    energy_joules: float
    latency_seconds: float
    area_mm2: float
    activity: Any = None
    parts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Report:
    """Cost per site and in total; `print` shows a table."""

    rows: tuple[Row, ...]
    leaves: tuple[str, ...]
    """What each row's crossbars hold: sites that read the same leaf share them."""
    digital: tuple[str, ...] = ()
    """Sites left to digital hardware, whose cost is not known here."""

    @property
    def total(self) -> Row:
        """Sums; crossbars and area count shared arrays once."""
        owners = [row for place, row in enumerate(self.rows) if self.leaves[place] not in self.leaves[:place]]
        return Row(
            name="total",
            calls=sum(row.calls for row in self.rows),
            macs=sum(row.macs for row in self.rows),
            crossbars=sum(row.crossbars for row in owners),
            conversions=math.fsum(row.conversions for row in self.rows),
            energy_joules=math.fsum(row.energy_joules for row in self.rows),
            latency_seconds=math.fsum(row.latency_seconds for row in self.rows),
            area_mm2=math.fsum(row.area_mm2 for row in owners),
            parts=_summed(self.rows),
        )

    @property
    def interval_seconds(self) -> float:
        """Time between evaluations when layers work as a pipeline: the slowest site's."""
        return max((row.latency_seconds for row in self.rows), default=0.0)

    def __str__(self) -> str:
        measured = next((row.activity._fields for row in self.rows if row.activity is not None), ())
        head = ["site", "calls", "MACs", "crossbars", "conversions", "energy J", "latency s", "area mm2"]
        lines = [head + [name.replace("_", " ") for name in measured]]
        for row in (*self.rows, self.total):
            numbers = (row.conversions, row.energy_joules, row.latency_seconds, row.area_mm2)
            extra = row.activity or ("",) * len(measured)
            cells = [row.name, f"{row.calls:,}", f"{row.macs:,}", f"{row.crossbars:,}"]
            lines.append(cells + [_short(number) for number in (*numbers, *extra)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells))
            for cells in (list(zip(line, widths, strict=True)) for line in lines)
        ]
        text.append(f"pipelined: one evaluation every {self.interval_seconds:.3g} s")
        if self.digital:
            text.append(f"left digital: {', '.join(self.digital)}")
        return "\n".join(text)


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{float(value):.3g}"


def _summed(rows: Sequence[Row]) -> tuple[tuple[str, float], ...]:
    parts: dict[str, float] = {}
    for name, joules in (part for row in rows for part in row.parts):
        parts[name] = parts.get(name, 0.0) + joules
    return tuple(parts.items())


def merged(reports: Sequence[Report]) -> Report:
    """One report of several evaluations of the same function: sums over calls, means of what was measured.

    Args:
        reports: at least one, of batches of one size.

    Raises:
        ValueError: if there is none, or they are of different sites.
    """
    if len({tuple(row.name for row in one.rows) for one in reports}) != 1:
        raise ValueError(f"reports must be at least one, all of the same sites, got {len(reports)}")

    def row(same: tuple[Row, ...]) -> Row:
        calls = sum(one.calls for one in same)

        def mean(*values: float) -> float:
            weighted = (one.calls * value for one, value in zip(same, values, strict=True))
            return math.fsum(weighted) / max(calls, 1)

        measured = [one.activity for one in same]
        return replace(
            same[0],
            calls=calls,
            macs=sum(one.macs for one in same),
            conversions=math.fsum(one.conversions for one in same),
            energy_joules=math.fsum(one.energy_joules for one in same),
            latency_seconds=math.fsum(one.latency_seconds for one in same),
            activity=None if measured[0] is None else jax.tree.map(mean, *measured),
            parts=_summed(same),
        )

    rows = tuple(map(row, zip(*(one.rows for one in reports), strict=True)))
    return replace(reports[0], rows=rows)


def report(fun: Callable[..., Any], device: Devices, params: Params, *args: Any) -> Report:
    """Energy, time and area of `fun(params, *args)` on a device, per site and in total.

    Runs the function once, digitally, and measures at each site what the device's cost depends on (for a crossbar
    the effective input bits) and how often the site really runs. `measured` measures on a chip.

    Args:
        fun: any JAX function whose first argument is the parameter tree.
        device: as in `simulate`.
        params: the parameters.
        *args: further arguments; give the batch whose cost is wanted, such as one image.

    Example:
        >>> from modicum.analog.simulate import crossbar
        >>> table = report(lambda w, x: x @ w, crossbar(weight_bits=4), jnp.ones((16, 4)), jnp.ones((1, 16)))
        >>> table.total.macs, table.total.crossbars
        (64, 1)
    """
    return _metered(fun, device, _digitally)(None, params, *args)[1]


def measured(fun: Callable[..., Any], device: Devices) -> Callable[..., tuple[Any, Report]]:
    """`(key, params, *args) -> (outputs, Report)`: what `simulate` computes, and what that very run costs.

    What the cost depends on is measured on the numbers that the chip's own reads produced. The returned function
    compiles once per shape of its arguments.

    Args:
        fun: any JAX function whose first argument is the parameter tree.
        device: as in `simulate`.

    Example:
        >>> from modicum.analog.simulate import crossbar
        >>> chip = measured(lambda w, x: x @ w, crossbar(input_bits=4))
        >>> outputs, table = chip(jax.random.key(0), jnp.ones((16, 4)), jnp.ones((1, 16)))
        >>> outputs.shape, table.rows[0].activity.effective_bits  # inputs of both signs: two passes, one of them empty
        ((1, 4), 2.0)
    """
    return _metered(fun, device, on_chip)


def _digitally(key: Key | None, device: Devices, site: Site, weight: Array, inputs: Array) -> Array:
    del key, device
    return site.apply(weight, inputs)


def _metered(
    fun: Callable[..., Any], device: Devices, compute: Callable[..., Array]
) -> Callable[..., tuple[Any, Report]]:
    seen: dict[str, list[Any]] = {}

    def record(name: str, activity: Any) -> None:
        seen.setdefault(name, []).append(activity)

    @jax.jit
    def run(key: Key | None, params: Params, *args: Any) -> Any:
        def rule(site: Site, weight: Array, inputs: Array) -> Array:
            chosen = pick(device, site)
            if chosen is None:
                return site.apply(weight, inputs)
            activity = None
            if chosen.activity is not None:
                form = matmul_form(site)
                measure = jax.vmap(partial(chosen.activity, spec=chosen.spec))
                activity = jax.tree.map(jnp.mean, measure(form.weight(weight), form.inputs(inputs)))
            jax.debug.callback(partial(record, site.name), activity)
            return compute(key, chosen, site, weight, inputs)

        return rewrite(fun, rule)(params, *args)

    def call(key: Key | None, params: Params, *args: Any) -> tuple[Any, Report]:
        seen.clear()
        outputs = jax.block_until_ready(run(key, params, *args))
        jax.effects_barrier()
        return outputs, _tabulated(sites(fun, params, *args), device, seen)

    return call


def _tabulated(found: Sequence[Site], device: Devices, seen: dict[str, list[Any]]) -> Report:
    """The report of a run in which the sites recorded what was `seen`."""
    rows, leaves, digital = [], [], []
    for site in found:
        chosen = pick(device, site)
        if chosen is None:
            digital.append(site.name)
            continue
        calls = seen.get(site.name, [])
        activity = None
        if calls and calls[0] is not None:
            activity = jax.tree.map(lambda *values: float(np.mean(values)), *calls)
        cost = chosen.cost(site, chosen.spec, activity)
        rows.append(
            Row(
                name=site.name,
                calls=len(calls),
                macs=site.macs * len(calls),
                crossbars=cost.crossbars,
                conversions=cost.conversions * len(calls),
                energy_joules=cost.energy_joules * len(calls),
                latency_seconds=cost.latency_seconds * len(calls),
                area_mm2=cost.area_mm2,
                activity=activity,
                parts=tuple((name, joules * len(calls)) for name, joules in cost.parts),
            )
        )
        leaves.append(site.name if site.leaf is None else site.leaf)
    return Report(tuple(rows), tuple(leaves), tuple(digital))
