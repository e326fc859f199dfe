"""Scores of accounts: models that learn online, what they make of a row of features, and why.

Its names are found when they are asked for: to import the models takes a second, which who wants the words alone need
not wait for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pipeline.scoring.ensemble import BLOCK, Ensemble
    from pipeline.scoring.explain import Explainer, Reason
    from pipeline.scoring.models import Models
    from pipeline.scoring.scores import TOP, Scores

__all__ = ["BLOCK", "TOP", "Ensemble", "Explainer", "Models", "Reason", "Scores"]

_HOMES: Final = {
    "BLOCK": "ensemble", "Ensemble": "ensemble", "Explainer": "explain", "Models": "models", "Reason": "explain",
    "Scores": "scores", "TOP": "scores",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
