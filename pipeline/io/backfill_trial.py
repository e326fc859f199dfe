"""What a backfill would do, found out by doing all of it but the writing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.batch import Decoded, Partition
from pipeline.commits import FileEntry
from pipeline.decode import Decoder
from pipeline.ports import Assigned, FiniteSource
from pipeline.text_views import one_chunk

_HOUR_US: Final = 3_600_000_000
_POLL_S: Final = 0.2


@dataclass(slots=True)
class Trial:
    """What came of it.

    Attributes:
        read: rows that are not in the lake yet.
        events: of these.
        reasons: why the others are no events, with their numbers.
        hours: events by the hour, in hours since the epoch.
    """

    read: int = 0
    events: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)

    @property
    def rejects(self) -> int:
        """Rows that are no events."""
        return self.reasons.total()

    def add(self, decoded: Decoded) -> None:
        """Count rows in."""
        self.read += len(decoded.events) + len(decoded.rejects)
        self.events += len(decoded.events)
        self.reasons.update(decoded.rejects["reason"].to_pylist())
        hours = one_chunk(decoded.events["event_time"]).cast(pa.int64()).to_numpy() // _HOUR_US
        self.hours.update(dict(zip(*(values.tolist() for values in np.unique(hours, return_counts=True)), strict=True)))

    def before(self, mark: str) -> int:
        """Events of hours before one, which is given as `YYYY-MM-DDTHH`."""
        day, _, hour = mark.partition("T")
        return sum(count for at, count in self.hours.items() if at < _hour_of(day, int(hour)))


def try_logs(sources: Iterable[FiniteSource], offsets: Mapping[Partition, int], tell: Callable[[int], None]) -> Trial:
    """Read and decode what is not landed of some logs.

    Args:
        sources: not polled yet.
        offsets: how far each partition is landed.
        tell: is told after each poll how many records are behind.
    """
    trial, decoder, passed = Trial(), Decoder(), 0
    for source in sources:
        while not source.exhausted:
            polled = source.poll(_POLL_S)
            for event in polled.events:
                for partition in event.partitions if isinstance(event, Assigned) else ():
                    source.read_from(partition, offsets.get(partition, source.first_offset(partition)), -1)
            for records in polled.records:
                if len(records):
                    trial.add(decoder.decode(records))
            tell(passed + source.passed)
        passed += source.passed
    return trial


def hours_held(files: Iterable[FileEntry]) -> set[int]:
    """Hours since the epoch of which files hold rows."""
    return {_hour_of(file.dt, file.hour) for file in files}


def _hour_of(dt: str, hour: int) -> int:
    return int(datetime.fromisoformat(dt).replace(tzinfo=UTC).timestamp()) // 3600 + hour
