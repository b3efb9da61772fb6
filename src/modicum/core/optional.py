"""Packages that an extra brings, imported when first needed."""

import importlib
from typing import Any


def package(module: str, extra: str, name: str | None = None) -> Any:
    """A module that only an extra brings.

    Args:
        module: what to import.
        extra: of modicum, which has it.
        name: of the package, where the module does not say it.

    Raises:
        ImportError: where it is not installed, in one sentence that names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this needs the package {name or module}: pip install 'modicum[{extra}]'") from error
