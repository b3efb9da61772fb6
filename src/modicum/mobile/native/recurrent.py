"""Gated recurrent units natively: sparse recurrent products, and the gates in one pass over vectors of units."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modicum.mobile.graph import Dense, Gru
from modicum.mobile.native import strips

GATES = 3
"""Reset, update, candidate: r, z, n."""

WORTH_THREADS = 512 << 10
"""Bytes of weights in a step from which on threads share it: below, meeting twice a step costs more than it saves."""


def by_gate(array: np.ndarray, lanes: int) -> np.ndarray:
    """An array whose last axis is of gates side by side, each padded with zeros to whole vectors.

    Args:
        array: `(..., 3 f)`.
        lanes: floats in a vector.
    """
    gates = array.reshape(*array.shape[:-1], GATES, -1)
    padding = [(0, 0)] * (gates.ndim - 1) + [(0, -gates.shape[-1] % lanes)]
    return np.pad(gates, padding).reshape(*array.shape[:-1], -1)


def reading_order(kernel: np.ndarray, lanes: int) -> strips.Strips:
    """The strips of one of the two kernels, `(inputs, 3 f)`, for outputs that are padded gate by gate."""
    pads = by_gate(np.ones(kernel.shape[1], bool), lanes)
    return strips.strips(by_gate(kernel, lanes), lanes, ~pads)


def projection(layer: Gru, output: str, lanes: int) -> Dense:
    """The product of all frames with the input kernel, for a value of that name: gates padded to whole vectors."""
    weight = by_gate(layer.input_kernel, lanes)
    return Dense(
        name=f"{layer.name}.input",
        inputs=layer.inputs,
        output=output,
        shape=(*layer.shape[:2], weight.shape[1]),
        weight=weight,
        # the gates add it, together with the other bias
        bias=np.zeros(weight.shape[1], np.float32),
        leaf=layer.leaves[0],
    )


def biases(layer: Gru, lanes: int) -> np.ndarray:
    """What is added to the three gates and to the candidate's recurrent product, each padded to whole vectors."""
    own = np.pad(layer.candidate_bias, (0, -len(layer.candidate_bias) % lanes))
    return np.concatenate([by_gate(layer.input_bias, lanes), own]).astype(np.float32)


def _number(value: float) -> str:
    return f"{float(np.float32(value))!r}f"


def _exponential(degree: int = 5) -> str:
    """`2^f` on [-1/2, 1/2] by Horner's rule; at degree 5 the relative error is below 2e-7.

    Reference:
        The polynomial through Chebyshev's points, whose error is within a small factor of the least one possible.
    """
    fitted = np.polynomial.Chebyshev.interpolate(np.exp2, degree, domain=[-0.5, 0.5])
    *low, top = fitted.convert(kind=np.polynomial.Polynomial).coef.astype(float).tolist()
    text = f"vf p = zero() + {_number(top)};\n"
    return text + "\n".join(f"  p = p * f + {_number(factor)};" for factor in reversed(low))


