"""The views of what people decided and who did what: their columns, and their rows out of the catalog."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from pipeline.decisions import AllowEntry, AuditRecord, Verdict
from pipeline.events import TIME
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import PORTION
from pipeline.io.desk.verdict_book import standing_in

VERDICTS_SCHEMA: Final = pa.schema(
    [
        pa.field("seq", pa.int64()),
        pa.field("verdict_id", pa.string()),
        pa.field("account_id", pa.string()),
        pa.field("decision", pa.string()),
        pa.field("is_standing", pa.bool_()),
        pa.field("why", pa.string()),
        pa.field("given_by", pa.string()),
        pa.field("given_at", TIME),
        pa.field("source", pa.string()),
        pa.field("about", TIME),
        pa.field("alert_id", pa.string()),
        pa.field("scored_at", TIME),
        pa.field("risk", pa.float64()),
        pa.field("features", pa.map_(pa.string(), pa.float64())),
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
    ]
)
EXCEPTIONS_SCHEMA: Final = pa.schema(
    [
        pa.field("exception_id", pa.string()),
        pa.field("state", pa.string()),
        pa.field("scope", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("owner", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("created_at", TIME),
        pa.field("created_by", pa.string()),
        pa.field("expires_at", TIME),
        pa.field("ended_at", TIME),
        pa.field("ended_by", pa.string()),
        pa.field("suppressed", pa.int64()),
    ]
)
AUDIT_SCHEMA: Final = pa.schema(
    [
        pa.field("seq", pa.int64()),
        pa.field("at", TIME),
        pa.field("action", pa.string()),
        pa.field("actor", pa.string()),
        pa.field("worker", pa.string()),
        pa.field("subject_type", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("subject_sha256", pa.string()),
        pa.field("details", pa.string()),
        pa.field("chain", pa.string()),
    ]
)

SCHEMAS: Final = {"verdicts": VERDICTS_SCHEMA, "exceptions": EXCEPTIONS_SCHEMA, "audit": AUDIT_SCHEMA}
ABOUT: Final = {
    "verdicts": "somebody's judgement of an account; those that were changed or withdrawn since, too",
    "exceptions": "whose alerts are known and allowed; those that are over, too",
    "audit": "who did what and when",
}
WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "verdicts": {
        "seq": "Its place among all verdicts; numbers may be missing.",
        "verdict_id": "32 hex digits; of a line of a file or a record of a topic, the same whenever it comes again.",
        "account_id": "Whom it judges.",
        "decision": "harvesting, benign, unsure, or withdrawn, which takes the one before it back.",
        "is_standing": "Whether it holds now: it is the account's last, and was not withdrawn.",
        "why": "The reason, in words.",
        "given_by": "Who decided.",
        "given_at": "When it came, wall clock.",
        "source": "How it came: `command`, `page`, `csv:NAME`, `kafka:TOPIC`.",
        "about": "Moment of event time that it speaks of; null: whatever was known when it was given.",
        "alert_id": "Of the alert that it answers; null: none.",
        "scored_at": "Of the row of features that it was joined to; null: nothing was stored, and it teaches nothing.",
        "risk": "Of that row.",
        "features": "Of that row, by name, null where not computable.",
        "topic": "That row's place.",
        "partition": "That row's place.",
        "offset": "That row's place.",
    },
    "exceptions": {
        "exception_id": "32 hex digits.",
        "state": "`active`, `expired`, or `ended`: before its time, by somebody; as of now.",
        "scope": "account, organisation or rule.",
        "subject": "What it speaks of: an id, or the rule's name.",
        "rule": "Only alerts of this rule; null: of every rule.",
        "owner": "Who answers for it.",
        "reason": "Why, in words.",
        "created_at": "When it was made, wall clock.",
        "created_by": "Who made it.",
        "expires_at": "From then on it covers nothing.",
        "ended_at": "When somebody ended it; null: nobody did.",
        "ended_by": "Who did.",
        "suppressed": "How many alerts it has suppressed.",
    },
    "audit": {
        "seq": "Its place, without gaps.",
        "at": "Wall clock.",
        "action": "`verdict.given`, `exception.added`, `alert.claimed`, `content.queried`, `erase`, …",
        "actor": "The person, or the command that acted by itself.",
        "worker": "Host and process.",
        "subject_type": "account, alert, rule, exception, sink, …; null: none.",
        "subject": "Its id; null: none, or the account was erased.",
        "subject_sha256": (
            "HMAC of the id under the catalog's key, in hex: what stays where an account was erased; before version 7 "
            "a plain SHA-256."
        ),
        "details": "What is worth knowing, a JSON object.",
        "chain": "SHA-256 over this record and the chain of the one before it.",
    },
}


def rows_of(view: str, catalog: Catalog) -> Iterable[pa.Table]:
    """A view's rows, as they are now; those of the audit log in portions, since there may be many."""
    return _ROWS[view](catalog)


