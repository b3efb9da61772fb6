"""Sets of weights that hardware likes: project onto them, measure the distance, stay inside, pack.

Every member has `project`, `violation`, `gain`, `fit`, `chart`, `encode` and `decode`, works under `jit` and
`vmap`, and takes dense `(in, out)` or HWIO weights. `nest` intersects them exactly.
"""

from modicum.constraints.chart import Box
from modicum.constraints.grid import best_scale
from modicum.constraints.levels import Levels
from modicum.constraints.nest import Nest, by_path, nest
from modicum.constraints.patterns import MEST_8, PCONV_4, Library, Patterns, natural_library
from modicum.constraints.polarize import Polarized
from modicum.constraints.sparse import Kernels, TopK

__all__ = [
    "MEST_8",
    "PCONV_4",
    "Box",
    "Kernels",
    "Levels",
    "Library",
    "Nest",
    "Patterns",
    "Polarized",
    "TopK",
    "best_scale",
    "by_path",
    "natural_library",
    "nest",
]
