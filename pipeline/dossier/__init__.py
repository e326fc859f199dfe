"""All that is known of one account, for a person who is to decide about it: facts, inference and decisions apart."""

from __future__ import annotations

from pipeline.dossier.dossier import (
    Activity,
    Bucket,
    Decided,
    Dossier,
    Inferred,
    LookedThrough,
    Measure,
    Notable,
    RaisedAlert,
    Sample,
    ScoredMoment,
    Seen,
    Shared,
    SignUp,
    Texts,
    Used,
)

__all__ = [
    "Activity", "Bucket", "Decided", "Dossier", "Inferred", "LookedThrough", "Measure", "Notable", "RaisedAlert",
    "Sample", "ScoredMoment", "Seen", "Shared", "SignUp", "Texts", "Used",
]  # fmt: skip
