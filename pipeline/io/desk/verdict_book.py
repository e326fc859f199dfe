"""Verdicts as the catalog keeps them: each once, in one order, and up to which of them each partition has learned."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from pipeline.alerts import without_nul
from pipeline.batch import Partition
from pipeline.decisions import JudgedRow, Verdict
from pipeline.io import catalog_tables
from pipeline.io.desk.audit_log import Act, append
from pipeline.io.desk.numbers import in_portions, next_number, sha256_of_id
from pipeline.io.desk.seals import PLACE, SEAL, content_of
from pipeline.io.desk.tables import verdict_marks, verdicts
from pipeline.io.desk.transactions import Transaction

_PLAIN: Final = (
    "seq", "verdict_id", "account_id", "decision", "why", "given_by", "given_at_us", "source", "about_us", "alert_id",
)  # fmt: skip


class VerdictBook:
    """All verdicts.  `Catalog.desk.verdicts` gives it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def give(self, verdict: Verdict) -> Verdict:
        """Put a verdict on record, and say so in the audit log; one whose id is there already changes nothing.

        Returns:
            It as it stands, with its place.
        """
        with self._transaction(write=True) as tx:
            return put(tx, verdict)

    def give_all(self, verdicts_given: Sequence[Verdict]) -> list[Verdict]:
        """Put verdicts on record as `give` does, all of them or none."""
        with self._transaction(write=True) as tx:
            return [put(tx, verdict) for verdict in verdicts_given]

    def give_over(self, verdict: Verdict, over: int) -> Verdict:
        """Put a verdict on record as `give` does, if the account's latest is still the one that its giver has seen.

        Args:
            verdict: to be given.
            over: place of the account's latest verdict as its giver knows it; 0: there was none.

        Returns:
            It as it stands, with its place; or the one that came in between, and nothing was put on record.
        """
        with self._transaction(write=True) as tx:
            next_number(tx, "verdicts")  # nobody else gives one until this transaction ends
            mine = verdicts.c.account_sha256 == sha256_of_id(verdict.account_id)
            query = sa.select(verdicts).where(mine).order_by(verdicts.c.seq.desc()).limit(1)
            latest = tx.execute(query).mappings().one_or_none()
            if latest is not None and latest["seq"] != over:
                return _verdict_of(latest)
            return put(tx, verdict)

    def known(self, verdict_ids: Sequence[str]) -> dict[str, Verdict]:
        """Which of these are on record, by their ids."""
        found: dict[str, Verdict] = {}
        with self._transaction() as tx:
            for some in in_portions(verdict_ids):
                query = sa.select(verdicts).where(verdicts.c.verdict_id.in_(some))
                found |= {row["verdict_id"]: _verdict_of(row) for row in tx.execute(query).mappings()}
        return found

    def after(self, seq: int, limit: int) -> list[Verdict]:
        """Verdicts in their order, after a place; seqs may have gaps and never come late."""
        query = sa.select(verdicts).where(verdicts.c.seq > seq).order_by(verdicts.c.seq).limit(limit)
        with self._transaction() as tx:
            return [_verdict_of(row) for row in tx.execute(query).mappings()]

    def of(self, account_id: str) -> list[Verdict]:
        """An account's verdicts, the latest first."""
        return self.find(account_id=account_id)

    def standing(self, account_id: str) -> Verdict | None:
        """What holds of an account now; None where nothing was said, or the last was withdrawn."""
        found = self.find(account_id=account_id, limit=1)
        return found[0] if found and found[0].decision != "withdrawn" else None

    def replaced_by(self, verdict: Verdict) -> Verdict | None:
        """What stood of an account until a verdict on it that is on record was given; None where nothing did."""
        mine = (verdicts.c.account_sha256 == sha256_of_id(verdict.account_id), verdicts.c.seq < verdict.seq)
        with self._transaction() as tx:
            query = sa.select(verdicts).where(*mine).order_by(verdicts.c.seq.desc()).limit(1)
            row = tx.execute(query).mappings().one_or_none()
        return None if row is None or row["decision"] == "withdrawn" else _verdict_of(row)

    def standing_of(self, account_ids: Sequence[str]) -> dict[str, Verdict]:
        """What holds of each of these accounts now, by the id as the catalog has it; see `standing`."""
        hashes = sorted({sha256_of_id(account_id) for account_id in account_ids})
        found: dict[str, Verdict] = {}
        with self._transaction() as tx:
            for some in in_portions(hashes):
                last = sa.select(sa.func.max(verdicts.c.seq)).where(verdicts.c.account_sha256.in_(some))
                query = sa.select(verdicts).where(verdicts.c.seq.in_(last.group_by(verdicts.c.account_sha256)))
                found |= {row["account_id"]: _verdict_of(row) for row in tx.execute(query).mappings()}
        return {account_id: last for account_id, last in found.items() if last.decision != "withdrawn"}

    def find(self, *, account_id: str = "", limit: int | None = None) -> list[Verdict]:
        """Verdicts, the latest first."""
        query = sa.select(verdicts).order_by(verdicts.c.seq.desc()).limit(limit)
        if account_id:
            query = query.where(verdicts.c.account_sha256 == sha256_of_id(account_id))
        with self._transaction() as tx:
            return [_verdict_of(row) for row in tx.execute(query).mappings()]

    def marks(self, partition: Partition) -> list[tuple[int, int]]:
        """Where a partition's models learned: (offset, up to which verdict), in offset order."""
        columns = verdict_marks.c
        query = sa.select(columns.offset, columns.verdict_seq).where(*catalog_tables.of(verdict_marks, partition))
        with self._transaction() as tx:
            return [(row.offset, row.verdict_seq) for row in tx.execute(query.order_by(columns.offset))]


