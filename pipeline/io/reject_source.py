"""Rejects of the lake as a log: those whose bytes the decoder takes for events today."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.backfilling.slices import WHOLE, Slice
from pipeline.batch import Partition, Records
from pipeline.decode import Decoder
from pipeline.io.still_source import NO_TIMESTAMP, StillSource
from pipeline.io.views.session import Session
from pipeline.sources import AGAIN, again
from pipeline.sql_text import literal
from pipeline.text_views import one_chunk, taken

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


class RejectSource(StillSource):
    """A `pipeline.ports.FiniteSource` over rejects; it gives only those that are events today."""

    def __init__(self, session: Session, number: int, counts: Mapping[Partition, int], asked: Slice = WHOLE) -> None:
        """Begin before the first one.

        Args:
            session: over the lake.
            number: of the replay.
            counts: of the rejects, as `open_rejects` found them.
            asked: those that are events today are landed if their event time is in it.
        """
        self._from = {Partition(again(number, at.topic), at.number): at for at in counts}
        super().__init__(list(self._from))
        self._session, self._decoder, self._asked = session, Decoder(), asked
        self.still_rejects = 0
        """Records that are no events today either."""

        self.out_of_range = 0
        """Records that are events today, but not of the range that is asked for."""

        self.kept_back = 0
        """Records that are events today, but lie before what an earlier, killed try has landed: for the next replay."""

    @property
    def address(self) -> str:
        """What is read, for people."""
        return "the rejects"

    def read(self) -> Iterator[list[Records]]:
        """Rejects that are events today, partition by partition."""
        for landed_as, origin in self._from.items():
            query = (
                f'SELECT r."offset", epoch_ms(r.kafka_time) AS kafka_ms, r.raw {_OPEN} '
                f'AND r.topic = {literal(origin.topic)} AND r."partition" = {origin.number} ORDER BY r."offset"'
            )
            with self._session.run(query, lossless=False) as result:
                for batch in result.batches:
                    yield [self._events_of(landed_as, pa.Table.from_batches([batch]))]

    def _events_of(self, landed_as: Partition, rejects: pa.Table) -> Records:
        offsets = rejects["offset"].to_numpy()
        stamps = rejects["kafka_ms"].fill_null(NO_TIMESTAMP).to_numpy().astype(np.int64)
        values = rejects["raw"].cast(pa.binary()).combine_chunks().cast(pa.binary_view())
        everything = Records(landed_as, values, offsets, stamps, int(offsets[-1]) + 1)
        decoded = self._decoder.decode(everything).events
        self.still_rejects += len(rejects) - len(decoded)
        times = one_chunk(decoded["event_time"]).cast(pa.int64()).to_numpy()
        inside = self._asked.holds(times, np.ones(len(times), np.bool_))
        events = decoded["offset"].to_numpy()[inside]
        self.out_of_range += len(decoded) - len(events)
        rows = np.flatnonzero(np.isin(offsets, events) & (offsets >= self.positions[landed_as]))
        self.passed += len(rejects)
        self.kept_back += len(events) - len(rows)
        stands = max(self.positions[landed_as], int(offsets[rows[-1]]) + 1 if len(rows) else 0)
        self.positions[landed_as] = stands
        return Records(landed_as, taken(values, rows), offsets[rows], stamps[rows], stands)