def _verdict_rows(catalog: Catalog) -> Iterable[pa.Table]:
    found = catalog.desk.verdicts.find()
    standing = {verdict.seq for verdict in standing_in(found)}
    return [_table(VERDICTS_SCHEMA, [_of_verdict(verdict, verdict.seq in standing) for verdict in found])]


def _of_verdict(verdict: Verdict, is_standing: bool) -> dict[str, Any]:
    row = verdict.row
    said = {name: getattr(verdict, name, None) for name in VERDICTS_SCHEMA.names}
    said |= {"is_standing": is_standing, "given_at": verdict.given_at_us, "about": verdict.about_us}
    said["alert_id"] = verdict.alert_id or None
    if row is not None:
        said |= {"scored_at": row.scored_at_us, "risk": row.risk, "features": list(row.features.items())}
        said |= {"topic": row.partition.topic, "partition": row.partition.number, "offset": row.offset}
    return said


def _exception_rows(catalog: Catalog) -> Iterable[pa.Table]:
    suppressed, now_us = catalog.desk.exceptions.suppressed(), SystemClock().now_us()
    found = catalog.desk.exceptions.find()
    rows = [_of_entry(entry, suppressed.get(entry.exception_id, 0), now_us) for entry in found]
    return [_table(EXCEPTIONS_SCHEMA, rows)]


def _of_entry(entry: AllowEntry, suppressed: int, now_us: int) -> dict[str, Any]:
    said = {name: getattr(entry, name, None) for name in EXCEPTIONS_SCHEMA.names}
    said |= {"created_at": entry.created_at_us, "expires_at": entry.expires_at_us, "ended_at": entry.ended_at_us}
    said |= {"rule": entry.rule or None, "ended_by": entry.ended_by or None}
    return {**said, "state": entry.state_at(now_us), "suppressed": suppressed}


def _audit_rows(catalog: Catalog) -> Iterable[pa.Table]:
    found = catalog.desk.audit.walk()
    while some := list(itertools.islice(found, PORTION)):
        yield _table(AUDIT_SCHEMA, [_of_record(record) for record in some])


def _of_record(record: AuditRecord) -> dict[str, Any]:
    said = {name: getattr(record, name, None) for name in AUDIT_SCHEMA.names}
    said |= {name: said[name] or None for name in ("subject_type", "subject", "subject_sha256")}
    return {**said, "at": record.at_us, "details": json.dumps(dict(record.details), sort_keys=True)}


def _table(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    columns = [
        pa.array([row[field.name] for row in rows], pa.int64()).cast(TIME)
        if field.type == TIME
        else pa.array([row[field.name] for row in rows], field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


_ROWS: Final[Mapping[str, Callable[[Catalog], Iterable[pa.Table]]]] = {
    "verdicts": _verdict_rows,
    "exceptions": _exception_rows,
    "audit": _audit_rows,
}
