"""Whether the records are still about those that they were about when they were written.

Ids stand apart from the records (`audit_subjects`), where an erasure strikes one out; so the chain does not cover them.
But the records have a hash of each, under the catalog's key, which tells whether another id was put in an id's place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from pipeline.io.desk.keyed import key_in
from pipeline.io.desk.numbers import in_portions, sha256_of_id
from pipeline.io.desk.seals import ERASED, KEYED_SEAL, OLDER_ERASURE, REBUILT
from pipeline.io.desk.tables import audit_log, audit_subjects

ERASE: Final = "erase"
_ERASING: Final = (ERASE, ERASED)
_UNKEYED: Final = "unkeyed"
"""A detail of an erasure: how many records about the account have a hash of its id without a key, by which nobody can
tell that they are about it."""

_PORTION: Final = 1_000


@dataclass(slots=True)
class Subjects:
    """What a comparison of ids with the hashes in the records found.

    Attributes:
        named: how many ids are there, and are those that the records are about.
        renamed: records that are said to be about another one now, as `record PLACE`: of each id the first.
        struck: records whose id is gone, and no erasure accounts for it; of each id the first.
        unclear: how many ids are gone, and may have gone with an erasure of an account that has records from before
            catalog version 7: it cannot be told whose these are.
    """

    named: int = 0
    renamed: list[str] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    unclear: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nobody has changed whom records are about, as far as can be told."""
        return not (self.renamed or self.struck)


def compare_subjects(tx: sa.Connection) -> Subjects:
    """Compare the ids that records are said to be about with the hashes in the records."""
    found = Subjects()
    wrong: list[str] = []
    for digest, is_right in _ids(tx):
        found.named += is_right
        if not is_right:
            wrong.append(digest)
    found.renamed = [_named(seq) for seq in sorted(_first_records(tx, wrong))]
    unclear_before = _last_unclear(tx)
    for first, last, is_keyed in _gone(tx):
        if not is_keyed and last < unclear_before:
            found.unclear += 1
        else:
            found.struck.append(_named(first))
    return found


def _named(seq: int) -> str:
    return f"record {seq}"


def _ids(tx: sa.Connection) -> Iterator[tuple[str, bool]]:
    """Each hash that has an id, and whether it is that id's; the older ones are without a key."""
    key, columns, last = key_in(tx), audit_subjects.c, ""
    while True:
        query = sa.select(audit_subjects).where(columns.subject_sha256 > last).order_by(columns.subject_sha256)
        some = tx.execute(query.limit(_PORTION)).all()
        for row in some:
            plain = sha256_of_id(row.subject)
            is_right = row.subject_sha256 in {key.hash_of_id(row.subject), plain} and row.id_sha256 == plain
            yield row.subject_sha256, is_right
        if len(some) < _PORTION:
            return
        last = some[-1].subject_sha256


def _first_records(tx: sa.Connection, digests: list[str]) -> Iterator[int]:
    columns = audit_log.c
    for some in in_portions(digests):
        query = sa.select(sa.func.min(columns.seq)).where(columns.subject_sha256.in_(some))
        yield from tx.execute(query.group_by(columns.subject_sha256)).scalars()


def _gone(tx: sa.Connection) -> Iterator[tuple[int, int, bool]]:
    """Ids that are gone, and were not erased after the last record about them.

    Yields:
        Places of an id's first and last record, and whether the hash of it is known to be one with a key.
    """
    columns = audit_log.c
    is_erasing = columns.action.in_(_ERASING)
    last = sa.func.max(sa.case((is_erasing, 0), else_=columns.seq))
    last_erasing = sa.func.max(sa.case((is_erasing, columns.seq), else_=0))
    is_keyed = sa.func.max(sa.case((columns.details.contains(KEYED_SEAL), 1), else_=0))
    first = sa.func.min(columns.seq)
    query = (
        sa.select(first, last, is_keyed)
        .join_from(audit_log, audit_subjects, columns.subject_sha256 == audit_subjects.c.subject_sha256, isouter=True)
        .where(audit_subjects.c.subject_sha256.is_(None), columns.subject_sha256 != "")
        .group_by(columns.subject_sha256)
        .having(last > last_erasing)
        .order_by(first)
    )
    for row in tx.execute(query):
        yield row[0], row[1], bool(row[2])


def _last_unclear(tx: sa.Connection) -> int:
    """Place of the last record of an erasure that does not say of all records that they were about whom it erased."""
    columns = audit_log.c
    query = sa.select(columns.seq, columns.action, columns.details).where(columns.action.in_((ERASE, REBUILT)))
    last = 0
    for row in tx.execute(query.order_by(columns.seq)):
        details = json.loads(row.details)
        if row.action == REBUILT or details.get(_UNKEYED) or OLDER_ERASURE in details:
            last = row.seq
    return last
