"""What time it is in a lake: its last request may be dated by a clock that is years ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from pipeline.commits import FileEntry
from pipeline.features.watermark import AHEAD
from pipeline.io.dossier.rows import HOUR_US

_GAP_HOURS: Final = AHEAD // 3_600_000
"""Features do not believe a clock, either, that is further ahead of the others."""

_STRAY: Final = 20
"""So many times as many requests lie in the day before a gap as after it, or what lies after it is no stray."""


def requests_by_hour(files: Sequence[FileEntry]) -> Counter[int]:
    """How many requests of all accounts there are, by the hour since the epoch."""
    rows = Counter[int]()
    for file in files:
        if file.table_name == "access" and file.time_min_us is not None:
            rows[file.time_min_us // HOUR_US] += file.rows
    return rows


def last_hour(files: Sequence[FileEntry]) -> int | None:
    """The lake's last hour, but for a few requests after a gap of more than a day; None where it holds no request."""
    rows = requests_by_hour(files)
    hours = sorted(rows)
    after = 0
    for hour, before in pairwise(reversed(hours)):
        after += rows[hour]
        if hour - before > _GAP_HOURS and after * _STRAY < sum(rows[before - back] for back in range(_GAP_HOURS)):
            return before
    return hours[-1] if hours else None
