"""Experiments as frozen dataclasses, and typed overrides of their fields."""

import ast
import dataclasses
import difflib
import functools
import importlib.util
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import flax.linen as nn
import jax
import optax

from modicum.core import check
from modicum.models import SmallConvNet

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is learned, and what it is tested on; see `load`.

    Attributes:
        name: data set.
        train: split to train on.
        test: held-out split.
        speaker: for spoken digits: whom to hold out, or None for the authors' split.
        features: for spoken digits: "log_mel" or "mfcc".
        bin_milliseconds: for events (nmnist-small): length of a bin of time, from 1 to 337.
        augment: whether training examples are altered at random. Images are shifted by up to 4 pixels and mirrored
            half of the time, as CIFAR wants it. Events are shifted by up to 2 pixels and lose a tenth of their number,
            and are never mirrored. Speech and text are refused. See `augmentation`.
        shift: where they are: by up to how many pixels, at least 0, if not by so many.
        mirror: where images are: whether they are mirrored. Digits are others in the mirror: False for them.
        cutout: where images are: side of a square that is cut out of them, 0 for none.
    """

    name: str = "digits"
    train: str = "train"
    test: str = "test"
    speaker: str | None = None
    features: str = "log_mel"
    bin_milliseconds: int = 10
    augment: bool = False
    shift: int | None = None
    mirror: bool = True
    cutout: int = 0

    def __post_init__(self) -> None:
        check.integer(0, cutout=self.cutout)
        if self.shift is not None:
            check.integer(0, shift=self.shift)


def _decay(rate: float) -> optax.GradientTransformation:
    """`optax.add_decayed_weights` that leaves batch statistics, which are measured and not trained, alone."""

    def decayed(path: Any, update: Any, param: Any) -> Any:
        measured = any(getattr(part, "key", None) == "batch_stats" for part in path)
        return update if measured else update + rate * param

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(decayed, updates, params))


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam or SGD with a schedule.

    Attributes:
        name: "adam" (with decoupled weight decay) or "sgd" (with Nesterov momentum 0.9).
        learning_rate: step size after the warm-up, above 0.
        schedule: "cosine" falls to 0 at the last step, "constant" stays.
        warmup: steps in which the rate rises from 0, at least 0.
        weight_decay: decay of every parameter (batch statistics are none), at least 0.
        clip: largest norm of a gradient, above 0; inf for none.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 0
    weight_decay: float = 0.0
    clip: float = float("inf")

    def __post_init__(self) -> None:
        check.one_of(("adam", "sgd"), name=self.name)
        check.one_of(("cosine", "constant"), schedule=self.schedule)
        check.positive(learning_rate=self.learning_rate, clip=self.clip)
        check.non_negative(weight_decay=self.weight_decay)
        check.integer(0, warmup=self.warmup)

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimizer of a run of so many steps.

        Args:
            steps: at least 1.
        """
        after: Any = optax.constant_schedule(self.learning_rate)
        if self.schedule == "cosine":
            after = optax.cosine_decay_schedule(self.learning_rate, max(steps - self.warmup, 1))
        rate = after
        if self.warmup:
            rate = optax.join_schedules(
                [optax.linear_schedule(0.0, self.learning_rate, self.warmup), after], [self.warmup]
            )
        decay = [_decay(self.weight_decay)] if self.weight_decay else []
        clip = [optax.clip_by_global_norm(self.clip)] if self.clip < float("inf") else []
        if self.name == "adam":
            return optax.chain(*clip, optax.scale_by_adam(), *decay, optax.scale_by_learning_rate(rate))
        return optax.chain(*clip, *decay, optax.trace(0.9, nesterov=True), optax.scale_by_learning_rate(rate))


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A whole training run.

    Attributes:
        data: what is learned.
        model: a flax.linen module, `inputs -> logits`.
        optimizer: how.
        epochs: passes over the training split, at least 1.
        steps: optimizer steps in place of `epochs`, at least 1, or None.
        batch: examples in a step, at least 1.
        seed: of the initial parameters and the order of the examples.
        checkpoint_every: steps between two checkpoints, at least 1.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: nn.Module = field(default_factory=SmallConvNet)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 10
    steps: int | None = None
    batch: int = 64
    seed: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        check.integer(1, epochs=self.epochs, batch=self.batch, checkpoint_every=self.checkpoint_every)
        check.integer(0, 2**32 - 1, seed=self.seed)
        if self.steps is not None:
            check.integer(1, steps=self.steps)

    def total_steps(self, size: int) -> int:
        """Optimizer steps of the run.

        Args:
            size: examples in the training split.

        Raises:
            ValueError: if a batch is larger than the split.
        """
        check.integer(1, size, batch=self.batch)
        return self.epochs * (size // self.batch) if self.steps is None else self.steps


def fields(config: Any) -> dict[str, Any]:
    """Names and values of what can be set in a config; of a flax module, without `parent` and `name`."""
    hidden = ("parent", "name") if isinstance(config, nn.Module) else ()
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.init and f.name not in hidden}


def describe(config: Any) -> Any:
    """A config as JSON-able values; what may be of several classes, as a model or a neuron, carries its as `class`.

    Example:
        >>> describe(DataConfig())
        {'name': 'digits', 'train': 'train', 'test': 'test', 'speaker': None, 'features': 'log_mel',
         'bin_milliseconds': 10, 'augment': False, 'shift': None, 'mirror': True, 'cutout': 0}
    """
    return _described(config, type(config))


