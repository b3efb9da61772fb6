"""The packages of the extra `conference`, imported when first needed."""

import importlib
from typing import Any


def package(name: str) -> Any:
    """A module of a package that the extra `conference` brings: av, constriction or skimage.

    Raises:
        ImportError: where it is not installed, in one sentence that names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs the package {name}: pip install 'modicum[conference]'") from error
