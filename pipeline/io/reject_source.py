"""Rejects of the lake as a log: those whose bytes the decoder takes for events today."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.batch import Partition, Records
from pipeline.decode import Decoder
from pipeline.io.views.session import Session
from pipeline.io.views.tables import literal
from pipeline.ports import Assigned, LogState, Polled
from pipeline.sources import AGAIN, again
from pipeline.text_views import taken

_FAR: Final = 1 << 62
_NO_TIMESTAMP: Final = -1

_OPEN: Final = (
    "FROM rejects AS r WHERE r.raw IS NOT NULL AND NOT EXISTS ("  # noqa: S608  # names of our own
    f"SELECT 1 FROM access AS a WHERE starts_with(a.topic, {literal(AGAIN)}) "
    f"AND regexp_replace(a.topic, '^{AGAIN}[0-9]+:', '') = r.topic "
    'AND a."partition" = r."partition" AND a."offset" = r."offset")'
)
"""Rejects that no replay has made events of."""


def open_rejects(session: Session) -> dict[Partition, int]:
    """How many rejects no replay has made events of, by where they came from."""
    query = f'SELECT r.topic, r."partition", count(*) AS rows {_OPEN} GROUP BY ALL ORDER BY ALL'
    with session.run(query, lossless=False) as result:
        rows = [row for batch in result.batches for row in batch.to_pylist()]
    return {Partition(row["topic"], row["partition"]): row["rows"] for row in rows}


class _Known:
    """Rejects are all there."""

    def result(self) -> LogState:
        return LogState(0, _FAR)


class RejectSource:
    """A `pipeline.ports.FiniteSource` over rejects; it gives only those that are events today."""

    def __init__(self, session: Session, number: int, counts: Mapping[Partition, int]) -> None:
        """Begin before the first one.

        Args:
            session: over the lake.
            number: of the replay.
            counts: of the rejects, as `open_rejects` found them.
        """
        self._session, self._counts = session, counts
        self._from = {Partition(again(number, at.topic), at.number): at for at in counts}
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._decoder = Decoder()
        self._announced = False
        self._batches = self._read()
        self.exhausted = not counts
        self.passed = 0
        self.still_rejects = 0
        """Records that are no events today either."""

        self.kept_back = 0
        """Records that are events today, but lie before what an earlier, killed try has landed: for the next replay."""

    @property
    def address(self) -> str:
        """What is read, for people."""
        return "the rejects"

    @property
    def silent_s(self) -> float:
        """The lake always answers."""
        return 0.0

    @property
    def partitions(self) -> Sequence[Partition]:
        """As what they are landed."""
        return list(self._from)

    def first_offset(self, partition: Partition) -> int:
        """Rejects may be anywhere."""
        del partition
        return 0

    def poll(self, timeout_s: float) -> Polled:
        """The next ones, once every partition is opened; none while one is paused."""
        if not self._announced:
            self._announced = True
            return Polled([Assigned(self.partitions)], [])
        if self._paused or len(self._positions) < len(self._from):
            time.sleep(timeout_s)
            return Polled([], [])
        records = next(self._batches, None)
        self.exhausted = records is None
        return Polled([], [] if records is None else [records])

    def survey(self, partition: Partition, leader_epoch: int) -> _Known:
        """What the log holds."""
        del partition, leader_epoch
        return _Known()

    def read_from(self, partition: Partition, offset: int, leader_epoch: int) -> bool:
        """Give of a partition only what stands at an offset or after it."""
        del leader_epoch
        self._positions[partition] = offset
        self._paused.discard(partition)
        return True

    def position(self, partition: Partition) -> int | None:
        """Offset of the next one at the earliest."""
        return self._positions.get(partition, 0)

    def leader_epoch(self, partition: Partition, offset: int) -> int:
        """The lake knows none."""
        del partition, offset
        return -1

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Give nothing meanwhile."""
        self._paused.update(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Go on."""
        self._paused.difference_update(partitions)

    def hint(self, offsets: Mapping[Partition, int]) -> None:
        """Nobody wants to know."""

    def lag(self, partitions: Iterable[Partition]) -> int | None:
        """Not known by partition."""
        del partitions
        return None

    def _read(self) -> Iterator[Records]:
        for landed_as, origin in self._from.items():
            query = (
                f'SELECT r."offset", epoch_ms(r.kafka_time) AS kafka_ms, r.raw {_OPEN} '
                f'AND r.topic = {literal(origin.topic)} AND r."partition" = {origin.number} ORDER BY r."offset"'
            )
            with self._session.run(query, lossless=False) as result:
                for batch in result.batches:
                    yield self._events_of(landed_as, pa.Table.from_batches([batch]))

    def _events_of(self, landed_as: Partition, rejects: pa.Table) -> Records:
        offsets = rejects["offset"].to_numpy()
        stamps = rejects["kafka_ms"].fill_null(_NO_TIMESTAMP).to_numpy().astype(np.int64)
        values = rejects["raw"].cast(pa.binary()).combine_chunks().cast(pa.binary_view())
        everything = Records(landed_as, values, offsets, stamps, int(offsets[-1]) + 1)
        events = self._decoder.decode(everything).events["offset"].to_numpy()
        rows = np.flatnonzero(np.isin(offsets, events) & (offsets >= self._positions[landed_as]))
        self.passed += len(rejects)
        self.still_rejects += len(rejects) - len(events)
        self.kept_back += len(events) - len(rows)
        stands = max(self._positions[landed_as], int(offsets[rows[-1]]) + 1 if len(rows) else 0)
        self._positions[landed_as] = stands
        return Records(landed_as, taken(values, rows), offsets[rows], stamps[rows], stands)
