"""What everything stands on: sites, types, validators, trees."""

from modicum.core import check, checkpoint, optional, parallel
from modicum.core.backend import loops_on_device
from modicum.core.matmul import MatmulForm, matmul_form
from modicum.core.rewrite import Rule, identity_rule, rewrite
from modicum.core.sites import Site, sites
from modicum.core.trees import leaves_by_path, map_by_path, masks_by_path, path_name, select_by_path
from modicum.core.types import Bytes, Constraint, Key, Packed, Params, Product

__all__ = [
    "Bytes",
    "Constraint",
    "Key",
    "MatmulForm",
    "Packed",
    "Params",
    "Product",
    "Rule",
    "Site",
    "check",
    "checkpoint",
    "identity_rule",
    "leaves_by_path",
    "loops_on_device",
    "map_by_path",
    "masks_by_path",
    "matmul_form",
    "optional",
    "parallel",
    "path_name",
    "rewrite",
    "select_by_path",
    "sites",
]
