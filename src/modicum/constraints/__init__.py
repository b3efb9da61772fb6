"""Sets of weights that hardware likes: project onto them, measure the distance, stay inside, pack.

Every member has `project`, `violation`, `gain`, `fit`, `chart`, `encode` and `decode`, works under `jit` and
`vmap`, and takes dense `(in, out)` or HWIO weights. `nest` intersects them exactly.
"""

from modicum.constraints.blocks import BlockColumnRow
from modicum.constraints.chart import Box
from modicum.constraints.grid import best_scale
from modicum.constraints.hankel import Hankel, hankel_numbers, hankel_product, hankel_ratio, hankel_weight
from modicum.constraints.levels import Levels
from modicum.constraints.nest import Nest, by_path, nest
from modicum.constraints.patterns import (
    MEST_8,
    PCONV_4,
    Library,
    NaturalPatterns,
    Patterns,
    natural_library,
    pattern_space,
)
from modicum.constraints.polarize import Polarized
from modicum.constraints.sparse import Channels, Kernels, NofM, TopK
from modicum.constraints.split import Split, split
from modicum.constraints.unify import Unified

__all__ = [
    "MEST_8",
    "PCONV_4",
    "BlockColumnRow",
    "Box",
    "Channels",
    "Hankel",
    "Kernels",
    "Levels",
    "Library",
    "NaturalPatterns",
    "Nest",
    "NofM",
    "Patterns",
    "Polarized",
    "Split",
    "TopK",
    "Unified",
    "best_scale",
    "by_path",
    "hankel_numbers",
    "hankel_product",
    "hankel_ratio",
    "hankel_weight",
    "natural_library",
    "nest",
    "pattern_space",
    "split",
]
