"""How far topics of verdicts are read: moved in the transaction that puts their verdicts on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.decisions import Verdict
from pipeline.errors import FencedError
from pipeline.io import catalog_tables
from pipeline.io.desk.audit_log import Act, append
from pipeline.io.desk.tables import verdict_offsets
from pipeline.io.desk.transactions import Transaction
from pipeline.io.desk.verdict_book import put


@dataclass(frozen=True, slots=True)
class Read:
    """How far a partition of a topic of verdicts is read.

    Attributes:
        next_offset: where reading goes on.
        topic_id: Kafka's id of the topic that was read; empty: not known.
    """

    next_offset: int
    topic_id: str = ""


class TopicBook:
    """Where reading goes on.  `Catalog.desk.topics` gives it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def read(self, topic: str) -> dict[int, Read]:
        """How far each partition of a topic is read; one that never was is left out."""
        query = sa.select(verdict_offsets).where(verdict_offsets.c.topic == topic)
        with self._transaction() as tx:
            return {row.partition: Read(row.next_offset, row.topic_id) for row in tx.execute(query)}

    def give(
        self,
        partition: Partition,
        before: Read | None,
        after: Read,
        verdicts: Sequence[Verdict],
        acts: Sequence[tuple[Act, int]] = (),
    ) -> list[Verdict]:
        """Put verdicts on record and move the offset past their records: both, or neither.

        Args:
            partition: that the records came by.
            before: how far it was read; None: it never was.
            after: how far it is now.
            verdicts: of the records in between; each changes nothing if it is on record.
            acts: what else is to be recorded of them, each with its wall-clock time.

        Returns:
            The verdicts as they stand.

        Raises:
            FencedError: somebody else has read on meanwhile, so nothing was done.
        """
        with self._transaction(write=True) as tx:
            if not _moved(tx, partition, before, after):
                raise FencedError(f"{partition}: read by another listener meanwhile")
            given = [put(tx, verdict) for verdict in verdicts]
            for act, at_us in acts:  # after them, for whoever gives a verdict locks their numbers before the record's
                append(tx, act, at_us)
            return given


def _moved(tx: sa.Connection, partition: Partition, before: Read | None, after: Read) -> bool:
    row = {"next_offset": after.next_offset, "topic_id": after.topic_id}
    if before is None:
        new = catalog_tables.insert(tx.engine, verdict_offsets).values(**catalog_tables.key_of(partition), **row)
        made = tx.execute(new.on_conflict_do_nothing().returning(verdict_offsets.c.next_offset))
        return made.first() is not None
    stands = (verdict_offsets.c.next_offset == before.next_offset, verdict_offsets.c.topic_id == before.topic_id)
    mine = catalog_tables.of(verdict_offsets, partition)
    return tx.execute(sa.update(verdict_offsets).where(*mine, *stands).values(**row)).rowcount == 1
