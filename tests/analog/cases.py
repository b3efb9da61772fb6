"""Small random problems, and the product of a chip that holds one, as plain integers."""

import jax.numpy as jnp
import numpy as np

from modicum.analog import integer_product, reading_spec
from tests.analog.oracle import draw_codes, draw_levels, whole

ROWS, COLUMNS, VECTORS = 13, 3, 4


def case(spec, seed=0):
    rng = np.random.default_rng(seed)
    return draw_levels(rng, ROWS, COLUMNS, spec), draw_codes(rng, VECTORS, ROWS, spec)


def product(chip, codes, spec, path=None, key=None):
    limbs = integer_product(chip, jnp.asarray(codes, jnp.int32), spec, path, key)
    return whole(limbs, reading_spec(chip, spec), codes.shape[1])
