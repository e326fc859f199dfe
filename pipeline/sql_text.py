"""Texts in SQL, for queries that are run and for those that people are shown."""

from __future__ import annotations


def literal(text: str) -> str:
    """A text as SQL has it; DuckDB's parser takes NUL for the end of a query, so it is spelled out."""
    parts = ["'" + part.replace("'", "''") + "'" for part in text.split("\0")]
    return parts[0] if len(parts) == 1 else f"({' || chr(0) || '.join(parts)})"
