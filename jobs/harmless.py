"""`pipeline.harmless`, for commands."""

from pipeline.harmless import harmless

__all__ = ["harmless"]
