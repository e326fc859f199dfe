"""`pipeline.harmless`, by the name that commands know it by."""

from pipeline.harmless import harmless

__all__ = ["harmless"]
