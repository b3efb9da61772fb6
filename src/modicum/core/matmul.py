"""A site as one matrix product per group: what a crossbar or a packed kernel computes."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from modicum.core.sites import Site


class MatmulForm(NamedTuple):
    """A site written as `output(einsum("gbk,gkn->gbn", inputs(x), weight(w)))`.

    Rows of a convolution run kernel-major (input channel, then the kernel's positions row by row): row
    `i * kh * kw + y * kw + x`. Every function only moves numbers, so integers stay exact.
    """

    groups: int
    rows: int
    columns: int
    batch: int
    """Independent products per call: batch size, times output positions of a convolution."""
    weight: Callable[[Array], Array]
    """Weight operand to `(groups, rows, columns)`."""
    inputs: Callable[[Array], Array]
    """Input operand to `(groups, batch, rows)`: im2col for a convolution."""
    output: Callable[[Array], Array]
    """`(groups, batch, columns)` to the site's output shape."""
    weight_back: Callable[[Array], Array]
    """Inverse of `weight`."""


def matmul_form(site: Site) -> MatmulForm:
    """How a site looks as matrix products.

    Args:
        site: any site; a convolution must have its weight on the kernel side and no batch groups.

    Raises:
        ValueError: for a convolution whose kernel is the data, or with `batch_group_count` above 1.

    Example:
        >>> import jax
        >>> from modicum.core.sites import sites
        >>> (site,) = sites(lambda w, x: x @ w, jnp.ones((3, 4)), jnp.ones((2, 3)))
        >>> form = matmul_form(site)
        >>> form.rows, form.columns, form.batch
        (3, 4, 2)
    """
    return _dot_form(site) if site.primitive == "dot_general" else _conv_form(site)


def _dot_form(site: Site) -> MatmulForm:
    contracted, batched = site.params["dimension_numbers"]
    own, other = site.weight_operand, 1 - site.weight_operand
    weight_shape, inputs_shape = site.weight.shape, site.inputs.shape

    def axes(operand: int, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        shared, summed = tuple(batched[operand]), tuple(contracted[operand])
        return shared, summed, tuple(axis for axis in range(len(shape)) if axis not in (*shared, *summed))

    weight_axes, inputs_axes = axes(own, weight_shape), axes(other, inputs_shape)

    def size(shape: tuple[int, ...], chosen: tuple[int, ...]) -> int:
        return math.prod(shape[axis] for axis in chosen)

    groups, rows, columns = (size(weight_shape, chosen) for chosen in weight_axes)
    batch = size(inputs_shape, inputs_axes[2])
    weight_order = [axis for chosen in weight_axes for axis in chosen]
    inputs_order = [axis for chosen in (inputs_axes[0], inputs_axes[2], inputs_axes[1]) for axis in chosen]
    sorted_weight = tuple(weight_shape[axis] for axis in weight_order)

    def output(product: Array) -> Array:
        ordered = jnp.swapaxes(product, 1, 2) if own == 0 else product
        return ordered.reshape(site.output.shape)

    return MatmulForm(
        groups=groups,
        rows=rows,
        columns=columns,
        batch=batch,
        weight=lambda w: jnp.transpose(w, weight_order).reshape(groups, rows, columns),
        inputs=lambda x: jnp.transpose(x, inputs_order).reshape(groups, batch, rows),
        output=output,
        weight_back=lambda m: jnp.transpose(m.reshape(sorted_weight), _inverse(weight_order)),
    )


def _conv_form(site: Site) -> MatmulForm:
    params = site.params
    if site.weight_operand != 1:
        raise ValueError(f"site {site.name} must have its weight as the convolution kernel, got it as the image")
    if params["batch_group_count"] != 1:
        raise ValueError(
            f"site {site.name} must have batch_group_count 1 to become a matrix product, "
            f"got {params['batch_group_count']}"
        )
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    groups = params["feature_group_count"]
    features, channels, *kernel = (site.weight.shape[axis] for axis in rhs_spec)
    image_batch, _, *places = (site.output.shape[axis] for axis in out_spec)
    columns, rows = features // groups, channels * math.prod(kernel)
    batch = image_batch * math.prod(places)

    def weight(w: Array) -> Array:
        filters = jnp.transpose(w, rhs_spec).reshape(groups, columns, rows)
        return jnp.swapaxes(filters, 1, 2)

    def weight_back(matrix: Array) -> Array:
        filters = jnp.swapaxes(matrix, 1, 2).reshape(features, channels, *kernel)
        return jnp.transpose(filters, _inverse(rhs_spec))

    def inputs(x: Array) -> Array:
        patches = _im2col(jnp.transpose(x, lhs_spec), kernel, places, params)
        grouped = patches.reshape(image_batch, groups, channels * math.prod(kernel), math.prod(places))
        return jnp.transpose(grouped, (1, 0, 3, 2)).reshape(groups, batch, rows)

    def output(product: Array) -> Array:
        images = product.reshape(groups, image_batch, math.prod(places), columns)
        canonical = jnp.transpose(images, (1, 0, 3, 2)).reshape(image_batch, features, *places)
        return jnp.transpose(canonical, _inverse(out_spec))

    return MatmulForm(groups, rows, columns, batch, weight, inputs, output, weight_back)


def _inverse(order: Sequence[int]) -> list[int]:
    return np.argsort(order).tolist()


def _im2col(images: Array, kernel: list[int], places: list[int], params: dict[str, Any]) -> Array:
    """`(batch, channels, *image)` to `(batch, channels, taps, *places)` by one strided slice per tap."""
    dilation = [
        (low, high, hole - 1) for (low, high), hole in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    padded = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), (0, 0, 0), *dilation])
    strides = params["window_strides"]
    taps = []
    for tap in np.ndindex(*kernel):
        start = [place * hole for place, hole in zip(tap, params["rhs_dilation"], strict=True)]
        limit = [at + (count - 1) * step + 1 for at, count, step in zip(start, places, strides, strict=True)]
        taps.append(lax.slice(padded, (0, 0, *start), (*images.shape[:2], *limit), (1, 1, *strides)))
    return jnp.stack(taps, axis=2)
