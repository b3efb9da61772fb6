"""ADMM: pull weights onto hardware-shaped sets while they train, and retrain them inside these sets."""

from modicum.admm.compress import Result, compress, one_shot
from modicum.admm.config import CompressConfig
from modicum.admm.leaves import chart, constrained_by_path, fit, is_constraint, project, resolve, violations
from modicum.admm.report import LeafReport, Report
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
    "dual_update",
    "fit",
    "init",
    "is_constraint",
    "one_shot",
    "penalize",
    "project",
    "pull",
    "residual",
    "resolve",
    "stages",
    "violations",
]