def _described(value: Any, declared: Any) -> Any:
    """The value of a field, whose annotation says the class of a plain dataclass already."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        told = type(value) is declared and not isinstance(value, nn.Module)
        hints = typing.get_type_hints(type(value))
        described = {name: _described(part, hints.get(name)) for name, part in fields(value).items()}
        return described if told else {"class": type(value).__name__, **described}
    if isinstance(value, tuple | list):
        member = next(iter(typing.get_args(declared)), None)
        return [_described(part, member) for part in value]
    if isinstance(value, type) or inspect.isfunction(value):
        return value.__qualname__
    # JSON knows no infinity
    plain = isinstance(value, bool | int | str | None) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """The settings of a config by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields(config).items():
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def parse_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """The config with some fields set.

    Args:
        config: a frozen dataclass, of dataclasses and numbers, strings and tuples.
        overrides: `name=value`, with dots into inner dataclasses; the last one wins.

    Returns:
        A new config, checked by its own `__post_init__`.

    Raises:
        ValueError: if a name is unknown (the nearest is suggested) or a value is of another type or out of range.

    Example:
        >>> parse_overrides(Experiment(), ["epochs=3", "optimizer.learning_rate=1e-2"]).optimizer.learning_rate
        0.01
        >>> parse_overrides(Experiment(), ["epoch=3"])
        Traceback (most recent call last):
        ValueError: override must name a setting, got 'epoch': did you mean 'epochs'?
    """
    known = flatten(config)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"override must be written name=value, got {override!r}")
        if name not in known:
            inside = [setting for setting in known if setting.startswith(f"{name}.")]
            near = [] if inside else difflib.get_close_matches(name, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(inside or known)}"
            raise ValueError(f"override must name a setting, got {name!r}: {hint}")
        config = _replaced(config, name.split("."), name, text)
    return config


def _replaced(config: Any, path: list[str], name: str, text: str) -> Any:
    if len(path) > 1:
        value = _replaced(getattr(config, path[0]), path[1:], name, text)
    else:
        value = parse_value(name, text, typing.get_type_hints(type(config))[path[0]])
    return dataclasses.replace(config, **{path[0]: value})


def parse_value(name: str, text: str, kind: Any) -> Any:
    """A value of an annotated type: bool, int, float, str, tuple of one of these, or optional.

    Args:
        name: what is set, for the message.
        text: the value as written.
        kind: the annotation.

    Raises:
        ValueError: if the text is no such value.
    """
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    if kind is str:
        return text
    if kind is float and text.lower().lstrip("+-") in ("inf", "infinity"):
        return float(text)
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if typing.get_origin(kind) is tuple:
        member = typing.get_args(kind)[0]
        if member not in _NAMES:
            raise ValueError(f"{name} must be set in the config file, got {text!r}")
        values = value if isinstance(value, tuple | list) else (value,)
        if all(_is(part, member) for part in values):
            return tuple(member(part) for part in values)
        wanted = f"a tuple of {_NAMES[member].removeprefix('a ')}s, such as 16,32"
    else:
        if _is(value, kind):
            return kind(value)
        wanted = _NAMES[kind]
    raise ValueError(f"{name} must be {wanted}, got {text!r}")


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def _is(value: Any, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)


def read_config(path: str | Path) -> Callable[..., Any]:
    """The function `config` of a config file; an exception inside it becomes one sentence.

    Args:
        path: a Python file.

    Raises:
        ValueError: if there is no such file, or it does not define `config`.
    """
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"config must be a Python file such as configs/train/digits.py, got {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _explained(path):
        spec.loader.exec_module(module)
        make = module.config

    @functools.wraps(make)
    def checked(**arguments: Any) -> Any:
        with _explained(path):
            return make(**arguments)

    return checked


def configured(path: str | Path, overrides: Sequence[str] = (), *, settings: bool = True) -> tuple[Any, list[str]]:
    """What a config file's `config(...)` returns for the overrides that name its arguments, and the other overrides.

    Args:
        path: a Python file.
        overrides: `name=value`; a name that `config` takes as an argument goes to it, `rate=29` for instance.
        settings: whether others may follow, as settings of what is made, for `parse_overrides`.

    Raises:
        ValueError: if there is no such file, a value does not fit its argument, or a name without dots is near to that
            of an argument but not equal (without `settings`: is no argument's).
    """
    make = read_config(path)
    names, arguments, others = inspect.signature(make).parameters, {}, []
    for text in overrides:
        name, _, value = text.partition("=")
        if name in names:
            arguments[name] = parse_value(name, value, names[name].annotation)
            continue
        if not settings:
            check.one_of(tuple(names), override=name)
        near = difflib.get_close_matches(name, names, 1, 0.7)
        if near and "." not in name:
            raise ValueError(f"override must name a setting, got {name!r}: did you mean {near[0]!r}?")
        others.append(text)
    return make(**arguments), others


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config {path} must define config(), got {type(error).__name__}: {reason}") from error


def load_config(path: str | Path) -> Experiment:
    """The experiment that a config file's `config()` returns.

    Args:
        path: a Python file.

    Raises:
        ValueError: if there is no such file, or it does not define `config()`.
    """
    made = read_config(path)()
    if not isinstance(made, Experiment):
        raise ValueError(f"config() of {path} must return an Experiment, got {type(made).__name__}")
    return made
