"""ADMM: pull weights onto hardware-shaped sets while they train, and retrain them inside these sets.

`compress` is a whole run; `one_shot` and `gradual` are its control arms, equal in steps; `stages` is the run as a pure
function to jit and vmap; `admm` is the method as an optax transformation. Constraints are objects with the methods of
`core.Constraint`. Three more things are used where they have them: `parts`, a tuple of sets held in consensus; a
`fit` that can be traced, for level scales and pattern libraries that follow the weights at first (`refit`); and
`relaxed(shape, share)`, for gradual pruning.
"""

from modicum.admm.compress import compress, one_shot
from modicum.admm.config import CompressConfig
from modicum.admm.gradual import cubic_share, gradual
from modicum.admm.leaves import (
    chart,
    constrained_by_path,
    fit,
    is_constraint,
    parts,
    project,
    relaxed,
    resolve,
    violations,
)
from modicum.admm.report import LeafReport, Report
from modicum.admm.run import Result
from modicum.admm.stages import AdmmCarry, AdmmInfo, RetrainCarry, StagesInfo, batch_at, stages
from modicum.admm.transform import AdmmState, admm, dual_update, init, penalize, pull, residual

__all__ = [
    "AdmmCarry",
    "AdmmInfo",
    "AdmmState",
    "CompressConfig",
    "LeafReport",
    "Report",
    "Result",
    "RetrainCarry",
    "StagesInfo",
    "admm",
    "batch_at",
    "chart",
    "compress",
    "constrained_by_path",
    "cubic_share",
    "dual_update",
    "fit",
    "gradual",
    "init",
    "is_constraint",
    "one_shot",
    "parts",
    "penalize",
    "project",
    "pull",
    "relaxed",
    "residual",
    "resolve",
    "stages",
    "violations",
]
