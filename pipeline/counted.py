"""Counts in words, one of something and several."""

from __future__ import annotations


def counted(count: int, one: str, several: str = "") -> str:
    """How many of something, as `1 row` and `2,000 rows`.

    Args:
        count: how many.
        one: what a single one is called, with what else changes: `file is`.
        several: what others are called; empty: as one, with an s.
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