def kernels(lanes: int) -> str:
    """C text of all that a step needs."""
    return f"""{strips.kernels(lanes)}
static void meet(int parts);
#define TOGETHER(parts) do {{ if ((parts) > 1) meet(parts); }} while (0)

/* e^x; beyond +-40 as at +-40, where a gate is open or shut to the last bit. A bound comes first in `vmax` and `vmin`,
   so that NaN stays NaN. */
static inline vf exponential(vf x) {{
  x = vmin(zero() + 40.0f, vmax(zero() - 40.0f, x));
  /* adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits */
  const vf shifted = x * {_number(np.log2(np.e))} + 12582912.0f;
  const vf f = x * {_number(np.log2(np.e))} - (shifted - 12582912.0f);
  {_exponential()}
  return (vf)((vi)p + ((vi)shifted << 23));
}}

/* Some vectors of units: h <- (1 - z) n + z h. With u = e^-a and v = e^-2b, z = 1 / (1 + u) and
   n = tanh(b) = (1 - v) / (1 + v) share one division. `old` and `state` may be the same. */
static void gru_gates(const float *driven, const float *returned, const float *bias, const float *old, float *state,
                      int units, int first, int last) {{
  for (int at = first * LANES; at < last * LANES; at += LANES) {{
#define AT(array, gate) (*(const vf *)((array) + at + (gate) * units))
    const vf reset = 1.0f / (1.0f + exponential(-(AT(driven, 0) + AT(bias, 0) + AT(returned, 0))));
    const vf u = exponential(-(AT(driven, 1) + AT(bias, 1) + AT(returned, 1)));
    const vf b = AT(driven, 2) + AT(bias, 2) + reset * (AT(returned, 2) + AT(bias, 3));
    const vf v = exponential(-2.0f * b);
    *(vf *)(state + at) = (u * (1.0f - v) + AT(old, 0) * (1.0f + v)) / ((1.0f + u) * (1.0f + v));
#undef AT
  }}
}}
"""


@dataclass(frozen=True)
class Stored:
    """Where the parts of a matrix begin in the weights, in bytes."""

    weights: int
    offsets: int
    rows: int
    blocks: int
    count: int
    size: int

    def text(self, name: str) -> str:
        """C text that declares it."""
        return (
            f"const struct strips {name} = {{(const float *)(w + {self.weights}), "
            f"(const uint16_t *)(w + {self.offsets}), (const uint16_t *)(w + {self.rows}), "
            f"(const struct strip *)(w + {self.blocks}), {self.count}, {self.size}}};\n"
        )


def stored(add: Callable[[np.ndarray], int], matrix: strips.Strips) -> Stored:
    """A matrix laid down among the weights by `add`, which says where an array begins."""
    return Stored(
        add(matrix.values),
        add(matrix.offsets),
        add(matrix.rows),
        add(matrix.blocks),
        len(matrix.blocks),
        len(matrix.values),
    )


def shares(payload: int) -> str:
    """C text: which thread does what, and which have nothing to do."""
    count = "parts" if payload >= WORTH_THREADS else "1"
    return f"const int shares = {count};\nif (part >= shares) return;\n"


def units_of(vectors: int) -> str:
    """C text: the vectors of units that are a thread's own."""
    return (
        f"const int begin = (int)((int64_t){vectors} * part / shares);\n"
        f"const int end = (int)((int64_t){vectors} * (part + 1) / shares);\n"
    )


def loop(recurrent: Stored, bias: int, frames: int, units: int, lanes: int, stride: int) -> str:
    """C text of all steps of a layer, from `driven` and with `returned` as scratch memory to `states`.

    Args:
        recurrent: the recurrent kernel.
        bias: where the biases begin.
        frames: steps.
        units: width of the state in whole vectors; its frames follow each other.
        lanes: floats in a vector.
        stride: floats from a frame of `driven` to the next.
    """
    return (
        shares(4 * recurrent.size)
        + recurrent.text("d")
        + units_of(units // lanes)
        + f"""const int first = strips_from(&d, part, shares), last = strips_from(&d, part + 1, shares);
for (int i = {GATES} * begin; i < {GATES} * end; ++i) *(vf *)(returned + i * LANES) = zero();
TOGETHER(shares);
for (int frame = 0; frame < {frames}; ++frame) {{
  /* the first state is zeros, and so are the products with it */
  const float *old = frame ? states + (size_t)(frame - 1) * {units} : returned;
  if (frame) {{
    strips_run(old, returned, &d, first, last, frame & 1);
    TOGETHER(shares);
  }}
  gru_gates(driven + (size_t)frame * {stride}, returned, (const float *)(w + {bias}), old,
            states + (size_t)frame * {units}, {units}, begin, end);
  TOGETHER(shares);
}}"""
    )
