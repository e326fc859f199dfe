"""The catalog's tables of what people decide and of who did what: version 6, and columns of version 7."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from pipeline.io.catalog_tables import META

counters = sa.Table(
    "counters",
    META,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
verdicts = sa.Table(
    "verdicts",
    META,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("verdict_id", sa.String, nullable=False, unique=True),
    sa.Column("account_id", sa.Text, nullable=False),
    sa.Column("account_sha256", sa.String, nullable=False, index=True),
    sa.Column("decision", sa.String, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("given_by", sa.String, nullable=False),
    sa.Column("given_at_us", sa.BigInteger, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("about_us", sa.BigInteger),
    sa.Column("alert_id", sa.String, nullable=False),
    sa.Column("row", sa.Text),  # JSON of a JudgedRow
)
verdict_marks = sa.Table(
    "verdict_marks",
    META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True),
    sa.Column("verdict_seq", sa.BigInteger, nullable=False),
    sa.Column("copied", sa.Boolean, nullable=False, server_default=sa.false()),  # into the lake: `copies`
    sa.Index("verdict_marks_to_copy", "copied", "verdict_seq"),
    sa.Index("verdict_marks_by_verdict", "verdict_seq"),
)
"""Up to which verdict a partition's models have learned once all records below an offset were seen.

None is ever needless: a backtest of the lake takes each verdict in where it was taken in, however long ago.
"""

verdict_offsets = sa.Table(
    "verdict_offsets",
    META,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("topic_id", sa.String, nullable=False),
)
"""How far topics that verdicts come by are read; the access log's own offsets are another table."""

exceptions = sa.Table(
    "exceptions",
    META,
    sa.Column("exception_id", sa.String, primary_key=True),
    sa.Column("scope", sa.String, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("subject_sha256", sa.String, nullable=False, index=True),
    sa.Column("rule", sa.String, nullable=False),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger, nullable=False),
    sa.Column("ended_at_us", sa.BigInteger),
    sa.Column("ended_by", sa.String, nullable=False),
)
suppressions = sa.Table(
    "suppressions",
    META,
    sa.Column("alert_id", sa.String, primary_key=True),
    sa.Column("exception_id", sa.String, nullable=False, index=True),
    sa.Column("at_us", sa.BigInteger, nullable=False),
)
alert_orgs = sa.Table(
    "alert_orgs",
    META,
    sa.Column("alert_id", sa.String, primary_key=True),
    sa.Column("org_id", sa.Text, nullable=False),
)
claims = sa.Table(
    "claims",
    META,
    sa.Column("alert_id", sa.String, primary_key=True),
    sa.Column("claimed_by", sa.String, nullable=False),
    sa.Column("claimed_at_us", sa.BigInteger, nullable=False),
)
audit_log = sa.Table(
    "audit_log",
    META,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("audit_id", sa.String, nullable=False, unique=True),
    sa.Column("at_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("action", sa.String, nullable=False, index=True),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("worker", sa.String, nullable=False),
    sa.Column("subject_type", sa.String, nullable=False),
    sa.Column("subject_sha256", sa.String, nullable=False, index=True),
    sa.Column("details", sa.Text, nullable=False),  # JSON
    sa.Column("chain", sa.String, nullable=False),
)
audit_subjects = sa.Table(
    "audit_subjects",
    META,
    sa.Column("subject_sha256", sa.String, primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("id_sha256", sa.String, nullable=False, index=True, server_default=""),  # of the id, without a key
)
"""The ids in clear, apart from the record itself: an erasure removes an account's, and the record stays whole."""

audit_keys = sa.Table(
    "audit_keys",
    META,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
"""What ids are hashed with for the audit log: see `keyed`."""

APPEND_ONLY_SQLITE: Final = tuple(
    f"CREATE TRIGGER IF NOT EXISTS audit_log_no_{verb} BEFORE {verb} ON audit_log "
    "BEGIN SELECT RAISE(ABORT, 'the audit log can be added to and never changed'); END"
    for verb in ("UPDATE", "DELETE")
)
_FUNCTION: Final = """
CREATE OR REPLACE FUNCTION stillwatch_never() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the audit log can be added to and never changed'; END $$"""
_TRIGGER: Final = """
CREATE TRIGGER audit_log_never BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION stillwatch_never()"""
APPEND_ONLY_POSTGRESQL: Final = (_FUNCTION, "DROP TRIGGER IF EXISTS audit_log_never ON audit_log", _TRIGGER)
