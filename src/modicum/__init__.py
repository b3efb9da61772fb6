"""Modicum: neural networks that must make do with little.

`from modicum import core, constraints, admm, spiking, analog, federated, mobile, conference, models, train,
interchange`: each is a package of its own, imported when first asked for; `import modicum` itself takes no time, and
`modicum.spiking` works after it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modicum import (
        admm,
        analog,
        conference,
        constraints,
        core,
        federated,
        interchange,
        mobile,
        models,
        spiking,
        systems,
        train,
    )

__version__ = "0.1.0"

__all__ = [
    "admm",
    "analog",
    "conference",
    "constraints",
    "core",
    "federated",
    "interchange",
    "mobile",
    "models",
    "spiking",
    "systems",
    "train",
]


def __getattr__(name: str) -> Any:
    """A package of the codebase, imported now (PEP 562)."""
    if name in __all__:
        return importlib.import_module(f"modicum.{name}")
    raise AttributeError(f"module 'modicum' has no attribute {name!r}: it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
