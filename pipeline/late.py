"""Modules that are imported when they are first used.

To import Polars takes as long as many a command.  Who wants the names and words of features, or what a lake's table is
made of, imports the modules that compute with it, too, and computes nothing: there, it comes late.
"""

from __future__ import annotations

import importlib
from typing import Any, Final


class Late:
    """Stands for a module until something of it is asked for, and from then on says the same as the module.

    Args:
        name: of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """Called once for each name: from then on it is the stand-in's own."""
        value = getattr(importlib.import_module(self._name), name)
        setattr(self, name, value)
        return value


polars: Final = Late("polars")
polars_hash: Final = Late("polars_hash")