def put(tx: sa.Connection, verdict: Verdict) -> Verdict:
    """Put a verdict on record in a transaction; see `VerdictBook.give`."""
    seq = next_number(tx, "verdicts")  # before the look, so that two of one id cannot pass each other
    known = tx.execute(sa.select(verdicts).where(verdicts.c.verdict_id == verdict.verdict_id))
    row = known.mappings().one_or_none()
    if row is not None:
        return _verdict_of(row)
    given = replace(verdict, seq=seq)
    new = _row_of(given)
    tx.execute(sa.insert(verdicts).values(**new))
    details = {"decision": verdict.decision, "verdict": verdict.verdict_id, "source": verdict.source, PLACE: seq}
    if verdict.unread:
        details["unread"] = verdict.unread
    sealed = {SEAL: content_of(new)}
    act = Act("verdict.given", verdict.given_by, "account", verdict.account_id, details, sealed)
    append(tx, act, verdict.given_at_us)
    return given


def standing_in(latest_first: Iterable[Verdict]) -> list[Verdict]:
    """Of each account the last verdict, unless it was withdrawn."""
    last: dict[str, Verdict] = {}
    for verdict in latest_first:
        last.setdefault(verdict.account_id, verdict)
    return [verdict for verdict in last.values() if verdict.decision != "withdrawn"]


def mark(tx: sa.Connection, partition: Partition, offset: int, verdict_seq: int) -> None:
    """Note, in the transaction of a commit that ends at an offset, up to which verdict the models have learned."""
    tx.execute(
        sa.insert(verdict_marks).values(**catalog_tables.key_of(partition), offset=offset, verdict_seq=verdict_seq)
    )


def forget(tx: sa.Connection, account_id: str) -> Sequence[str]:
    """Remove an account's verdicts; says which there were."""
    mine = verdicts.c.account_sha256 == sha256_of_id(account_id)
    return sorted(tx.execute(sa.delete(verdicts).where(mine).returning(verdicts.c.verdict_id)).scalars())


_OF_ROW: Final = ("offset", "scored_at_us", "risk", "exchanges", "kind")


def row_as_json(row: JudgedRow) -> str:
    """A judged row as text."""
    said = {name: getattr(row, name) for name in _OF_ROW}
    return json.dumps({**catalog_tables.key_of(row.partition), **said, "features": dict(row.features)})


def row_of_json(text: str) -> JudgedRow:
    """The row that `row_as_json` wrote."""
    said = json.loads(text)
    where = Partition(said["topic"], said["partition"])
    return JudgedRow(where, features=said["features"], **{name: said[name] for name in _OF_ROW})


def _row_of(verdict: Verdict) -> dict[str, Any]:
    row = {name: getattr(verdict, name) for name in _PLAIN}
    row["account_id"] = without_nul(verdict.account_id)
    said = None if verdict.row is None else row_as_json(verdict.row)
    return {**row, "account_sha256": sha256_of_id(verdict.account_id), "row": said}


def _verdict_of(row: Any) -> Verdict:
    values = {name: row[name] for name in _PLAIN}
    return Verdict(**values, row=None if row["row"] is None else row_of_json(row["row"]))
