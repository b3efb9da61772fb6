"""What a network costs on a device, layer by layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from modicum.analog.simulate import Devices, pick
from modicum.core import Params, Site, matmul_form, rewrite, sites


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


def report(fun: Callable[..., Any], device: Devices, params: Params, *args: Any) -> Report:
    """Energy, time and area of `fun(params, *args)` on a device, per site and in total.

    Runs the function once, digitally, and measures at each site what the device's cost depends on (for a crossbar
    the effective input bits) and how often the site really runs.

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
    seen: dict[str, list[Any]] = {}

    def record(name: str, activity: Any) -> None:
        seen.setdefault(name, []).append(activity)

    def rule(site: Site, weight: Array, inputs: Array) -> Array:
        chosen = pick(device, site)
        if chosen is not None:
            activity = None
            if chosen.activity is not None:
                form = matmul_form(site)
                measure = jax.vmap(partial(chosen.activity, spec=chosen.spec))
                activity = jax.tree.map(jnp.mean, measure(form.weight(weight), form.inputs(inputs)))
            jax.debug.callback(partial(record, site.name), activity)
        return site.apply(weight, inputs)

    jax.block_until_ready(jax.jit(rewrite(fun, rule))(params, *args))
    jax.effects_barrier()

    rows, leaves, digital = [], [], []
    for site in sites(fun, params, *args):
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
            )
        )
        leaves.append(site.name if site.leaf is None else site.leaf)
    return Report(tuple(rows), tuple(leaves), tuple(digital))
