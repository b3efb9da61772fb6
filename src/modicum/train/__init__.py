"""Training: data in memory, a pure step, a loop that resumes exactly, checkpoints, run folders."""

from modicum.core import checkpoint
from modicum.core.checkpoint import restore, save
from modicum.train import metrics, report
from modicum.train.augmentation import augment, augment_events
from modicum.train.batches import batch_indices, batches, permuted
from modicum.train.config import (
    DataConfig,
    Experiment,
    OptimizerConfig,
    configured,
    describe,
    flatten,
    load_config,
    parse_overrides,
    parse_value,
    read_config,
)
from modicum.train.data import DataInfo, Dataset, channel_statistics, load
from modicum.train.experiment import Result, calibrated, load_split, parameter_count, train, training_batches
from modicum.train.loop import Interrupted, default_steps_per_dispatch, fit, resume
from modicum.train.state import (
    LossFn,
    StepFn,
    TrainState,
    classification_loss,
    cross_entropy,
    evaluate,
    init_state,
    make_train_step,
)

__all__ = [
    "DataConfig",
    "DataInfo",
    "Dataset",
    "Experiment",
    "Interrupted",
    "LossFn",
    "OptimizerConfig",
    "Result",
    "StepFn",
    "TrainState",
    "augment",
    "augment_events",
    "batch_indices",
    "batches",
    "calibrated",
    "channel_statistics",
    "checkpoint",
    "classification_loss",
    "configured",
    "cross_entropy",
    "default_steps_per_dispatch",
    "describe",
    "evaluate",
    "fit",
    "flatten",
    "init_state",
    "load",
    "load_config",
    "load_split",
    "make_train_step",
    "metrics",
    "parameter_count",
    "parse_overrides",
    "parse_value",
    "permuted",
    "read_config",
    "report",
    "restore",
    "resume",
    "save",
    "train",
    "training_batches",
]
