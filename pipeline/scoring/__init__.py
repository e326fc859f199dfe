"""Scores of accounts: models that learn online, what they make of a row of features, and why."""

from __future__ import annotations

from pipeline.scoring.ensemble import BLOCK, Ensemble
from pipeline.scoring.explain import Explainer, Reason
from pipeline.scoring.models import Models
from pipeline.scoring.scores import TOP, Scores

__all__ = ["BLOCK", "TOP", "Ensemble", "Explainer", "Models", "Reason", "Scores"]
